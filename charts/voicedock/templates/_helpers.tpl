{{/* Name of everything that belongs to the operator. */}}
{{- define "voicedock.operator" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}-operator
{{- end }}

{{/* Labels that select the operator's pods; part of an immutable selector: they never change. */}}
{{- define "voicedock.operatorSelector" -}}
app.kubernetes.io/name: voicedock-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Name of everything that belongs to the REST API. */}}
{{- define "voicedock.api" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}-api
{{- end }}

{{/* Labels that select its pods; part of an immutable selector: they never change. */}}
{{- define "voicedock.apiSelector" -}}
app.kubernetes.io/name: voicedock-api
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of everything in the release. */}}
{{- define "voicedock.labels" -}}
app.kubernetes.io/part-of: voicedock
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The one image of operator, gateways and API. */}}
{{- define "voicedock.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* namespace/name of the SipGateway for numbers that name none; empty when there is none. */}}
{{- define "voicedock.defaultGateway" -}}
{{- if .Values.operator.defaultGateway }}{{ .Values.operator.defaultGateway }}
{{- else if .Values.gateway.enabled }}{{ .Release.Namespace }}/{{ .Values.gateway.name }}
{{- end }}
{{- end }}

{{/* The Secret with the keys of call control; empty when there is none. */}}
{{- define "voicedock.apiKeysSecret" -}}
{{- if .Values.gateway.apiKeys.secretName }}{{ .Values.gateway.apiKeys.secretName }}
{{- else if .Values.gateway.apiKeys.create }}{{ .Values.gateway.name }}-api-keys
{{- end }}
{{- end }}

{{/*
Whether the SipGateway can be part of this run. Helm asks the API server about every kind before it makes the first object, so
that on the very first installation of the CustomResourceDefinitions there can be no SipGateway yet: the second run makes
it, and NOTES.txt says so. Where there is no API server to ask (helm template, Argo CD) it is always rendered.
*/}}
{{- define "voicedock.gatewayRendered" -}}
{{- if .Values.gateway.enabled -}}
{{- $served := .Capabilities.APIVersions.Has "voicedock.dev/v1alpha1/SipGateway" -}}
{{- if or (not .Values.crds.enabled) $served (not (lookup "v1" "Namespace" "" "default")) }}true{{ end -}}
{{- end -}}
{{- end }}

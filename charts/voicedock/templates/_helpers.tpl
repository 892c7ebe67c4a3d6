{{/* What the names of everything in the release begin with. */}}
{{- define "voicedock.base" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Name of everything that belongs to the operator. */}}
{{- define "voicedock.operator" -}}
{{ include "voicedock.base" . }}-operator
{{- end }}

{{/* Labels that select the operator's pods; part of an immutable selector: they never change. */}}
{{- define "voicedock.operatorSelector" -}}
app.kubernetes.io/name: voicedock-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Name of everything that belongs to the REST API. */}}
{{- define "voicedock.api" -}}
{{ include "voicedock.base" . }}-api
{{- end }}

{{/* Labels that select its pods; part of an immutable selector: they never change. */}}
{{- define "voicedock.apiSelector" -}}
app.kubernetes.io/name: voicedock-api
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels that select the pods of every gateway; the operator gives them, src/operator/names.rs. */}}
{{- define "voicedock.gatewaySelector" -}}
app.kubernetes.io/name: voicedock-gateway
{{- end }}

{{/* Labels of everything in the release. */}}
{{- define "voicedock.labels" -}}
app.kubernetes.io/part-of: voicedock
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The one image of operator, gateways and API. */}}
{{- define "voicedock.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* With what credentials it is pulled: of a pod's spec. */}}
{{- define "voicedock.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
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

{{/* Whether an object of one of the Prometheus operator's kinds is rendered; takes (list ROOT KIND). */}}
{{- define "voicedock.monitored" -}}
{{- $root := index . 0 }}
{{- $kind := index . 1 }}
{{- $mode := $root.Values.monitoring.renderMode }}
{{- if or (eq $mode "alwaysRender") ($root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind)) -}}
true
{{- else if eq $mode "failIfMissing" }}
{{- fail (printf "the cluster doesn't know the kind %s: install the Prometheus operator's CustomResourceDefinitions, or set monitoring.renderMode to skipIfMissing" $kind) }}
{{- end }}
{{- end }}

{{/* Where the pods of a role go; takes (dict "role" VALUES "selector" LABELS). */}}
{{- define "voicedock.placement" -}}
{{- with .role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- $selector := dict "matchLabels" (fromYaml .selector) }}
{{- range .role.topologySpreadConstraints | default (list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway")) }}
- {{ merge (dict) . (dict "labelSelector" $selector) | toYaml | nindent 2 | trim }}
{{- end }}
{{- with .role.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .role.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every pod and container of the chart is: nobody's root. */}}
{{- define "voicedock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "voicedock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Out to the API server and to DNS: rules of a NetworkPolicy. */}}
{{- define "voicedock.egress" -}}
- ports:
  {{- range .Values.networkPolicy.apiServerPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- with .Values.tracing.endpoint }}
- ports:
  - {protocol: TCP, port: {{ include "voicedock.otlpPort" . }}}
{{- end }}
{{- end }}

{{/* The port of a URL: what stands behind the host, or its scheme's own. */}}
{{- define "voicedock.otlpPort" -}}
{{- $url := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* The standard variables that say where traces go. */}}
{{- define "voicedock.tracing" -}}
{{- if .endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .sampleRatio | quote }}
{{- with .resourceAttributes }}
{{- $pairs := list -}}
{{- range $name, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $name $value) }}{{ end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $pairs | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A ServiceAccount; takes (list ROOT NAME). Pods mount it themselves; nobody who borrows the account gets a token unasked. */}}
{{- define "voicedock.account" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "voicedock.labels" $root | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{/*
What a role may do, given to its ServiceAccount, in every namespace or, with namespaceOnly, in the release's; takes
(list ROOT NAME RULES).
*/}}
{{- define "voicedock.grant" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $everywhere := not $root.Values.namespaceOnly }}
{{- $called := ternary (printf "%s-%s" $root.Release.Namespace $name) $name $everywhere -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRole" "Role" $everywhere }}
metadata:
  name: {{ $called }}
  {{- if not $everywhere }}
  namespace: {{ $root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "voicedock.labels" $root | nindent 4 }}
rules:
{{- index . 2 | trim | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRoleBinding" "RoleBinding" $everywhere }}
metadata:
  name: {{ $called }}
  {{- if not $everywhere }}
  namespace: {{ $root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "voicedock.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "ClusterRole" "Role" $everywhere }}
  name: {{ $called }}
subjects:
- kind: ServiceAccount
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
{{- end }}

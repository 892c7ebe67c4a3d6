#!/usr/bin/env bash
# `make demo`: a cluster, VoiceDock in it, and calls that are shown while they happen. Run again, it uses what is
# there. `make demo-down` (demo.sh down) removes everything.
#
# With OPENAI_API_KEY, OPENAI_PROJECT_ID and OPENAI_WEBHOOK_SECRET set, one of the assistants is a model of that project, which you can
# call with a phone. Without them a double of OpenAI's Realtime API answers in its place, and the demo says so.
#
# VOICEDOCK_BINARY is a program that is there already (static, as hack/image.sh wants it); without it, it is built.
#
# With KUBECONFIG set, that cluster is used instead of one of its own: it needs the image $VOICEDOCK_IMAGE, and NodePorts that
# can be reached from here.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly name=demo state=target/demo system=voicedock-system office=acme
readonly image=${VOICEDOCK_IMAGE:-voicedock.local/voicedock:dev}
export VOICEDOCK_IMAGE=$image
given=${KUBECONFIG:-}
parties=(voice-agent pbx)
openai_key=${OPENAI_API_KEY:-} openai_project=${OPENAI_PROJECT_ID:-} openai_webhook=${OPENAI_WEBHOOK_SECRET:-}

# ---------------------------------------------------------------------------------------------------------------- looks

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' plain=''
fi

title() {
  local text="── $1 "
  while ((${#text} < 100)); do text+=─; done
  printf '\n%s%s%s\n\n' "$bold" "$text" "$plain"
}

# shown COMMAND: print a command as one would type it, and run just that.
shown() {
  printf '%s$ %s%s\n' "$dim" "$1" "$plain"
  bash -c "$1"
}

# stop SENTENCE: what is wrong in the cluster, then the sentence, which names what to do about it.
stop() {
  {
    printf '\n%s%s%s\n' "$red" "It did not work. What the cluster says:" "$plain"
    diagnose || true
    printf '\n'
  } >&2
  fail "$1"
}

diagnose() {
  local namespace pod
  timeout 20 kubectl get pods --all-namespaces --output wide
  timeout 20 kubectl get voicedock --all-namespaces
  for namespace in "$system" "$office"; do
    timeout 20 kubectl get events --namespace "$namespace" --field-selector type=Warning --sort-by=.lastTimestamp | tail -n 15
    for pod in $(kubectl get pods --namespace "$namespace" --output name); do
      printf -- '-- the end of the log of %s in %s\n' "$pod" "$namespace"
      timeout 20 kubectl logs --namespace "$namespace" "$pod" --all-containers --tail 8 | cut -c1-240
    done
  done
  kubectl get voicedock --all-namespaces --output json | jq -r '
    .items[] | . as $object | .status.conditions[]? | select(.status == "False")
    | "\($object.kind) \($object.metadata.namespace)/\($object.metadata.name): \(.type)=False, \(.reason): \(.message)"'
}

# --------------------------------------------------------------------------------------------------------------- set-up

install_tools() {
  local tool
  if [[ -n $given ]]; then
    for tool in kubectl helm jq curl openssl; do
      command -v "$tool" >/dev/null || fail "$tool is missing: install it, or run \`make tools\`, which brings it"
    done
  else
    [[ $(id -u) = 0 ]] || fail "a cluster of its own needs root: use sudo, or set KUBECONFIG to a cluster that you have"
    # On standard output it says only where the cluster program is.
    "$root/hack/tools.sh" cluster >/dev/null
  fi
}

start_cluster() {
  if [[ -n $given ]]; then
    timeout 20 kubectl get nodes --output name >/dev/null ||
      fail "the cluster of KUBECONFIG=$given does not answer: start it, or unset KUBECONFIG to get one for the demo"
    say "using the cluster of KUBECONFIG=$given; it must have the image $image"
  else
    "$root/hack/cluster.sh" up --name "$name" --nodes 2 --reuse --image target/image/voicedock.tar >&2 ||
      fail "the cluster did not come up: its programs' output is in ${VOICEDOCK_STATE:-target/cluster}/$name/log; \`make demo-down\` clears up"
    export KUBECONFIG=${VOICEDOCK_STATE:-$root/target/cluster}/$name/kubeconfig
  fi
  # Proxies of the machine's environment are not for the cluster.
  local addresses
  addresses=$(kubectl get nodes --output jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}')
  addresses+=" $(kubectl config view --minify --output jsonpath='{.clusters[0].cluster.server}' | sed -E 's,^https?://,,; s,:[0-9]+$,,')"
  export NO_PROXY="${NO_PROXY:+$NO_PROXY,}${addresses// /,}"
  export no_proxy=$NO_PROXY
}

# Wrappers that work in any shell, and the environment for scripts.
write_state() {
  local tool
  mkdir -p "$state"
  for tool in kubectl helm; do
    cat >"$state/$tool" <<END
#!/bin/sh
# $tool for the demo's cluster.
export KUBECONFIG='$KUBECONFIG' NO_PROXY='$NO_PROXY' no_proxy='$NO_PROXY'
exec '$(command -v "$tool")' "\$@"
END
  done
  ln -sfn "$voicedock" "$state/voicedock"
  chmod +x "$state/kubectl" "$state/helm"
}

install_chart() {
  local values=(
    --namespace "$system" --create-namespace
    --set "image.registry=$(dirname "${image%:*}"),image.repository=$(basename "${image%:*}"),image.tag=${image##*:}"
    --set "operator.log.format=text,gateway.exposure=NodePort"
    --set "operator.resources.requests.cpu=10m,gateway.resources.requests.cpu=50m,api.resources.requests.cpu=10m"
    --set "gateway.drainTimeoutSeconds=60"
  )
  local before
  before=$(kubectl get crd sipgateways.voicedock.dev --output name 2>/dev/null || true)
  patiently "helm: installing the chart" helm upgrade --install voicedock charts/voicedock "${values[@]}" ||
    stop "helm could not install charts/voicedock: see its output above"
  # Helm can't make an object in the same run as its definition.
  [[ -n $before ]] || patiently "helm: making the default SipGateway" helm upgrade voicedock charts/voicedock "${values[@]}" ||
    stop "helm could not make the SipGateway: see its output above"
}

# Where this machine is seen from the cluster.
own_address() {
  local node
  node=$(kubectl get nodes --output jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  ip -json route get "$node" | jq -r '.[0].prefsrc'
}

# Whether the model is OpenAI's own.
with_a_key() { [[ -n $openai_key ]]; }

# What the double shows to those who connect, and those who vouch for it: for as long as the demo is there.
apply_certificates() {
  local new='' directory=$state/tls host=realtime.$office.svc.cluster.local curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  if [[ ! -s $directory/tls.crt ]] || ! openssl x509 -in "$directory/tls.crt" -noout -checkend 86400 >/dev/null; then
    mkdir -p "$directory"
    (
      umask 077
      cd "$directory"
      openssl req -x509 "${curve[@]}" -days 30 -subj "/CN=VoiceDock's demo" -keyout ca.key -out ca.crt
      openssl req "${curve[@]}" -subj "/CN=$host" -addext "subjectAltName=DNS:$host" -keyout tls.key -out tls.csr
      openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days 30 -copy_extensions copy -out tls.crt
    ) >"$directory/log" 2>&1 || fail "openssl could not make certificates for the demo: see $directory/log"
    new=1
  fi
  {
    kubectl create secret tls realtime-tls --namespace "$office" --cert "$directory/tls.crt" --key "$directory/tls.key" \
      --dry-run=client --output yaml
    echo ---
    kubectl create secret generic realtime-authority --namespace "$office" --from-file "$directory/ca.crt" \
      --dry-run=client --output yaml
  } | kubectl apply --server-side --force-conflicts --filename - >/dev/null || return 1
  # One that runs already has read the others.
  [[ -z $new ]] || kubectl delete deployment realtime --namespace "$office" --ignore-not-found >/dev/null
}

apply_office() {
  rm -rf "$state/manifests"
  (umask 077 && mkdir -p "$state/manifests")
  local file here manifest
  here=$(own_address)
  for file in examples/demo/*.yaml; do
    manifest=$(basename "$file")
    if with_a_key && [[ $manifest = 50-double.yaml ]]; then continue; fi
    sed "s,172\\.31\\.10\\.254,$here,; s,voicedock\\.local/voicedock:dev,$image," "$file" >"$state/manifests/$manifest"
  done
  if with_a_key; then
    # The key stays out of command lines, which others can see.
    sed --in-place --file - "$state/manifests/40-model.yaml" <<END
/# the double$/d
s|sk-only-for-the-demo|$openai_key|
s|whsec_b25seS1mb3ItdGhlLWRlbW8=|$openai_webhook|
s|proj_demo|$openai_project|
END
  fi
  local refused="the manifests of the demo were not taken: see above"
  kubectl apply --server-side --force-conflicts --filename "$state/manifests/00-namespace.yaml" >/dev/null || stop "$refused"
  with_a_key || apply_certificates || stop "$refused"
  kubectl apply --server-side --force-conflicts --filename "$state/manifests" >/dev/null || stop "$refused"
  if with_a_key; then
    kubectl delete --ignore-not-found --filename examples/demo/50-double.yaml >/dev/null
  fi
}

# The image keeps its name when it changes, so that its users have to be told.
restart_if_new() {
  local now
  now=$(cat target/image/voicedock.tar.from)
  if [[ -f $state/image && $(cat "$state/image") != "$now" ]]; then
    say "the image is new: restarting what runs on it"
    kubectl rollout restart deployment --namespace "$system" >/dev/null
    kubectl rollout restart deployment --namespace "$office" >/dev/null
  fi
  echo "$now" >"$state/image"
}

await() {
  say "waiting for the operator, the gateways and the simulated parties"
  kubectl rollout status deployment --namespace "$system" voicedock-operator voicedock-api --timeout 120s >/dev/null ||
    stop "the operator or the REST API does not run: if its image can't be pulled, load $image into the cluster (it is in target/image/voicedock.tar)"
  timeout 60 bash -c "until kubectl get deployment --namespace $system default-voicedock >/dev/null 2>&1; do sleep 0.5; done" ||
    stop "the operator made no Deployment for the gateway: its log above says why"
  kubectl rollout status deployment --namespace "$system" default-voicedock --timeout 120s >/dev/null ||
    stop "the gateways do not become ready: their log above says why"
  kubectl rollout status deployment --namespace "$office" "${parties[@]}" --timeout 120s >/dev/null ||
    stop "the simulated parties do not run: the events above say why"
  say "waiting until every resource is Ready"
  kubectl wait sipgateways --namespace "$system" --all --for condition=Ready --timeout 60s >/dev/null ||
    stop "the SipGateway does not become Ready: its conditions above say why"
  kubectl wait phonenumbers,assistants,siptrunks,transferdestinations --namespace "$office" --all --for condition=Ready --timeout 60s >/dev/null ||
    stop "not every resource in namespace $office is Ready: the conditions above say why"
}

# Sets api, sip and key, and writes target/demo/env.
find_gateway() {
  local node service
  node=$(kubectl get pods --namespace "$system" --selector voicedock.dev/gateway=default --field-selector status.phase=Running \
    --output jsonpath='{.items[0].status.hostIP}')
  service=$(kubectl get service --namespace "$system" default-voicedock --output json)
  port() { jq -r --arg name "$1" '.spec.ports[] | select(.name == $name) | .nodePort' <<<"$service"; }
  api=http://$node:$(port http)
  sip=$node:$(port sip-udp)
  key=$(kubectl get secret --namespace "$system" default-api-keys --output jsonpath='{.data.default}' | base64 --decode)
  (
    umask 077
    printf '%s' "$key" >"$state/key"
    cat >"$state/env" <<END
# The demo's cluster, for your shell: source $state/env
export KUBECONFIG='$KUBECONFIG'
export VOICEDOCK_API='$api'
export VOICEDOCK_KEY='$key'
export VOICEDOCK_SIP='$sip'
export NO_PROXY='$NO_PROXY' no_proxy='$NO_PROXY'
case ":\$PATH:" in *':$root/$state:'*) ;; *) export PATH='$root/$state':"\$PATH" ;; esac
END
  )
  say "call control is at $api, SIP at $sip"
  timeout 20 bash -c "until curl --silent --fail --max-time 2 --header 'Authorization: Bearer $key' $api/api/v1/calls >/dev/null; do sleep 0.2; done" ||
    stop "call control does not answer at $api: is the NodePort reachable from here?"
}

# ---------------------------------------------------------------------------------------------------------------- calls

# now_json WHO EVENT TEXT: a line as the simulated parties write them.
now_json() {
  jq --null-input --compact-output --arg at "$(date --utc +%Y-%m-%dT%H:%M:%S.%NZ)" --arg who "$1" --arg event "$2" --arg text "$3" \
    '{at: $at, who: $who, event: $event, text: $text}'
}

# call NUMBER EXPECTATIONS [COMMAND...]: place a call and show what all parties tell about it, while it happens. COMMAND
# runs during the call.
call() {
  local number=$1 expected=$2 since status
  shift 2
  since=$(date --utc +%Y-%m-%dT%H:%M:%S.%NZ)
  rm -f "$state/failed"
  {
    local party followers=()
    for party in "${parties[@]}"; do
      kubectl logs --namespace "$office" --follow --since-time "$since" "deployment/$party" 2>/dev/null &
      followers+=($!)
    done
    "$voicedock" simulate caller --json --gateway "$sip" --to "$number" --expect "$expected" \
      --hang-up-after 8s --hang-up-after-move 2s 2>"$state/failed" &
    local caller=$!
    (($# == 0)) || "$@"
    wait "$caller" && rm -f "$state/failed"
    # What the others have to tell about the end is under way.
    sleep 1
    kill "${followers[@]}"
    wait "${followers[@]}" 2>/dev/null || true
  } | "$voicedock" simulate timeline --since "$since"
  if [[ -s $state/failed ]]; then
    status=$(cat "$state/failed")
    curl --silent --header "Authorization: Bearer $key" "$api/api/v1/calls" | jq '.calls[:1]' >&2 || true
    stop "the call did not go as it should (${status#voicedock: }): the parties' lines and the gateways' log above say where it went wrong"
  fi
}

# The words of a command that asks the API.
api_command() {
  local proxy=''
  [[ -z ${http_proxy:-}${HTTP_PROXY:-}${all_proxy:-}${ALL_PROXY:-} ]] || proxy=" --noproxy '*'"
  # shellcheck disable=SC2016 # the shell that runs it reads the key
  printf 'curl -sS%s -H "Authorization: Bearer $(cat %s/key)" %s' "$proxy" "$state" "$1"
}

# Hands the caller who is in a call over, by the API; leaves the command and its answer in files.
transfer_by_api() {
  local id command answer
  for _ in {1..100}; do
    id=$(curl --silent --max-time 2 --header "Authorization: Bearer $key" "$api/api/v1/calls" |
      jq -r 'first(.calls[] | select(.status == "in-progress") | .id) // empty')
    [[ -z $id ]] || break
    sleep 0.1
  done
  [[ -n $id ]] || return 0
  sleep 1 # so that one sees the caller with the assistant
  command=$(api_command "$api/api/v1/calls/$id/control -d '{\"type\":\"transfer\",\"destination\":\"+31612345678\"}'")
  echo "$command" >"$state/command"
  now_json you api "asks for the transfer: POST /api/v1/calls/$id/control"
  answer=$(bash -c "$command" 2>&1) || true
  echo "$answer" >"$state/answer"
}

# ---------------------------------------------------------------------------------------------------------------- story

show_resources() {
  title "What runs: two operators, one of them active, two gateways, and two of the REST API"
  shown "$state/kubectl get pods -n $system -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,ADDRESS:.status.podIP,STATUS:.status.phase"
  title "What was asked for, and what came of it"
  shown "$state/kubectl get trunk,dest,asst,num -n $office"
  printf '\n'
  shown "$state/kubectl get num sales-line -n $office -o jsonpath='{range .status.conditions[*]}{.type}={.status}: {.message}{\"\\n\"}{end}'"
  printf '\n'
  shown "$state/kubectl get sgw,rtable -n $system"
}

show_calls() {
  title "1. The assistant transfers the caller with its tool (REFER)"
  call +31201234567 answered,moved,ended

  title "2. You transfer the caller over the API"
  rm -f "$state/command" "$state/answer"
  call +31201234568 answered,moved,ended transfer_by_api
  [[ -s $state/answer ]] || stop "the call was not in progress within 10 s"
  printf '\nThis is how it was asked for:\n%s$ %s%s\n%s\n' "$dim" "$(cat "$state/command")" "$plain" "$(cat "$state/answer")"

  title "3. The human is busy, and the caller stays with the assistant"
  call +31201234569 answered,stayed,ended

  if with_a_key; then
    title "4. A model of your project $openai_project"
    cat <<END
It answers at +31201234570 once the project's webhook for realtime.call.incoming leads to $api/webhooks/openai.
Call it with a phone that has a microphone, from this machine: sip:+31201234570@$sip
END
  else
    title "4. A model transfers the caller with a function call"
    cat <<END
OPENAI_API_KEY is not set, so no model answers this call but a double of OpenAI's Realtime API, by a
script. SIP over TLS, REST, WebSocket and webhook are as with OpenAI (docs/realtime-double.md).

END
    call +31201234570 answered,moved,ended
  fi

  title "What became of them"
  count=3
  with_a_key || count=4
  shown "$(api_command "$api/api/v1/calls") | jq -r '.calls[:$count][] | [.id, .assistant_phone, .status] + (.transfers[0] | [.destination, .outcome, .sip_code]) | @tsv'"
}

show_end() {
  local calls
  calls=$(api_command "$api/api/v1/calls")
  title "Now you, here in $root"
  cat <<END
Call the main line; the assistant answers and waits until you hang up with Ctrl-C:
  ${bold}$state/voicedock simulate caller --gateway $sip --to +31201234568 --hang-up-after 10m${plain}

In another terminal, hand that caller over to sales:
  ${bold}$(api_command "$api/api/v1/calls/\$($calls | jq -r '.calls[0].id')/control -d '{\"type\":\"transfer\",\"destination\":\"+31612345678\"}'")${plain}

Take a number away and call it; \`make demo\` puts it back:
  ${bold}$state/kubectl delete num sales-line -n $office && $state/voicedock simulate caller --gateway $sip --to +31201234567${plain}

For kubectl, helm, voicedock and VOICEDOCK_* in your shell: source $state/env. \`make demo-down\` removes everything.
END
}

up() {
  if with_a_key; then
    [[ -n $openai_project && -n $openai_webhook ]] ||
      fail "OPENAI_API_KEY is set: set OPENAI_PROJECT_ID (proj_…) and OPENAI_WEBHOOK_SECRET (whsec_…) too, or none of them"
  else
    parties+=(realtime)
  fi
  install_tools
  "$root/hack/image.sh" ${VOICEDOCK_BINARY:+"$VOICEDOCK_BINARY"}
  voicedock=$(realpath --quiet "${VOICEDOCK_BINARY:-$(binary)}")
  [[ -x $voicedock ]] || fail "hack/image.sh left no program at $voicedock: remove target/image and try again"
  start_cluster
  write_state
  install_chart
  apply_office
  restart_if_new
  await
  find_gateway
  show_resources
  show_calls
  show_end
  printf '\n%s%d calls, as they should be, after %d s.%s\n' "$green" "$count" "$SECONDS" "$plain"
}

# Where hack/image.sh has left the program.
binary() {
  printf '%s/%s/release/voicedock' "${CARGO_TARGET_DIR:-target}" "$(rustc -vV | sed -n 's/^host: //p')"
}

down() {
  if [[ -n $given ]]; then
    say "removing the demo from the cluster of KUBECONFIG=$given"
    kubectl delete namespace "$office" --ignore-not-found --timeout 120s
    helm uninstall voicedock --namespace "$system" --ignore-not-found --wait --timeout 120s
    kubectl delete namespace "$system" --ignore-not-found --timeout 120s
    kubectl get crd --output name | { grep '\.voicedock\.dev$' || true; } | xargs --no-run-if-empty kubectl delete --timeout 120s
  else
    "$root/hack/cluster.sh" down --name "$name"
  fi
  rm -rf "$state"
}

case ${1:-up} in
  up) up ;;
  down) down ;;
  *) fail "'$1' is nothing to do: demo.sh [up|down]" ;;
esac

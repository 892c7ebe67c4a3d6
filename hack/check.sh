#!/usr/bin/env bash
# All that can be said about the tree without running it in a cluster: `make check`. Every check runs, also after one
# has failed; the end says which failed.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

"$root/hack/tools.sh" check
failed=()

# check LABEL COMMAND...
check() {
  local label=$1 start=$SECONDS
  shift
  say "$label …"
  if "$@" >&2; then
    say "$label: fine ($((SECONDS - start)) s)"
  else
    say "$label: FAILED"
    failed+=("$label")
  fi
}

crds_fresh() {
  rm -rf target/crds target/reference
  cargo run --quiet --locked --bin voicedock -- crds --out target/crds || return 1
  cargo run --quiet --locked --bin voicedock -- crds --format markdown --out target/reference || return 1
  { diff -ru crds target/crds && diff -ru docs/reference target/reference; } ||
    { echo "crds/ or docs/reference/ is not what the types in src/resources say: run \`make crds\` and commit the result"; return 1; }
}

layout() {
  cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}

charts() {
  local chart
  for chart in charts/*/; do
    [[ -f $chart/Chart.yaml ]] || continue
    helm lint --quiet --strict "$chart" || return 1
  done
}

go_code() {
  local unformatted module
  unformatted=$(gofmt -l tests/cluster tests/verdicts) || return 1
  [[ -z $unformatted ]] || { echo "not as gofmt writes it, run \`gofmt -w\` on: $unformatted"; return 1; }
  for module in tests/cluster tests/cluster/{coredns,pause} tests/verdicts; do
    # The flags of the build in hack/tools.sh: with others Go compiles all of Kubernetes once more.
    (cd "$module" && CGO_ENABLED=0 patiently "go vet $module" go vet -trimpath -buildvcs=false .) || return 1
  done
}

check "layout (cargo fmt)" layout
check "lints (clippy)" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
check "crds/ and docs/reference/ are fresh" crds_fresh
check "licences and sources of the dependencies (cargo deny)" cargo deny --log-level error check licenses bans sources
check "charts (helm lint)" charts
check "shell scripts (shellcheck)" shellcheck -x hack/*.sh .ci/run
if command -v actionlint >/dev/null; then check "workflows (actionlint)" actionlint; fi
if command -v go >/dev/null; then check "Go code (gofmt, go vet)" go_code; fi

((${#failed[@]} == 0)) || fail "failed: $(printf '%s; ' "${failed[@]}")see above"
say "all checks are fine"

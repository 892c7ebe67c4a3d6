#!/usr/bin/env bash
# All tests: `make test`. tests/cluster_*.rs need a cluster; they get one that is built for them and removed at the end,
# or the one that KUBECONFIG names. All others start what they need by themselves.
#
# Arguments go to each test binary: hack/test.sh transfer runs the tests with "transfer" in their names.
#
# The tests see:
#   VOICEDOCK_CLUSTER_BIN  the cluster program, see tests/cluster/README.md
#   VOICEDOCK_TEST_CLUSTER the name of the cluster that was built for them; unset when KUBECONFIG was given
#   VOICEDOCK_IMAGE_TAR    the image's archive, already imported in the cluster that was built
#   KUBECONFIG             the cluster's, for tests/cluster_*.rs
#   PATH                   with kubectl and helm
# VOICEDOCK_KEEP_CLUSTER=1 leaves the cluster standing, for a look at it after a failure.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

VOICEDOCK_CLUSTER_BIN=$("$root/hack/tools.sh" cluster | tail -n 1)
export VOICEDOCK_CLUSTER_BIN
export VOICEDOCK_IMAGE_TAR=$root/target/image/voicedock.tar
readonly name=test

alone=() clustered=()
for file in tests/*.rs tests/*/main.rs; do
  [[ -f $file ]] || continue
  target=${file#tests/}
  target=${target%/main.rs}
  target=${target%.rs}
  case $target in
    flux) ;; # the last, because it takes longest to build
    # It begins on an empty cluster, which it brings up itself.
    cluster_start) [[ -n ${KUBECONFIG:-} ]] || clustered+=(--test "$target") ;;
    cluster_*) clustered+=(--test "$target") ;;
    *) alone+=(--test "$target") ;;
  esac
done

say "building the tests"
# cargo's own runner and not nextest: the tests of one binary share an API server, nextest would start one for each.
cargo test --locked --workspace --no-run --quiet
# The tests wait more than they compute: what they leave of the processors makes the image meanwhile, and Flux's controller
# where it isn't cached.
mkdir -p target
image='' up=''
if ((${#clustered[@]})) && [[ -z ${KUBECONFIG:-} ]]; then
  nice -n 19 "$root/hack/image.sh" >target/image.log 2>&1 &
  image=$!
fi
setsid nice -n 19 "$root/hack/tools.sh" flux >target/flux.log 2>&1 &
flux=$!
# shellcheck disable=SC2317 # called by the trap
end() {
  kill ${image:+"$image"} 2>/dev/null || true
  kill -- "-$flux" 2>/dev/null || true
  [[ -z $up || -n ${VOICEDOCK_KEEP_CLUSTER:-} ]] || "$VOICEDOCK_CLUSTER_BIN" down --name "$name" >&2
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "tests without a cluster"
cargo test --locked --workspace --lib --bins "${alone[@]}" -- "$@"

if [[ -n $image ]]; then
  say "waiting for the image"
  wait "$image" || { cat target/image.log >&2; fail "there is no image to test: see above"; }
  up=yes
  "$VOICEDOCK_CLUSTER_BIN" up --name "$name" --nodes 2 --image "$VOICEDOCK_IMAGE_TAR" >&2
  export VOICEDOCK_TEST_CLUSTER=$name
  state=${VOICEDOCK_STATE:-$root/target/cluster}
  export KUBECONFIG=$state/$name/kubeconfig
elif ((${#clustered[@]})); then
  say "the cluster of KUBECONFIG=$KUBECONFIG is used: it must have the image ${VOICEDOCK_IMAGE:-voicedock.local/voicedock:dev}"
fi
if ((${#clustered[@]})); then
  say "tests in the cluster"
  # One at a time: they restart gateways and stop the API server under each other's feet.
  cargo test --locked --workspace "${clustered[@]}" -- --test-threads=1 "$@"
fi

say "waiting for Flux"
wait "$flux" || { cat target/flux.log >&2; fail "there is no Flux to test with: see above"; }
say "tests with Flux"
cargo test --locked --workspace --test flux -- "$@"

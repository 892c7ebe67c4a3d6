#!/usr/bin/env bash
# The figures of the control plane: `make bench-control`. A real API server, a real operator, three real gateways; a table on
# standard output and target/bench/control.json.
#
# Arguments go to the bench: hack/bench-control.sh change --numbers 1000 measures one part, --help says which there are. Without
# any it is everything, about 25 minutes on two idle cores. An older program is measured with --program FILE.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

(($#)) || set -- all
VOICEDOCK_CLUSTER_BIN=$("$root/hack/tools.sh" cluster | tail -n 1)
export VOICEDOCK_CLUSTER_BIN
# 100,000 objects with their history of some minutes, and 500 MB of Secrets: etcd's default of 2 GiB would be the limit.
export ETCD_QUOTA_BACKEND_BYTES=$((8 << 30))

# Everything that the bench starts ends with it. What is left is the API server's directory, up to some GB.
# shellcheck disable=SC2317 # called by the trap
clear_up() {
  local directory
  for directory in "${CARGO_TARGET_DIR:-target}"/tmp/api-servers/*; do
    [[ -d /proc/$(basename "$directory") ]] || rm -rf "$directory"
  done
}
trap clear_up EXIT

patiently "building the program and the bench, with optimisations (some minutes, once)" \
  cargo bench --locked --no-run --bench control || fail "cargo bench failed: look at its output above"
cargo bench --locked --quiet --bench control -- "$@" ||
  fail "the bench failed, see above; the logs of what it ran are in ${CARGO_TARGET_DIR:-target}/bench/logs"

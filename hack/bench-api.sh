#!/usr/bin/env bash
# The figures of the product's API: `make bench-api`. Real processes of api, operator and gateway on a real API server, with a double
# of OpenAI's Realtime API; a table on standard output and target/bench/api.json.
#
# Arguments go to the bench: hack/bench-api.sh reads measures one part, --help says which there are. Without any it is everything,
# about two minutes. Nothing else should run meanwhile.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

(($#)) || set -- all
for tool in taskset setpriv; do
  command -v "$tool" >/dev/null || fail "$tool is not installed: it is in util-linux"
done
VOICEDOCK_CLUSTER_BIN=$("$root/hack/tools.sh" cluster | tail -n 1)
export VOICEDOCK_CLUSTER_BIN

patiently "building the program and the bench, with optimisations (some minutes, once)" \
  cargo bench --locked --no-run --bench api || fail "cargo bench failed: look at its output above"
cargo bench --locked --quiet --bench api -- "$@" ||
  fail "the bench failed, see above; the logs of what it ran are in ${CARGO_TARGET_DIR:-target}/bench/api"

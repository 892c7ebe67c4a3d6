#!/usr/bin/env bash
# The figures of calls: `make bench-calls`. One gateway process between SIPps, beside Kamailio and beside SIPp alone, all on
# loopback; a table on standard output and target/bench/calls.json.
#
# Arguments go to the bench: hack/bench-calls.sh plain kamailio measures these parts, --help says which there are. Without any
# it is everything, about 8 minutes. Nothing else should run meanwhile: the SIPps share the processors with what is measured.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

(($#)) || set -- all
for tool in sipp kamailio setpriv unshare chrt; do
  command -v "$tool" >/dev/null || fail "$tool is not installed: run \`make tools\`"
done

patiently "building the program and the bench, with optimisations (some minutes, once)" \
  cargo bench --locked --no-run --bench calls || fail "cargo bench failed: look at its output above"
cargo bench --locked --quiet --bench calls -- "$@" ||
  fail "the bench failed, see above; the logs of what it ran are in ${CARGO_TARGET_DIR:-target}/bench/calls"

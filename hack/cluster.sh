#!/usr/bin/env bash
# Run the cluster program (tests/cluster/README.md), the one that was built last; build it if there is none.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
[[ -x $cache/bin/cluster ]] || "$root/hack/tools.sh" cluster >/dev/null
exec "$cache/bin/cluster" "$@"

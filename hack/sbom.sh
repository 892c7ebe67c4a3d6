#!/usr/bin/env bash
# What is in the binary, as CycloneDX 1.5: target/sbom/voicedock.cdx.json. It is held against the schema of CycloneDX, and against
# what cargo links: a package that is missing in it fails.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly sbom=target/sbom/voicedock.cdx.json
"$root/hack/tools.sh" sbom
triple=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/sbom
# It is written beside Cargo.toml and nowhere else.
trap 'rm -f voicedock.cdx.json' EXIT
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)} patiently "listing the dependencies" \
  cargo cyclonedx --format json --spec-version 1.5 --all --target "$triple" --no-build-deps --override-filename voicedock.cdx ||
  fail "cargo cyclonedx failed: look at its output above"
mv voicedock.cdx.json "$sbom"

cargo tree --locked --edges normal --target "$triple" --prefix none --format '{p}' | sed -E 's/^([^ ]+) v([^ ]+).*/\1 \2/' |
  sort -u >target/sbom/linked
PYTHONPATH=$cache/bin/cyclonedx python3 - "$sbom" target/sbom/linked <<'END' || fail "$sbom is not what it should be: see above"
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = open(sys.argv[1], encoding="utf-8").read()
errors = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if errors:
    sys.exit(f"it is no CycloneDX 1.5: {errors}")
bom = json.loads(text)
listed = {(c["name"], c["version"]) for c in bom["components"]} | {(bom["metadata"]["component"]["name"], bom["metadata"]["component"]["version"])}
linked = {tuple(line.split()) for line in open(sys.argv[2], encoding="utf-8")}
missing = sorted(linked - listed)
if missing:
    sys.exit(f"these are linked, and missing in it: {missing}")
without = sorted(c["name"] for c in bom["components"] if not c.get("licenses"))
if without:
    sys.exit(f"these have no licence in it: {without}")
print(f"{len(bom['components'])} components", file=sys.stderr)
END
say "written: $sbom"

#!/usr/bin/env bash
# What a release consists of: `make release`, as .github/workflows/release.yaml runs it for a tag. release.sh REGISTRY VERSION
#
# The image for linux/amd64 and linux/arm64 with provenance and SBOM, pushed to REGISTRY/voicedock:VERSION; both charts, pushed to
# oci://REGISTRY/charts, with the image's digest in them; the book, the definitions and the SBOM in target/release.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

(($# == 2)) || fail "write release.sh REGISTRY VERSION, such as release.sh ghcr.io/voicedock 0.1.0"
registry=$1 version=$2 out=target/release
grep -qx "version = \"$version\"" Cargo.toml || fail "Cargo.toml has another version than $version: correct it, or the tag"
grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section $version"
docker buildx version >/dev/null 2>&1 || fail "docker buildx is missing: it builds for several platforms"
"$root/hack/tools.sh" chart

rm -rf "$out"
mkdir -p "$out"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
docker buildx build --platform linux/amd64,linux/arm64 --provenance mode=max --sbom true --metadata-file "$out/image.json" \
  --output "type=image,name=$registry/voicedock:$version,push=true,rewrite-timestamp=true" .
digest=$(jq -r '."containerimage.digest"' "$out/image.json")

cp -r charts "$out/charts"
sed -i "s|^  registry: .*|  registry: ${registry%%/*}|; s|^  repository: .*|  repository: ${registry#*/}/voicedock|; s|^  digest: .*|  digest: \"$digest\"|" "$out/charts/voicedock/values.yaml"
for chart in voicedock-crds voicedock; do
  helm package "$out/charts/$chart" --version "$version" --app-version "$version" --destination "$out"
  helm push "$out/$chart-$version.tgz" "oci://$registry/charts"
done
rm -rf "$out/charts"
"$root/hack/sbom.sh"
"$root/hack/docs.sh"
cp target/sbom/voicedock.cdx.json "$out/"
cat crds/*.yaml >"$out/voicedock-crds.yaml"
tar -C target -czf "$out/book.tar.gz" book
say "released $version: $registry/voicedock@$digest"

#!/usr/bin/env bash
# Build the project's image from the Dockerfile: image.sh [BINARY]
#
# Builds the static binary with cargo (or takes BINARY), then the image with a Docker engine if one answers, else with
# buildah. The result is target/image/voicedock.tar, an archive that `cluster load`, `ctr images import` and
# `docker load` take. Nothing is done when the binary and the Dockerfile are those of the last time.
# $VOICEDOCK_IMAGE is the image's name (default: voicedock.local/voicedock:dev).
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=${VOICEDOCK_IMAGE:-voicedock.local/voicedock:dev}
out=$root/target/image
archive=$out/voicedock.tar

cd "$root"
if (($#)); then
  binary=$1
  [[ -x $binary ]] || fail "$binary is not a program: leave it out, and the script builds it"
else
  command -v cargo >/dev/null || fail "cargo is missing: install Rust (rust-toolchain.toml says which)"
  triple=$(rustc -vV | sed -n 's/^host: //p')
  # shellcheck source=hack/rustflags.sh
  . hack/rustflags.sh
  patiently "building the release binary" cargo build --release --locked --bin voicedock --target "$triple" ||
    fail "cargo build failed: look at its output above"
  binary=${CARGO_TARGET_DIR:-target}/$triple/release/voicedock
fi
if readelf --program-headers "$binary" 2>/dev/null | grep -q INTERP; then
  fail "$binary is linked dynamically and cannot run in an empty image: build it with the flags of hack/rustflags.sh"
fi

from=$(
  cat "$binary" Dockerfile - <<<"$image" | sha256sum
)
if [[ -f $archive && $(cat "$archive.from" 2>/dev/null) = "$from" ]]; then
  say "$archive is up to date"
  exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/voicedock-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/build/out" "$work/context"
install -m 755 "$binary" "$work/build/out/voicedock"
# Nothing in the image says when it was made, so that the same binary gives the same image.
touch --date=@0 "$work/build/out/voicedock"

with_docker() {
  DOCKER_BUILDKIT=1 docker build --quiet --build-arg SOURCE_DATE_EPOCH=0 --file Dockerfile --tag "$image" --build-context "build=$work/build" "$work/context" >/dev/null &&
    docker save --output "$archive.new" "$image"
}

with_buildah() {
  # A storage of its own: the user's images stay as they are, and nothing is left.
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
  local buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
  "${buildah[@]}" bud --quiet --isolation chroot --signature-policy "$work/policy.json" --timestamp 0 \
    --file Dockerfile --tag "$image" --build-context "build=$work/build" "$work/context" >/dev/null &&
    "${buildah[@]}" push --quiet --signature-policy "$work/policy.json" "$image" "docker-archive:$archive.new:$image"
}

rm -f "$archive.new"
if docker info >/dev/null 2>&1; then
  with_docker >&2 || fail "docker could not build the image: look at its output above"
elif command -v buildah >/dev/null; then
  with_buildah >&2 || fail "buildah could not build the image: look at its output above"
else
  fail "neither a Docker engine nor buildah is there: run \`make tools\`"
fi
mv "$archive.new" "$archive"
echo "$from" >"$archive.from"
say "built $image: $archive"

#!/usr/bin/env bash
# Whether the same commit gives the same image: `make reproducible`. It is built twice from scratch, in two directories, and the digests
# are compared; or, with an argument, once, and compared with that archive: reproducible.sh target/image/voicedock.tar
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

work=$(mktemp -d "${TMPDIR:-/tmp}/voicedock-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT

# built DIRECTORY: an archive of the image, from the last commit and nothing else.
built() {
  mkdir -p "$1"
  git archive HEAD | tar -x -C "$1"
  (cd "$1" && env -u CARGO_TARGET_DIR -u RUSTFLAGS -u CFLAGS hack/image.sh >&2)
  printf '%s' "$1/target/image/voicedock.tar"
}

# digest ARCHIVE: of the image's configuration, which names the digests of its layers.
digest() {
  tar -xOf "$1" manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Config"])'
}

[[ -z $(git status --porcelain) ]] || say "there are changes that aren't committed: they are not built"
one=${1:-$(built "$work/one")}
first=$(digest "$one")
# Elsewhere, and with a name of another length.
other=$(built "$work/at/another/place")
second=$(digest "$other")
[[ $first = "$second" ]] ||
  fail "two builds of one commit differ: $first and $second. Look for paths and times in the binary (strings), and map them in hack/rustflags.sh"
say "both are $first"

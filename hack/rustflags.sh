# shellcheck shell=sh
# Sourced where the release binary is built, at the root: a static program in which no path of the machine is left, so that the same
# commit gives the same bytes in whatever directory it is built.
_home=${CARGO_HOME:-$HOME/.cargo}
_target=${CARGO_TARGET_DIR:-$PWD/target}
RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$_target=/target --remap-path-prefix=$PWD=/src --remap-path-prefix=$_home=/cargo"
# What is written in C: jemalloc and ring.
CFLAGS="-ffile-prefix-map=$_target=/target -ffile-prefix-map=$PWD=/src -ffile-prefix-map=$_home=/cargo"
export RUSTFLAGS CFLAGS

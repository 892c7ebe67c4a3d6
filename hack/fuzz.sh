#!/usr/bin/env bash
# Fuzzing with libFuzzer: `make fuzz`. Each target runs for a minute, all at the same time; a crash fails, and leaves the input
# and the command that plays it again.
#
#   hack/fuzz.sh                   all targets, 60 s each; VOICEDOCK_FUZZ_SECONDS sets another time
#   hack/fuzz.sh TARGET            one of them
#   hack/fuzz.sh TARGET FILE...    plays inputs once
#
# The compiler is the stable one of the project: coverage is a pass of LLVM that it has (`-C passes`), asked for in our crate,
# the SIP library and the targets, and nowhere else: libFuzzer looks at what is being fuzzed, and all other dependencies are
# those that the tests were built with.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly seconds=${VOICEDOCK_FUZZ_SECONDS:-60}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
readonly programs=$CARGO_TARGET_DIR/debug
readonly state=$CARGO_TARGET_DIR/fuzz
readonly found=$state/crashes
readonly targets=(parse front_door machine)

build() {
  # One list of versions for both crates: cargo adds what only the targets need.
  cp Cargo.lock fuzz/Cargo.lock
  RUSTC_WRAPPER=$root/hack/fuzz-rustc.sh cargo build --quiet --manifest-path fuzz/Cargo.toml
}

# seeds TARGET: the directories with its first inputs.
seeds() {
  case $1 in
    machine) echo fuzz/corpus/machine ;;
    *) echo src/sip/front_door/corpus/rfc4475 src/sip/front_door/corpus/rfc5118 ;;
  esac
}

# fuzz TARGET: until the time is up or something is found.
fuzz() {
  local corpus=$state/corpus/$1 arguments=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1)
  mkdir -p "$corpus" "$found"
  read -ra seed_dirs <<<"$(seeds "$1")"
  [[ $1 == machine ]] || arguments+=(-dict=fuzz/sip.dict)
  "$programs/$1" "${arguments[@]}" -max_len=4096 -artifact_prefix="$found/$1-" "$corpus" "${seed_dirs[@]}" \
    >"$state/$1.log" 2>&1
}

say "building the fuzz targets"
build
if (($# > 1)); then
  exec "$programs/$1" "${@:2}"
fi
mkdir -p "$found"
chosen=("${targets[@]}")
(($# == 0)) || chosen=("$1")
say "fuzzing ${chosen[*]} for $seconds s"
declare -A running
for target in "${chosen[@]}"; do
  fuzz "$target" &
  running[$target]=$!
done
crashed=()
for target in "${chosen[@]}"; do
  if wait "${running[$target]}"; then
    say "$target: $(awk '/stat::number_of_executed_units/ {runs = $2} /cov:/ {for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1)} END {print runs, "inputs,", cov, "edges"}' "$state/$target.log")"
  else
    crashed+=("$target")
    grep -v '^#[0-9]*[[:space:]]*\(NEW\|REDUCE\|pulse\|RELOAD\)' "$state/$target.log" | tail -n 60 >&2
    input=$(sed -n 's/.*Test unit written to //p' "$state/$target.log" | tail -n 1)
    say "$target: CRASHED; again with: hack/fuzz.sh $target ${input:-}"
    [[ -z $input ]] || say "the input in base64: $(base64 -w 0 "$input")"
  fi
done
((${#crashed[@]} == 0)) || fail "${crashed[*]} crashed: see above; fix it and keep the input as a test"

#!/usr/bin/env bash
# The compiler of hack/fuzz.sh (RUSTC_WRAPPER): with coverage for what is fuzzed, as it is for everything else.
set -euo pipefail
for argument in "$@"; do
  case $argument in
    voicedock | voicedock_fuzz | sipx_sip | parse | front_door | machine)
      exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
      ;;
  esac
done
exec "$@"

# shellcheck shell=bash
# Sourced by the other scripts here: where tools are kept, and how progress and failures look.

# shellcheck disable=SC2034 # for those that source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${VOICEDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/voicedock}
export PATH="$cache/bin:$PATH:/usr/local/go/bin:/usr/sbin:/sbin"

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }

# fail SENTENCE: the sentence names what to do about it.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# patiently LABEL COMMAND...: run a command that takes long. Its output goes to a file, which is shown when it fails;
# every 30 s a line says that it is still at it.
patiently() {
  local label=$1 log start=$SECONDS pid
  shift
  mkdir -p "$cache/log"
  log=$(mktemp "$cache/log/XXXXXX")
  say "$label …"
  "$@" >"$log" 2>&1 &
  pid=$!
  # shellcheck disable=SC2064 # the pid of now
  trap "kill $pid 2>/dev/null" INT TERM EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - start >= 30 && (SECONDS - start) % 30 == 0)); then
      say "$label: still at it after $((SECONDS - start)) s"
      sleep 1
    fi
  done
  trap - INT TERM EXIT
  if ! wait "$pid"; then
    tail -n 40 "$log" >&2
    return 1
  fi
  rm -f "$log"
}

# exclusively NAME COMMAND...: one process of this machine at a time.
exclusively() {
  local name=$1
  shift
  mkdir -p "$cache"
  (
    flock -w 2400 9 || fail "another build holds $cache/$name.lock: wait for it to end, or end it"
    "$@" 9>&-
  ) 9>"$cache/$name.lock"
}

#!/usr/bin/env bash
# `make test`: every phase with its seconds and budget. A phase over its budget is
# reported, not failed: machines differ. Any failing phase stops the run.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -a summary
total=$SECONDS

phase() { # name budget-cold-seconds command...
  local name=$1 budget=$2 start=$SECONDS
  shift 2
  echo "==> $name (budget ${budget}s)"
  if ! "$@"; then
    echo "==> FAILED: $name after $((SECONDS - start))s" >&2
    exit 1
  fi
  local took=$((SECONDS - start)) note=""
  [ "$took" -le "$budget" ] || note="  OVER BUDGET"
  summary+=("$(printf '    %-34s %5ds of %5ds%s' "$name" "$took" "$budget" "$note")")
}

phase "lab binaries and images" 1080 env CGO_ENABLED=0 go run ./test/lab build
phase "lint" 300 make --no-print-directory lint verify-generated
phase "unit tests with -race" 480 make --no-print-directory unit
phase "differential tests" 240 make --no-print-directory differential
summary_print() {
  echo "==> phases"
  printf '%s\n' "${summary[@]}"
  echo "    total so far $((SECONDS - total))s"
}
summary_print
echo "==> end-to-end tests in the lab (budget 480s)"
exec make --no-print-directory e2e

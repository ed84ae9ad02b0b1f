#!/usr/bin/env bash
# What `make` needs before Go code can run: a Go toolchain that is new enough and
# a C compiler (race detector, launcher). Everything else the lab installs itself.
set -euo pipefail

fail() { echo "prerequisites: $*" >&2; exit 1; }

command -v go >/dev/null || fail "no 'go' in PATH: install Go 1.26 or newer and put it in PATH"
want=$(awk '/^go /{print $2}' "$(dirname "$0")/../go.mod")
have=$(go env GOVERSION | sed 's/^go//')
[ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" = "$want" ] ||
  fail "Go $have is too old: go.mod wants $want"

if ! command -v gcc >/dev/null || [ ! -e /usr/include/stdlib.h ]; then
  [ -e /etc/debian_version ] || fail "no C compiler: install gcc and the C library's headers"
  [ "$(id -u)" = 0 ] || fail "no C compiler and not root: run 'apt-get install gcc libc6-dev' as root"
  echo "==> installing gcc and libc6-dev"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
fi

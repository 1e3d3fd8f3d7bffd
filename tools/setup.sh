#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

# Installs what the build needs on Debian and its relatives. Does nothing, at once, when all is there.
set -eu

missing=""
for package in g++ cmake ninja-build python3 libeigen3-dev libxsimd-dev nlohmann-json3-dev libcli11-dev libgtest-dev \
    libbenchmark-dev libpcre2-dev libutf8proc-dev libsentencepiece-dev; do
    case $package in
        g++) program=c++ ;;
        ninja-build) program=ninja ;;
        *) program=$package ;;
    esac
    # A program may come from elsewhere than its package.
    command -v "$program" > /dev/null 2>&1 && continue
    # Without `|| true`, set -e would end the script where dpkg-query knows no such package.
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

continue_without() {
    echo "setup: $1; not installed:$missing" >&2
    echo "setup: going on without: CMake fetches the libraries it does not find, but for those of tokenizers" >&2
    exit 0
}

command -v apt-get > /dev/null 2>&1 || continue_without "this system has no apt-get"
if [ "$(id -u)" -eq 0 ]; then
    as_root="env"
elif command -v sudo > /dev/null 2>&1; then
    as_root="sudo env"
else
    continue_without "neither root nor sudo"
fi

echo "setup: installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # lists of words
if ! { $as_root apt-get update && $as_root DEBIAN_FRONTEND=noninteractive apt-get install --yes \
    --no-install-recommends $missing; } > "$log" 2>&1; then
    tail -n 5 "$log" >&2
    continue_without "apt-get failed"
fi

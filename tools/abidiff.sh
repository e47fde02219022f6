#!/usr/bin/env bash
# Compares the built libray.so with its record by libabigail, which reads types from the debug information.
#   abidiff.sh LIBRAY_SO            exit status 0: the same; 1: a difference is shown; 77: abidiff is not installed
#   abidiff.sh --write LIBRAY_SO    renews the record of the newest version
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
write=
if [ "${1:-}" = --write ]; then write=1; shift; fi
library=${1:?usage: abidiff.sh [--write] LIBRAY_SO}
command -v abidiff >/dev/null || { echo "abidiff is not installed (Debian: abigail-tools)"; exit 77; }
newest=$(ls -d "$root"/tests/abi/*/ | sort -V | tail -1)
record=$newest/libray.abi.xml
if [ -n "$write" ]; then
  # Without what differs from machine to machine: paths, lines, the build id.
  abidw --headers-dir "$root/include" --drop-private-types --no-comp-dir-path --no-corpus-path --no-show-locs \
    --no-architecture --drop-undefined-syms "$library" >"$record"
  exit 0
fi
abidiff --headers-dir2 "$root/include" --drop-private-types --no-architecture "$record" "$library"

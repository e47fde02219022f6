#!/usr/bin/env bash
# Fuzzes one target with libFuzzer, asan and ubsan: tools/fuzz.sh NAME SECONDS
#   NAME     a file fuzz/NAME.cc, or "list"; "build" = only build all of them. "planted" has a bug to be found
# Seeds are fuzz/corpus/NAME; what is found is kept in build/fuzz/corpus/NAME, crashes beside it.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# -lt 1 ] || [ "$1" = list ]; then
  for f in fuzz/*.cc; do basename "$f" .cc; done | grep -v '^planted$'
  exit 0
fi
name=$1 seconds=${2:-60} build=${LIBRAY_FUZZ_BUILD:-build/fuzz}
if [ "$name" != build ] && [ ! -f "fuzz/$name.cc" ]; then
  echo "fuzz: no target '$name'; there are: $(for f in fuzz/*.cc; do basename "$f" .cc; done | tr '\n' ' ')" >&2
  exit 2
fi
clang=$(command -v clang++ || true)
if [ -z "$clang" ]; then
  echo "fuzz: missing clang++; Debian: apt-get install clang" >&2
  exit 1
fi
mkdir -p "$build"
log=$build/build-$name.log
targets=fuzz_$name
if [ "$name" = build ]; then targets=$(for f in fuzz/*.cc; do echo "fuzz_$(basename "$f" .cc)"; done); fi
exec 9>"$build/.lock"  # several may be started at once
flock 9
if ! { cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER="${clang%++}" \
         -DCMAKE_CXX_COMPILER="$clang" -DLIBRAY_FUZZ=ON -DLIBRAY_TESTS=OFF -DLIBRAY_BENCH=OFF \
         "-DLIBRAY_SANITIZE=address;undefined" && cmake --build "$build" --target $targets; } >"$log" 2>&1; then
  tail -30 "$log" >&2
  exit 1
fi
flock -u 9
if [ "$name" = build ]; then exit 0; fi
found=$build/corpus/$name
mkdir -p "$found"
status=0
"$build/fuzz/fuzz_$name" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10 \
  -print_final_stats=1 -artifact_prefix="$build/crash-$name-" "$found" "fuzz/corpus/$name" >"$log" 2>&1 || status=$?
if [ $status != 0 ]; then
  tail -120 "$log" >&2
  echo "fuzz: $name found a failure; its input is beside $build/crash-$name-" >&2
  exit 1
fi
echo "$name: $(sed -n 's/^Done //p' "$log"), $(ls "$found" | wc -l) inputs kept"

#!/bin/sh
# Runs kernels of the decoder on the host (see block.h): sh scripts/emulate/run.sh [--control]
# With --control a mask of attention is off by one, and the run must fail. Takes some minutes: each block is 128 threads.
set -eu
here=$(dirname "$0"); kernels=$here/../../crates/descant-kernels/src/decode
build=$(mktemp -d); trap 'rm -rf "$build"' EXIT
text() { # a file without its includes, attributes, and what block.h has
  sed -e '/^#include/d' -e '/^#pragma once/d' -e 's/__launch_bounds__([^)]*)//' \
    -e 's/extern __shared__ __align__(16) u8 routers\[\];//' \
    -e '/^__device__ __forceinline__ u32 transposed/,/^}/d' "$1"
}
compile() { ${CXX:-g++} -std=c++20 -O2 -pthread -I"$build" -I"$here" "$@"; }
{ text "$kernels/cache.cuh"; text "$kernels/attend.cu"; } > "$build/kernels.h"
if [ "${1:-}" = --control ]; then
  sed -i 's/key < n ?/key <= n ?/' "$build/kernels.h"
fi
for shape in "64 8" "32 4" "16 3"; do
  compile -DHEAD_DIM="${shape% *}" -DGROUP="${shape#* }" -DTHREADS=128 -DKEYS=128 -DPAGE=64 -DMOST_SPLITS=32 "$here/attend.cpp" -o "$build/attend"
  "$build/attend"
done
{ echo 'alignas(128) static u8 routers[400000];'; text "$kernels/cache.cuh"; text "$kernels/rows.cu"; } > "$build/kernels.h"
compile -DROUTE_THREADS=128 -DPAGE=64 "$here/rows.cpp" -o "$build/rows"
"$build/rows"

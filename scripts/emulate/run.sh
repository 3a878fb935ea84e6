#!/bin/sh
# Runs kernels of the decoder, of the experts, of a layer and of attention on the host (see block.h):
# sh scripts/emulate/run.sh [--control]
# With --control a mask of attention is off by one, and the run must fail. Takes some minutes.
set -eu
here=$(dirname "$0"); kernels=$here/../../crates/descant-kernels/src/decode
experts=$kernels/../op/experts
build=$(mktemp -d); trap 'rm -rf "$build"' EXIT
text() { # a file without its includes, attributes, and what block.h has
  sed -e '/^#include/d' -e '/^#pragma once/d' -e 's/__launch_bounds__([^)]*)//' \
    -e 's/extern __shared__ __align__(16) u8 routers\[\];//' \
    -e '/^__device__ __forceinline__ u32 transposed/,/^}/d' "$1"
}
compile() { ${CXX:-g++} -std=c++20 -O2 -pthread -Wno-stringop-overflow -I"$build" -I"$here" "$@"; }
{ echo 'alignas(128) static bf16 factor[200000];'; text "$kernels/cache.cuh"; text "$kernels/attend.cu"; } |
  sed '/extern __shared__/d' > "$build/kernels.h"
if [ "${1:-}" = --control ]; then
  sed -i 's/key < n ?/key <= n ?/' "$build/kernels.h"
fi
geometry=$here/../../crates/descant-kernels/src/cuda/geometry.rs split=$kernels/split.rs
plain=$here/../../crates/descant-kernels/src/cuda/plain.rs
number() { # the number that follows a pattern in a file of the host: sizes are written there alone
  found=$(sed -n "s/.*$2\([0-9][0-9_]*\).*/\1/p" "$1" | tr -d _); [ -n "$found" ] || { echo "$1 has no $2" >&2; exit 2; }
  echo "$found"
}
page=$(number "$split" 'const PAGE_TOKENS: usize = ')
attend="-DTHREADS=$(number "$geometry" 'const ATTEND: Block = Block { threads: ')"
attend="$attend -DKEYS=$(number "$split" 'const STEP_KEYS: usize = ') -DPAGE=$page"
attend="$attend -DMOST_SPLITS=$(number "$split" 'const MOST_SPLITS: usize = ')"
attend="$attend -DLEAST_TILES=$(number "$split" 'const LEAST_TILES: usize = ')"
route="-DROUTE_THREADS=$(number "$geometry" 'const ROUTE_ROWS: Block = Block { threads: ')"
route="$route -DROUTE_EXPERTS=$(number "$geometry" 'const ROUTE_EXPERTS: usize = ')"
route="$route -DLOW_THREADS=$(number "$geometry" 'const EXPERT_ROWS: Block = Block { threads: ')"
route="$route -DLOW_RANKS=$(number "$geometry" 'const EXPERT_RANKS: usize = ')"
experts_most="-DMAX_EXPERTS=$(number "$geometry" 'const MAX_EXPERTS: usize = ')"
route="$route -DROW_THREADS=$(number "$plain" 'const STEP_ROW: Block = Block::of(')"
route="$route -DNORM_THREADS=$(number "$geometry" 'const THIN: Block = Block { threads: ')"
route="$route -DMOST_PAIRS=$(number "$plain" 'const STEP_PAIRS: Block = Block::of(')"
route="$route -DCHOICE_THREADS=$(number "$plain" 'const STEP_CHOICE: Block = Block::of(')"
route="$route $experts_most -DMAX_WIDTH=$(number "$geometry" 'const STEP_WIDTH: usize = ')"
for shape in "64 8" "32 4" "16 3"; do
  compile -DHEAD_DIM="${shape% *}" -DGROUP="${shape#* }" $attend "$here/attend.cpp" -o "$build/attend"
  "$build/attend"
done
sort=$kernels/../op/route/sort.cuh
{ echo 'alignas(128) static u8 routers[400000];'; text "$kernels/route.cuh"; text "$kernels/order.cuh"
  text "$sort"; text "$kernels/rows.cu"; } > "$build/kernels.h"
compile $route "$here/rows.cpp" -o "$build/rows"
"$build/rows"
{ text "$kernels/order.cuh"; text "$kernels/thin.cu"; } | sed '/extern __shared__/d' > "$build/kernels.h"
compile -DTHREADS="$(number "$geometry" 'const THIN: Block = Block { threads: ')" \
  -DCOLUMNS="$(number "$geometry" 'const THIN_COLUMNS: usize = ')" "$here/thin.cpp" -o "$build/thin"
"$build/thin"
# The store of grouped.cuh is another kernel's, and what is PTX has another text in block.h and packed.cpp.
without() { # functions of these names
  for name in "$@"; do set -- "$@" -e "/^__device__ __forceinline__ [a-z0-9A-Z]* $name(/,/^}/d"; shift; done
  sed "$@"
}
body() { # a kernel's file: shared memory is the host's, its entries functions of C++, those of both sides
  sed -e '/extern __shared__/d' -e 's/extern "C"//' -e '/^#if BACKWARD$/,/^#endif$/{/^#/d}' "$1" | text /dev/stdin
}
products() { text "$experts/grouped.cuh" | sed '/^\/\/ 16 rows and COLUMNS/,/^\/\/ Both kernels/d'; }
packed() { # the packing's names, and what else the compiler is given
  { text "$experts/$1.cuh"; text "$experts/balanced.cuh"; products; text "$experts/packed.cuh"; text "$experts/portable_$1.cuh"
    body "$experts/packed.cu"; } |
    without multiply_bf16x2 load_chunk level_of copy_rows copy_weights copy_word load16_here > "$build/kernels.h"
  if [ "${3:-}" = --control ]; then sed -i 's/(t \& 7) \* 4 +/(t \& 7) * 4 + 1 -/' "$build/kernels.h"; fi
  # shellcheck disable=SC2086
  compile -w $experts_most -DRANK_WIDTH=64 -DTHREADS=256 $2 "$here/packed.cpp" -o "$build/packed"
  "$build/packed"
}
# A layer's thin products and routing, in namespaces of their own: helpers of one name differ.
for file in layer/gradients layer/thin op/route/route op/route/sort; do
  text "$experts/../../$file.cu" | sed -e 's/extern "C"//' > "$build/$(basename "$file").h"
done
{ text "$sort"; cat "$build/sort.h"; } > "$build/sorts.h"; mv "$build/sorts.h" "$build/sort.h"
if [ "${1:-}" = --control ]; then sed -i 's/rank \* job.width + c/rank * job.width + c + 1/' "$build/gradients.h"; fi
sed -i "s/THREADS/$(number "$geometry" 'const THIN_ROWS: Block = Block { threads: ')/g" "$build/thin.h"
thin="-DTHREADS=$(number "$geometry" 'const PAIR_GRADIENTS: Block = Block { threads: ')"
thin="$thin $experts_most -DJOBS=$(number "$geometry" 'const PAIR_JOBS: usize = ')"
thin="$thin -DPARTS=$(number "$geometry" 'const PATH_PAIRS: usize = ')"
thin="$thin -DCOLUMNS=$(number "$geometry" 'const PAIR_COLUMNS: usize = ')"
thin="$thin -DRANKS=$(number "$geometry" 'const PAIR_RANKS: usize = ')"
thin="$thin -DTILE_TOKENS=$(number "$geometry" 'const THIN_ROWS_TOKENS: usize = ')"
thin="$thin -DTILE_COLUMNS=$(number "$geometry" 'const THIN_ROWS_COLUMNS: usize = ')"
# The host's bytes of these structures are not for this compiler.
thin="$thin -DPART_BYTES=sizeof(Part) -DPARTS_BYTES=sizeof(Parts) -DJOB_BYTES=sizeof(Job) -DJOBS_BYTES=sizeof(Jobs)"
thin="$thin -DCHUNK=$(number "$experts/../route/sizes.rs" 'const CHUNK: usize = ')"
thin="$thin -DFEW_PAIRS=$(number "$geometry" 'const FEW_PAIRS: usize = ')"
thin="$thin -DFEW_EXPERTS=$(number "$geometry" 'const FEW_PAIRS_EXPERTS: usize = ')"
# shellcheck disable=SC2086
compile -w $thin "$here/layer.cpp" -o "$build/layer"
"$build/layer"
# Attention's forward and backward.
attention=$kernels/../op/attention
tiles="-DTILE_INTS=$(number "$geometry" 'const TILE_INTS: usize = ')"
tiles="$tiles -DQUERY_ROWS=$(number "$geometry" 'const QUERY_ROWS: usize = ')"
tiles="$tiles -DKEY_ROWS=$(number "$geometry" 'const KEY_ROWS: usize = ')"
for shape in "64 8" "32 4" "16 3"; do
  for pass in forward backward; do
    name=$(echo "$pass" | tr '[:lower:]' '[:upper:]')
    { text "$attention/attention.cuh" | without exp2_fast; text "$attention/$pass.cu"; } |
      sed -e '/extern __shared__/d' -e 's/extern "C"//' -e 's/__restrict__//g' > "$build/kernels.h"
    if [ "${1:-}" = --control ]; then sed -i 's/>= span/> span/' "$build/kernels.h"; fi
    threads=$(number "$geometry" "const $name: Block = Block { threads: ")
    bytes=$(number "$geometry" "const $name: Block = Block { threads: $threads, shared: ")
    # shellcheck disable=SC2086
    compile -w $tiles -DTHREADS="$threads" -DSHARED_OF_FEATURE="$bytes" -D"$name" \
      -DHEAD_DIM="${shape% *}" -DGROUP="${shape#* }" "$here/attention.cpp" -o "$build/attention"
    "$build/attention"
  done
done
# The backward of a window in one pass.
window="-DTILE_INTS=$(number "$geometry" 'const TILE_INTS: usize = ')"
window="$window -DSTEP_ROWS=$(number "$geometry" 'const WINDOW_ROWS: usize = ')"
window="$window -DMAX_WINDOW=$(number "$geometry" 'const MAX_WINDOW: usize = ')"
window="$window -DSTRIP_KEYS=$(number "$geometry" 'const STRIP_KEYS: usize = ')"
window="$window -DTHREADS=$(number "$geometry" 'const BACKWARD_WINDOW: Block = Block { threads: ')"
window="$window -DSHARED=$(number "$geometry" 'const BACKWARD_WINDOW: Block = Block { threads: 384, shared: ')"
{ text "$attention/attention.cuh" | without exp2_fast; text "$attention/backward_window.cu"; } |
  sed -e '/extern __shared__/d' -e 's/extern "C"//' -e 's/__restrict__//g' > "$build/kernels.h"
if [ "${1:-}" = --control ]; then sed -i 's/>= (u32)window/> (u32)window/' "$build/kernels.h"; fi
# shellcheck disable=SC2086
compile -w $window -DWINDOW_PASS -DHEAD_DIM=64 -DGROUP=8 "$here/attention.cpp" -o "$build/attention"
"$build/attention"
# Hopper's backward in one pass; what both of its files name is in a namespace each.
one="-DTILE_INTS=$(number "$geometry" 'const TILE_INTS: usize = ')"
one="$one -DQUERY_ROWS=$(number "$geometry" 'const QUERY_ROWS_SM90: usize = ')"
one="$one -DKEY_ROWS=$(number "$geometry" 'const KEY_ROWS: usize = ')"
one="$one -DTHREADS=$(number "$geometry" 'const BACKWARD_ONE_SM90: Block = Block { threads: ')"
one="$one -DSHARED=$(number "$geometry" 'const BACKWARD_ONE_SM90: Block = Block { threads: 512, shared: ')"
one="$one -DSUM_ROWS=$(number "$attention/one_pass.rs" 'const SUM_ROWS: usize = ')"
one="$one -DDELTA_THREADS=$(number "$geometry" 'const DELTA_SM90: Block = Block { threads: ')"
one="$one -DDELTA_ROWS=$(number "$geometry" 'const DELTA_ROWS: usize = ')"
one="$one -DDELTA_HEADS=$(number "$geometry" 'const DELTA_HEADS: usize = ')"
one="$one -DSUM_THREADS=$(number "$geometry" 'const QUERIES_SM90: Block = Block { threads: ')"
{ text "$attention/attention.cuh" | without exp2_fast; text "$attention/attention_sm90.cuh"
  text "$attention/backward_sm90.cuh"
  for part in one ends; do
    echo "namespace $part {"; text "$attention/backward_${part}_sm90.cu"; echo "} using namespace $part;"
  done; } | sed -e '/extern __shared__/d' -e 's/extern "C"//' -e 's/__restrict__//g' > "$build/kernels.h"
for group in 8 3; do
  # shellcheck disable=SC2086
  compile -w $one -DONE_PASS -DHEAD_DIM=64 -DGROUP="$group" "$here/attention.cpp" -o "$build/attention"
  "$build/attention"
done
packed mxfp4 "-DSHARED=$(number "$geometry" 'const PACKED: Block = Block { threads: 256, shared: ' | head -1)" "$@"
packed nf4 "-DNF4=1 -DSHARED=$(number "$geometry" 'const PACKED_NF4: Block = Block { threads: 256, shared: ' | head -1)" "$@"
for form in experts_sm90 experts_wide_sm90; do
  { text "$experts/mxfp4.cuh"; products
    sed -e "/#include \"tiles_sm90.cuh\"/{r $kernels/tiles_sm90.cuh
      d}" "$kernels/$form.cu" | body /dev/stdin; } | without multiply_bf16x2 load_chunk > "$build/kernels.h"
  group="-DTILE_ROWS=$(number "$geometry" 'const STEP_GROUP: usize = ')"
  group="$group -DTILE_COLUMNS=$(number "$geometry" 'const STEP_COLUMNS: usize = ')"
  if [ $form = experts_wide_sm90 ]; then
    group="-DWIDE_FORM -DTILE_ROWS=27 -DTILE_COLUMNS=$(number "$geometry" 'const STEP_WIDE_COLUMNS: usize = ')"
  fi
  for shape in "160 0" "192 16"; do
    # shellcheck disable=SC2086
    set -- $shape
    compile -w $experts_most -DRANK_WIDTH=64 -DN_IN="$1" -DRANK="$2" $group "$here/experts.cpp" -o "$build/experts"
    "$build/experts"
  done
done

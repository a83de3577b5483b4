#include "lowp/multiply.cuh"

#include "core/error.h"
#include "core/launch.cuh"
#include "lowp/few_rows.cuh"
#include "lowp/product.cuh"
#include "lowp/scales.h"

namespace oarlock::cuda::lowp {
namespace {

using oarlock::lowp::Format;
using oarlock::lowp::divided_up;

// Whether the code for this device was compiled with tensor cores for fp8 in mind.
bool has_fp8() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, multiply_tiles<Numbers::e4m3_e4m3, LargeTile, true>),
        "cudaFuncGetAttributes");
  return attributes.binaryVersion >= 89;
}

int processors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  return count;
}

std::int64_t tiles_of(const Finish& f, int rows, int columns) {
  return divided_up(f.rows, rows) * divided_up(f.columns, columns);
}

unsigned blocks_for(std::int64_t blocks) {
  if (blocks >> 31) throw BadArgument("out is too large for a GPU; split it");
  return static_cast<unsigned>(blocks);
}

template <Numbers numbers, typename Tile, bool blocked>
void start(const Product& p) {
  launch("lowp multiply", multiply_tiles<numbers, Tile, blocked>,
         dim3(blocks_for(tiles_of(p.finish, Tile::kRows, Tile::kColumns))), Tile::kThreads,
         Tile::kSharedBytes, p);
}

// Large tiles where there are enough of them for all processors. int16 has four products in place
// of one, so that memory does not bound it, and its own sums to keep.
template <Numbers numbers, bool blocked>
void with_tile(const Product& p) {
  if constexpr (numbers != Numbers::int16)
    if (tiles_of(p.finish, LargeTile::kRows, LargeTile::kColumns) >= processors())
      return start<numbers, LargeTile, blocked>(p);
  start<numbers, SmallTile, blocked>(p);
}

// Where scales, or exactness, ask for it, sums are added up outside of the tensor cores.
template <Numbers numbers>
void with_intervals(const Product& p) {
  if (p.interval < p.steps)
    with_tile<numbers, true>(p);
  else
    with_tile<numbers, false>(p);
}

template <Weights weights, int rows>
void start_few(bool across, const FewRows& p, unsigned units) {
  if (across) {
    const std::int64_t blocks = divided_up(p.columns, kLanes * per_vector(weights));
    launch("lowp sum_across", sum_across<weights, rows>, dim3(blocks_for(blocks), units),
           kAcrossThreads, 0, p);
  } else {
    const std::int64_t blocks = divided_up(p.columns, kFewThreads / kLanesOfColumn);
    launch("lowp sum_along", sum_along<weights, rows>, dim3(blocks_for(blocks), units), kFewThreads,
           0, p);
  }
}

template <Weights weights>
void few(bool across, const FewRows& p, std::int64_t units, std::int64_t of_interval,
         std::int64_t intervals_of_block, const Finish& finish) {
  if (units > 0)
    p.rows <= 2 ? start_few<weights, 2>(across, p, static_cast<unsigned>(units))
                : start_few<weights, kMostFewRows>(across, p, static_cast<unsigned>(units));
  launch("lowp finish_units", finish_units<PartOf<weights>>,
         dim3(blocks_for(divided_up(p.columns, kFewThreads)), static_cast<unsigned>(p.rows)),
         kFewThreads, 0, static_cast<const PartOf<weights>*>(p.parts), units, of_interval,
         intervals_of_block, finish);
}

}  // namespace

Numbers numbers_of(Format a, Format b, bool base) {
  if (a == Format::int8) return Numbers::int8;
  if (a == Format::int16) return Numbers::int16;
  if (oarlock::lowp::has_scales(a)) {
    // Gradients, which are e5m2, are not multiplied with each other: no kernel of their own.
    const bool both_e5m2 = a == Format::fp8_e5m2 && b == Format::fp8_e5m2;
    if (base || both_e5m2 || !has_fp8()) return Numbers::fp16;
    if (a == Format::fp8_e5m2) return Numbers::e5m2_e4m3;
    return b == Format::fp8_e4m3 ? Numbers::e4m3_e4m3 : Numbers::e4m3_e5m2;
  }
  if (a == b && a == Format::bf16) return Numbers::bf16;
  if (a == b && a == Format::fp16) return Numbers::fp16;
  return Numbers::floats;
}

void multiply(Numbers numbers, const Product& p) {
  switch (numbers) {
    case Numbers::int8: return with_intervals<Numbers::int8>(p);
    case Numbers::int16: return with_tile<Numbers::int16, true>(p);
    case Numbers::bf16: return with_tile<Numbers::bf16, false>(p);
    case Numbers::fp16: return with_intervals<Numbers::fp16>(p);
    case Numbers::e4m3_e4m3: return with_tile<Numbers::e4m3_e4m3, true>(p);
    case Numbers::e4m3_e5m2: return with_tile<Numbers::e4m3_e5m2, true>(p);
    case Numbers::e5m2_e4m3: return with_tile<Numbers::e5m2_e4m3, true>(p);
    case Numbers::floats:
      launch("lowp multiply_floats", multiply_floats,
             dim3(blocks_for(tiles_of(p.finish, kPlainTile, kPlainTile))), kPlainThreads, 0, p);
  }
}

void multiply_few(Weights weights, bool across, const FewRows& p, std::int64_t interval,
                  std::int64_t intervals_of_block, const Finish& finish) {
  const std::int64_t units = divided_up(p.elements, p.unit);
  const std::int64_t of_interval =
      interval >= p.elements ? std::int64_t{units > 1 ? units : 1} : interval / p.unit;
  const auto run = [&](auto body) {
    body(across, p, units, of_interval, intervals_of_block, finish);
  };
  switch (weights) {
    case Weights::int8: return run(few<Weights::int8>);
    case Weights::bf16: return run(few<Weights::bf16>);
    case Weights::fp16: return run(few<Weights::fp16>);
    case Weights::e4m3: return run(few<Weights::e4m3>);
    case Weights::e5m2: return run(few<Weights::e5m2>);
  }
}

}  // namespace oarlock::cuda::lowp

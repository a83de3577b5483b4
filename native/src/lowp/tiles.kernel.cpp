// The inner loops of products: a tile of sums in registers, a group of every row at a time.

#include "lowp/kernels.h"
#include "lowp/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using lowp::Fetch;
using lowp::Tile;

struct Floats {
  static inline words step(words sum, words a, words b) {
    return (words)multiply_add((floats)a, (floats)b, (floats)sum);
  }
};

struct Words {
  static inline words step(words sum, words a, words b) { return multiply_add_words(sum, a, b); }
};

#if defined(OARLOCK_PATH_avx512)
// As text, so that no other function of this file may use these instructions.
struct WordsVnni {
  static inline words step(words sum, words a, words b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
    return sum;
  }
};

// Four products of an unsigned byte (of b) and a signed one (of a); nothing saturates.
struct Bytes {
  static inline words step(words sum, words a, words b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
    return sum;
  }
};

// sum + a1 b1, then + a0 b0, each rounded to nearest; subnormal operands and results are zero.
struct Halves {
  static inline words step(words sum, words a, words b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
    return sum;
  }
};
#endif

// While it computes, asks for the memory of `fetch` bit by bit: it answers slowly.
template <typename Unit, int kRows>
void tile(const uint32_t* __restrict a, const uint32_t* __restrict b, int64_t groups,
          const int32_t* start, uint32_t* __restrict c, const Fetch& fetch) {
  words sums[kRows][kColumnVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kColumnVectors; ++j)
      sums[i][j] = start != nullptr ? all(uint32_t(start[i]))
                                    : load_as<words>(c + i * kPanelWidth + j * kLanes);
  const char* next = static_cast<const char*>(fetch.next);
  const char* line = static_cast<const char*>(fetch.data);
  const int64_t lines = fetch.lines, part = lines > 0 ? groups / lines : groups;
  int64_t left = lines;
  for (int64_t g = 0, stop = part; g < groups; stop = left > 0 ? stop + part : groups) {
    if (left > 0) {
      for (int64_t byte = 0; byte < fetch.bytes; byte += 64) __builtin_prefetch(line + byte, 1);
      line += fetch.stride;
      --left;
    }
    for (; g < stop; ++g) {
      __builtin_prefetch(next, 0, 2);
      next += fetch.step;
      words columns[kColumnVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kColumnVectors; ++j) columns[j] = load_as<words>(b + j * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const words row = all(a[i]);
#pragma GCC unroll 4
        for (int j = 0; j < kColumnVectors; ++j)
          sums[i][j] = Unit::step(sums[i][j], row, columns[j]);
      }
      a += kTileRows;
      b += kPanelWidth;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kColumnVectors; ++j)
      store_as(c + i * kPanelWidth + j * kLanes, sums[i][j]);
}

// The tile for each number of rows: the smallest of a few that has as many.
template <typename Unit>
struct Tiles {
  template <int kRows>
  static constexpr Tile at_least() {
    constexpr int kUsed = kRows <= 2 ? kRows : kRows <= 4 ? 4 : kRows <= 8 ? 8 : kTileRows;
    return tile<Unit, (kUsed < kTileRows ? kUsed : kTileRows)>;
  }
  static constexpr Tile table[lowp::kMostTileRows] = {
      at_least<1>(),  at_least<2>(),  at_least<3>(),  at_least<4>(), at_least<5>(),  at_least<6>(),
      at_least<7>(),  at_least<8>(),  at_least<9>(),  at_least<10>(), at_least<11>(),
      at_least<12>(), at_least<13>(), at_least<14>(), at_least<15>(), at_least<16>()};
};

}  // namespace

extern const lowp::TileKernels lowp_tile_kernels;
const lowp::TileKernels lowp_tile_kernels = {
    kTileRows,
    kPanelWidth,
    {Tiles<Floats>::table, Tiles<Words>::table, nullptr, nullptr},
#if defined(OARLOCK_PATH_avx512)
    {nullptr, Tiles<WordsVnni>::table, Tiles<Bytes>::table, Tiles<Halves>::table},
#else
    {},
#endif
};

}  // namespace oarlock::OARLOCK_PATH

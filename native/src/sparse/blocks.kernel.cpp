// Products with matrices of dense blocks: a tile of sums stays in registers over all blocks of a column.

#include "sparse/kernels.h"
#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using sparse::BlockColumn;
using sparse::BlockLayout;
using sparse::kStrip;

// Rows of sums that the registers hold beside a row of weights.
#if defined(OARLOCK_PATH_avx512)
constexpr int kRows = 24, kWideRows = 12;
#elif defined(OARLOCK_PATH_avx2) || defined(OARLOCK_PATH_neon)
constexpr int kRows = 6;
#else
constexpr int kRows = 2;
#endif
constexpr int kVectors = kStrip / kLanes;  // of a strip

template <int R, int V>
struct Sums {
  floats at[R][V];

  inline __attribute__((always_inline)) void clear() {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) at[r][v] = floats{};
  }

  // at[r] += x[r * step] * w
  inline __attribute__((always_inline)) void add(const float* x, int step, const floats (&w)[V]) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const floats factor = all(x[r * step]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) at[r][v] = multiply_add(factor, w[v], at[r][v]);
    }
  }

  inline __attribute__((always_inline)) void load(const float* from, int64_t pitch,
                                                  int64_t columns) {
    if (columns == V * kLanes) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) at[r][v] = load_floats(from + r * pitch + v * kLanes);
      return;
    }
    float rows[R][V * kLanes] = {};
    for (int r = 0; r < R; ++r)
      for (int64_t c = 0; c < columns; ++c) rows[r][c] = from[r * pitch + c];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) at[r][v] = load_floats(rows[r] + v * kLanes);
  }

  inline __attribute__((always_inline)) void store(float* to, int64_t pitch, int64_t columns) {
    if (columns == V * kLanes) {
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store_floats(to + r * pitch + v * kLanes, at[r][v]);
      return;
    }
    float rows[R][V * kLanes];
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store_floats(rows[r] + v * kLanes, at[r][v]);
    for (int r = 0; r < R; ++r)
      for (int64_t c = 0; c < columns; ++c) to[r * pitch + c] = rows[r][c];
  }
};

template <int R, int V>
__attribute__((noinline)) void multiply_rows(const float* strips, int64_t strip_size,
                                             const BlockColumn& column, const float* weights,
                                             const BlockLayout& layout, float* out,
                                             int64_t out_pitch, int64_t columns) {
  const int64_t depth = layout.depth, pitch = layout.pitch;
  const int64_t block_strips = (depth + kStrip - 1) / kStrip * strip_size;
  Sums<R, V> sums;
  sums.clear();
  for (int64_t i = 0; i < column.count; ++i) {
    const float* x = strips + column.inner[i] * block_strips;
    const float* w = weights + column.blocks[i] * layout.size;
    const int64_t after = i + 1 < column.count ? i + 1 : i;
    const float* next_x = strips + column.inner[after] * block_strips;
    const float* next_w = weights + column.blocks[after] * layout.size;
    for (int64_t begin = 0; begin < depth; begin += kStrip, x += strip_size, next_x += strip_size) {
      const int64_t count = depth - begin < kStrip ? depth - begin : kStrip;
      for (int64_t k = 0; k < count; ++k, w += pitch, next_w += pitch) {
        __builtin_prefetch(next_w);
        if constexpr (V > kVectors) __builtin_prefetch(next_w + kStrip);
        __builtin_prefetch(next_x + k * kStrip);
        if constexpr (R > kStrip) __builtin_prefetch(next_x + (k / 2 + kStrip) * kStrip);
        // Where the next columns will be written; a few at a time, not to hold up what is read.
        if (const int64_t row = 2 * k + i; i < 2 && row < R) {
          __builtin_prefetch(out + row * out_pitch + V * kLanes, 1);
          if constexpr (V > kVectors)
            __builtin_prefetch(out + row * out_pitch + V * kLanes + kStrip, 1);
        }
        floats row[V];
        for (int v = 0; v < V; ++v) row[v] = load_floats(w + v * kLanes);
        sums.add(x + k, kStrip, row);
      }
    }
  }
  sums.store(out, out_pitch, columns);
}

// Rows [0, rows) in nearly equal parts of at most R, so that none is too small for the latency of a sum.
template <int R, typename Body>
inline __attribute__((always_inline)) void in_parts(int64_t rows, const Body& body) {
  const int64_t parts = (rows + R - 1) / R;
  for (int64_t part = 0, begin = 0; part < parts; ++part) {
    const int64_t end = (part + 1) * rows / parts;
    body(begin, end - begin);
    begin = end;
  }
}

template <int R, int V>
inline void multiply_part(int64_t rows, const float* strips, int64_t strip_size,
                          const BlockColumn& column, const float* weights,
                          const BlockLayout& layout, float* out, int64_t out_pitch,
                          int64_t columns) {
  if (rows == R)
    multiply_rows<R, V>(strips, strip_size, column, weights, layout, out, out_pitch, columns);
  else if constexpr (R > 1)
    multiply_part<R - 1, V>(rows, strips, strip_size, column, weights, layout, out, out_pitch,
                            columns);
}

template <int R, int V>
void multiply(const float* strips, int64_t strip_size, const BlockColumn& column,
              const float* weights, const BlockLayout& layout, int64_t rows, float* out,
              int64_t out_pitch, int64_t columns) {
  in_parts<R>(rows, [&](int64_t begin, int64_t count) {
    multiply_part<R, V>(count, strips + begin * kStrip, strip_size, column, weights, layout,
                        out + begin * out_pitch, out_pitch, columns);
  });
}

template <int R>
__attribute__((noinline)) void sample_rows(const float* a, const float* b, int64_t length,
                                           bool first, float* out, int64_t out_pitch,
                                           int64_t columns) {
  Sums<R, kVectors> sums;
  if (first)
    sums.clear();
  else
    sums.load(out, out_pitch, columns);
  for (int64_t i = 0; i < length; ++i) {
    floats row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load_floats(b + i * kStrip + v * kLanes);
    sums.add(a + i * kStrip, 1, row);
  }
  sums.store(out, out_pitch, columns);
}

template <int R>
inline void sample_part(int64_t rows, const float* a, const float* b, int64_t length, bool first,
                        float* out, int64_t out_pitch, int64_t columns) {
  if (rows == R)
    sample_rows<R>(a, b, length, first, out, out_pitch, columns);
  else if constexpr (R > 1)
    sample_part<R - 1>(rows, a, b, length, first, out, out_pitch, columns);
}

void sample(const float* a, const float* b, int64_t length, bool first, int64_t rows, float* out,
            int64_t out_pitch, int64_t columns) {
  constexpr int R = kRows < kStrip ? kRows : kStrip;
  in_parts<R>(rows, [&](int64_t begin, int64_t count) {
    sample_part<R>(count, a + begin, b, length, first, out + begin * out_pitch, out_pitch,
                   columns);
  });
}

}  // namespace

extern const sparse::BlockKernels block_kernels;
const sparse::BlockKernels block_kernels = {
    multiply<kRows, kVectors>,
#if defined(OARLOCK_PATH_avx512)
    multiply<kWideRows, 2 * kVectors>,
#else
    nullptr,
#endif
    sample,
};

}  // namespace oarlock::OARLOCK_PATH

// Products with single entries: each takes a row of a packed tile, kTile columns long, to a row of sums.

#include "sparse/kernels.h"
#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using sparse::kTile;
using sparse::Run;

#if defined(OARLOCK_PATH_neon)
constexpr int kPass = 16;  // vectors of sums that the registers hold
#else
constexpr int kPass = 8;
#endif
constexpr int kPassColumns = kPass * kLanes;
static_assert(kTile % kPassColumns == 0);

void multiply(const Run* runs, int64_t count, const int32_t* lines, const float* values,
              const float* tile, float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    const Run run = runs[i];
    for (int pass = 0; pass < kTile / kPassColumns; ++pass) {
      float* const sum = sums + run.row * kTile + pass * kPassColumns;
      const float* const table = tile + pass * kPassColumns;
      floats part[kPass];
#pragma GCC unroll 16
      for (int v = 0; v < kPass; ++v) part[v] = load_floats(sum + v * kLanes);
      int32_t k = 0;
      do {
        const floats factor = all(values[k]);
        const float* const line = table + lines[k];
#pragma GCC unroll 16
        for (int v = 0; v < kPass; ++v)
          part[v] = multiply_add(factor, load_floats(line + v * kLanes), part[v]);
      } while (++k < run.count);
#pragma GCC unroll 16
      for (int v = 0; v < kPass; ++v) store_floats(sum + v * kLanes, part[v]);
    }
    lines += run.count;
    values += run.count;
  }
}

constexpr int kVectors = kTile / kLanes;

struct Line {
  floats at[kVectors];
};

inline __attribute__((always_inline)) floats product(const Line& a, const float* b) {
  floats sum = a.at[0] * load_floats(b);
#pragma GCC unroll 32
  for (int v = 1; v < kVectors; ++v) sum = multiply_add(a.at[v], load_floats(b + v * kLanes), sum);
  return sum;
}

inline float total(floats x) {
  float lanes[kLanes];
  store_floats(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

// Adds the sums of four vectors to four neighbours in memory.
inline void add_totals(const floats (&x)[4], float* out) {
#if defined(OARLOCK_PATH_avx512)
  const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  const __m512 c = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
  const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), sums));
#else
  for (int i = 0; i < 4; ++i) out[i] += total(x[i]);
#endif
}

void sample(const Run* runs, int64_t count, const int32_t* lines, const float* tile,
            const float* a, float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    const Run run = runs[i];
    Line line;
#pragma GCC unroll 32
    for (int v = 0; v < kVectors; ++v) line.at[v] = load_floats(a + run.row * kTile + v * kLanes);
    int32_t k = 0;
    for (; k + 4 <= run.count; k += 4) {
      floats part[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) part[j] = product(line, tile + lines[k + j]);
      add_totals(part, sums + k);
    }
    if (const int32_t left = run.count - k) {
      floats part[4] = {};
      float rest[4] = {};
      for (int32_t j = 0; j < left; ++j) part[j] = product(line, tile + lines[k + j]);
      for (int32_t j = 0; j < left; ++j) rest[j] = sums[k + j];
      add_totals(part, rest);
      for (int32_t j = 0; j < left; ++j) sums[k + j] = rest[j];
    }
    lines += run.count;
    sums += run.count;
  }
}

struct NotZero {
  bool keeps(float x) const { return x != 0; }
  float value(float x) const { return x; }
#if defined(OARLOCK_PATH_avx512)
  __mmask16 keeps(__m512 x) const { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
  __m512 value(__m512 x) const { return x; }
#endif
};

struct Above {
  float least;
  bool keeps(float x) const { return !(x <= least); }
  float value(float x) const { return x - least; }
#if defined(OARLOCK_PATH_avx512)
  __mmask16 keeps(__m512 x) const {
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(least), _CMP_NLE_UQ);
  }
  __m512 value(__m512 x) const { return _mm512_sub_ps(x, _mm512_set1_ps(least)); }
#endif
};

template <typename Kept>
int64_t count(const float* x, int64_t n, const Kept kept) {
  int64_t total = 0, i = 0;
#if defined(OARLOCK_PATH_avx512)
  for (; i + kLanes <= n; i += kLanes) total += __builtin_popcount(kept.keeps(_mm512_loadu_ps(x + i)));
#endif
  for (; i < n; ++i) total += kept.keeps(x[i]);
  return total;
}

template <typename Kept>
bool compress(const float* x, int64_t n, int64_t wanted, int32_t* indices, float* values,
              const Kept kept) {
  int64_t total = 0, i = 0;
#if defined(OARLOCK_PATH_avx512)
  const __m512i lanes =
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; i + kLanes <= n; i += kLanes) {
    const __m512 here = _mm512_loadu_ps(x + i);
    const __mmask16 mask = kept.keeps(here);
    // To a register and from there to memory: compressing into memory is slow on some processors.
    const int found = __builtin_popcount(mask);
    if (total + found > wanted) return false;
    const __mmask16 low = __mmask16((1u << found) - 1);
    const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(int32_t(i)));
    _mm512_mask_storeu_epi32(indices + total, low, _mm512_maskz_compress_epi32(mask, at));
    _mm512_mask_storeu_ps(values + total, low, _mm512_maskz_compress_ps(mask, kept.value(here)));
    total += found;
  }
#endif
  for (; i < n; ++i) {
    if (!kept.keeps(x[i])) continue;
    if (total == wanted) return false;
    indices[total] = int32_t(i);
    values[total++] = kept.value(x[i]);
  }
  return total == wanted;
}

int64_t count_nonzero(const float* x, int64_t n) { return count(x, n, NotZero{}); }

int64_t count_above(const float* x, int64_t n, float least) { return count(x, n, Above{least}); }

bool compress_nonzero(const float* x, int64_t n, int64_t wanted, int32_t* indices, float* values) {
  return compress(x, n, wanted, indices, values, NotZero{});
}

bool compress_above(const float* x, int64_t n, float least, int64_t wanted, int32_t* indices,
                    float* values) {
  return compress(x, n, wanted, indices, values, Above{least});
}

}  // namespace

extern const sparse::EntryKernels entry_kernels;
const sparse::EntryKernels entry_kernels = {
    multiply, sample, count_nonzero, count_above, compress_nonzero, compress_above,
};

}  // namespace oarlock::OARLOCK_PATH

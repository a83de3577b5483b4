// Points within a distance of one point.

#include "atoms/neighbours_kernels.h"
#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

int64_t within(const atoms::Points& points, int64_t begin, int64_t end, double x, double y,
               double z, double square, int32_t* found) {
  int64_t count = 0, i = begin;
#if defined(OARLOCK_PATH_avx512)
  const __m512d at_x = _mm512_set1_pd(x), at_y = _mm512_set1_pd(y), at_z = _mm512_set1_pd(z);
  const __m512d least = _mm512_set1_pd(square);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (; i < end; i += 8) {
    const int64_t left = end - i;
    const __mmask8 valid = left >= 8 ? 0xff : __mmask8((1u << left) - 1);
    const __m512d dx = _mm512_sub_pd(_mm512_maskz_loadu_pd(valid, points.x + i), at_x);
    const __m512d dy = _mm512_sub_pd(_mm512_maskz_loadu_pd(valid, points.y + i), at_y);
    const __m512d dz = _mm512_sub_pd(_mm512_maskz_loadu_pd(valid, points.z + i), at_z);
    const __m512d sum = _mm512_add_pd(_mm512_add_pd(_mm512_mul_pd(dx, dx), _mm512_mul_pd(dy, dy)),
                                      _mm512_mul_pd(dz, dz));
    const __mmask8 near = _mm512_mask_cmp_pd_mask(valid, sum, least, _CMP_LT_OQ);
    const __m256i numbers = _mm256_add_epi32(lanes, _mm256_set1_epi32(int32_t(i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(found + count),
                        _mm256_maskz_compress_epi32(near, numbers));
    count += __builtin_popcount(near);
  }
#else
  for (; i < end; ++i) {
    const double dx = points.x[i] - x, dy = points.y[i] - y, dz = points.z[i] - z;
    found[count] = int32_t(i);
    count += dx * dx + dy * dy + dz * dz < square;
  }
#endif
  return count;
}

}  // namespace

extern const atoms::NeighbourKernels neighbour_kernels;
const atoms::NeighbourKernels neighbour_kernels = {within};

}  // namespace oarlock::OARLOCK_PATH

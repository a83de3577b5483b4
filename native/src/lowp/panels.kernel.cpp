// Moving groups into panels.

#include "lowp/kernels.h"
#include "lowp/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

#if defined(OARLOCK_PATH_avx512)
// Rows r of 16 groups become columns.
inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4 i + j] holds in its quarter q the column 4 q + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    t[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
    r[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
    r[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
  }
}

void interleave(const uint32_t* rows, int64_t stride, int64_t groups, int width, uint32_t flip,
                uint32_t* panel) {
  const __m512i flips = _mm512_set1_epi32(int(flip));
  for (int64_t first = 0; first < width; first += 16) {
    const int64_t wide = width - first < 16 ? width - first : 16;
    const __mmask16 lanes = __mmask16((1u << wide) - 1u);
    for (int64_t g = 0; g < groups; g += 16) {
      const int64_t deep = groups - g < 16 ? groups - g : 16;
      const __mmask16 valid = __mmask16((1u << deep) - 1u);
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = i < wide ? _mm512_maskz_loadu_epi32(valid, rows + (first + i) * stride + g)
                        : _mm512_setzero_si512();
      transpose(r);
      uint32_t* const out = panel + g * width + first;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (i < deep)
          _mm512_mask_storeu_epi32(out + i * width, lanes, _mm512_xor_si512(r[i], flips));
    }
  }
}
#else
void interleave(const uint32_t* rows, int64_t stride, int64_t groups, int width, uint32_t flip,
                uint32_t* __restrict panel) {
  for (int64_t g = 0; g < groups; ++g)
    for (int i = 0; i < width; ++i) panel[g * width + i] = rows[i * stride + g] ^ flip;
}
#endif

template <int kWidth>
void scatter_to(const uint32_t* __restrict groups, int64_t n, uint32_t flip, int64_t stride,
                uint32_t* __restrict panels) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth, panels += stride)
    for (int j = 0; j < kWidth; ++j) panels[j] = groups[i + j] ^ flip;
  if (i < n)
    for (int j = 0; j < kWidth; ++j) panels[j] = i + j < n ? groups[i + j] ^ flip : 0u;
}

void scatter(const uint32_t* groups, int64_t n, int width, uint32_t flip, int64_t stride,
             uint32_t* panels) {
  if (width == kTileRows) return scatter_to<kTileRows>(groups, n, flip, stride, panels);
  scatter_to<kPanelWidth>(groups, n, flip, stride, panels);
}

#if defined(OARLOCK_PATH_avx512)
// Only products with VNNI need them.
void offsets(const uint32_t* panel, int64_t groups, int width, int32_t* sums) {
  const __mmask16 lanes = __mmask16((1u << width) - 1u);
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t g = 0; g < groups; ++g) {
    const __m512i x = _mm512_maskz_loadu_epi32(lanes, panel + g * width);
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(ones), "v"(x));
  }
  _mm512_mask_storeu_epi32(sums, lanes, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
}
#else
constexpr decltype(lowp::PanelKernels::offsets) offsets = nullptr;
#endif

}  // namespace

extern const lowp::PanelKernels lowp_panel_kernels;
const lowp::PanelKernels lowp_panel_kernels = {interleave, scatter, offsets};

}  // namespace oarlock::OARLOCK_PATH

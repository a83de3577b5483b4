// Numbers of 1 to 16 bits side by side in bytes, low bits first. 8 of them fill `width` bytes.

#include "codec/kernels.h"
#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr int64_t kEight = 8;

uint32_t any(const uint16_t* values, int64_t n) {
  uint16_t bits = 0;
  for (int64_t i = 0; i < n; ++i) bits = uint16_t(bits | values[i]);
  return bits;
}

// 4 numbers in 16 bits each, side by side in `width` bits each.
OARLOCK_ALWAYS_INLINE uint64_t squeeze(uint64_t x, int width) {
  constexpr uint64_t kEven = 0x0000ffff0000ffffu;
  x = (x & kEven) | ((x >> 16) & kEven) << width;
  return (x & 0xffffffffu) | (x >> 32) << (2 * width);
}

OARLOCK_ALWAYS_INLINE uint64_t spread(uint64_t x, int width) {
  const uint64_t one = (uint64_t{1} << width) - 1, two = (uint64_t{1} << (2 * width)) - 1;
  x = (x & two) | (x >> (2 * width) & two) << 32;
  return (x & (one | one << 32)) | (x >> width & (one | one << 32)) << 16;
}

// Writes up to 16 bytes, of which `width` count.
OARLOCK_ALWAYS_INLINE void pack_eight(const uint16_t* values, int width, uint8_t* out) {
  const uint64_t low = squeeze(load_as<uint64_t>(values), width);
  const uint64_t high = squeeze(load_as<uint64_t>(values + 4), width);
  store_as(out, low);
  if (width % 2 == 0)
    store_as(out + width / 2, high);
  else  // the halves meet inside a byte
    store_as(out + width / 2, high << 4 | low >> (4 * width - 4));
}

// Reads up to 16 bytes.
OARLOCK_ALWAYS_INLINE void unpack_eight(const uint8_t* in, int width, uint16_t* values) {
  const uint64_t high = load_as<uint64_t>(in + width / 2);
  store_as(values, spread(load_as<uint64_t>(in), width));
  store_as(values + 4, spread(width % 2 == 0 ? high : high >> 4, width));
}

#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
// 16 numbers of 12 bits to 24 bytes and back; both touch 32 bytes of memory.
constexpr int64_t kTwelve = 16;
OARLOCK_ALWAYS_INLINE void pack_twelve(const uint16_t* values, uint8_t* out) {
  const __m256i x = _mm256_loadu_si256((const __m256i*)values);
  const __m256i pairs = _mm256_madd_epi16(x, _mm256_set1_epi32(4096 << 16 | 1));
  const __m256i close = _mm256_shuffle_epi8(  // 12 bytes of each half
      pairs, _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,  //
                              0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  _mm256_storeu_si256((__m256i*)out, _mm256_permutevar8x32_epi32(
                                         close, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7)));
}
OARLOCK_ALWAYS_INLINE void unpack_twelve(const uint8_t* in, uint16_t* values) {
  const __m256i x = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i*)in),
                                                _mm256_setr_epi32(0, 1, 2, 6, 3, 4, 5, 7));
  const __m256i apart = _mm256_shuffle_epi8(
      x, _mm256_setr_epi8(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11,  //
                          0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11));
  const __m256i even = _mm256_and_si256(apart, _mm256_set1_epi32(0x0fff));
  const __m256i odd = _mm256_andnot_si256(_mm256_set1_epi32(0xffff), _mm256_srli_epi16(apart, 4));
  _mm256_storeu_si256((__m256i*)values, _mm256_or_si256(even, odd));
}
#endif

void pack(const uint16_t* values, int64_t n, int width, uint8_t* out) {
  int64_t i = 0;
#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
  if (width == 12)
    for (; i + 2 * kTwelve <= n; i += kTwelve) pack_twelve(values + i, out + i / 2 * 3);
#endif
  // What is written beyond eight numbers is written again with the next ones.
  const int64_t fast = n - kEight * (2 + 16 / width);
  for (; i <= fast; i += kEight) pack_eight(values + i, width, out + i / kEight * width);
  uint32_t waiting = 0;
  int bits = 0;
  out += i / kEight * width;
  for (; i < n; ++i) {
    waiting |= uint32_t(values[i]) << bits;
    for (bits += width; bits >= 8; bits -= 8, waiting >>= 8) *out++ = uint8_t(waiting);
  }
  if (bits > 0) *out = uint8_t(waiting);
}

void unpack(const uint8_t* in, int64_t n, int width, uint16_t* values) {
  int64_t i = 0;
#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
  if (width == 12)
    for (; i + 2 * kTwelve <= n; i += kTwelve) unpack_twelve(in + i / 2 * 3, values + i);
#endif
  const int64_t fast = n - kEight * (2 + 16 / width);
  for (; i <= fast; i += kEight) unpack_eight(in + i / kEight * width, width, values + i);
  uint32_t waiting = 0;
  int bits = 0;
  in += i / kEight * width;
  for (; i < n; ++i) {
    for (; bits < width; bits += 8) waiting |= uint32_t(*in++) << bits;
    values[i] = uint16_t(waiting & ((1u << width) - 1));
    waiting >>= width;
    bits -= width;
  }
}

}  // namespace

extern const codec::BitKernels codec_bit_kernels;
const codec::BitKernels codec_bit_kernels = {any, pack, unpack};

}  // namespace oarlock::OARLOCK_PATH

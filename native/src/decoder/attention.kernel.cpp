// Attention over pages: for a few queries that share keys, a page at a time, softmax as it goes.
//
// A query goes through its pages in their order whatever the others are, so its bits do not depend on them.

#include "attention/vector.h"
#include "decoder/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace decoder;

constexpr int kVectors = kPage / kLanes;
constexpr float kHidden = -1e30f;  // score of what is not seen

struct Scores {
  floats of[kVectors];
};

OARLOCK_ALWAYS_INLINE floats load_items(const float* p) { return load_floats(p); }
OARLOCK_ALWAYS_INLINE floats load_items(const bfloat16* p) { return load_floats(p); }
OARLOCK_ALWAYS_INLINE floats load_items(const int8_t* p) {
  typedef int8_t bytes __attribute__((vector_size(kLanes)));
  return __builtin_convertvector(__builtin_convertvector(load_as<bytes>(p), ints), floats);
}

inline float load_item(const float* p) { return *p; }
inline float load_item(const bfloat16* p) { return load(p, 0); }
inline float load_item(const int8_t* p) { return float(*p); }

template <typename T>
constexpr bool kScaled = sizeof(T) == 1;

template <typename T>
struct Head {
  const T* keys;
  const T* values;
  const float* key_scales;
  const float* value_scales;

  OARLOCK_ALWAYS_INLINE Head(const uint8_t* at, int64_t head_size) {
    keys = reinterpret_cast<const T*>(at);
    values = keys + head_size * kPage;
    key_scales = reinterpret_cast<const float*>(values + head_size * kPage);
    value_scales = key_scales + kPage;
  }
};

constexpr float kPlaces[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Which of 16 positions from `begin` on a query sees, and its bias.
OARLOCK_ALWAYS_INLINE void hide(Scores& scores, int64_t begin, const Queries& q, int i) {
  const float first = float(q.first[i] - begin), last = float(q.last[i] - begin);
  const float here = last - 1.0f;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const floats place = load_floats(kPlaces + v * kLanes);
    floats s = scores.of[v];
    if (q.slopes != nullptr) s = multiply_add(all(q.slopes[i]), place - all(here), s);
    scores.of[v] = (place < all(first)) | (place >= all(last)) ? all(kHidden) : s;
  }
}

OARLOCK_ALWAYS_INLINE float most_of(const Scores& s) {
  floats most = s.of[0];
#pragma GCC unroll 4
  for (int v = 1; v < kVectors; ++v) most = maximum(most, s.of[v]);
  return largest_of(most);
}

OARLOCK_ALWAYS_INLINE float power(float x) { return power_of_two(all(x))[0]; }

template <typename T, int kCount>
void attend_to(const Queries& q, int from, const Pages& pages, int64_t end) {
  const int64_t size = pages.head_size;
  float most[kCount], sum[kCount];
  alignas(64) float weights[kCount][kPage];
  int64_t begin = end;
  for (int i = 0; i < kCount; ++i) {
    most[i] = kHidden;
    sum[i] = 0;
    if (q.first[from + i] < begin) begin = q.first[from + i];
    float* out = q.out[from + i];
    for (int64_t d = 0; d < size; ++d) out[d] = 0;
  }
  for (int64_t page = begin / kPage; page * kPage < end; ++page) {
    const Head<T> head(pages.memory + pages.pages[page] * pages.page_bytes, size);
    Scores scores[kCount] = {};
    for (int64_t d = 0; d < size; ++d) {
      floats key[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) key[v] = load_items(head.keys + d * kPage + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) {
        const floats one = all(q.rows[from + i][d]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          scores[i].of[v] = multiply_add(one, key[v], scores[i].of[v]);
      }
    }
    float keep[kCount];
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kScaled<T>) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          scores[i].of[v] *= load_floats(head.key_scales + v * kLanes);
      }
      hide(scores[i], page * kPage, q, from + i);
      const float top = most_of(scores[i]), now = top > most[i] ? top : most[i];
      keep[i] = power(most[i] - now);
      most[i] = now;
      floats total{};
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const floats visible = scores[i].of[v] > all(kHidden) ? power_of_two(scores[i].of[v] - all(now))
                                                              : floats{};
        total += visible;
        floats weight = visible;
        if constexpr (kScaled<T>) weight *= load_floats(head.value_scales + v * kLanes);
        store_floats(weights[i] + v * kLanes, weight);
      }
      sum[i] = sum[i] * keep[i] + sum_of(total);
    }
    const int64_t left = end - page * kPage, places = left < kPage ? left : kPage;
    int64_t d = 0;
    for (; d + kLanes <= size; d += kLanes) {
      floats outs[kCount];
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) outs[i] = load_floats(q.out[from + i] + d) * all(keep[i]);
      for (int64_t place = 0; place < places; ++place) {
        const floats value = load_items(head.values + place * size + d);
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i)
          outs[i] = multiply_add(all(weights[i][place]), value, outs[i]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) store_floats(q.out[from + i] + d, outs[i]);
    }
    for (; d < size; ++d)
      for (int i = 0; i < kCount; ++i) {
        float out = q.out[from + i][d] * keep[i];
        for (int64_t place = 0; place < places; ++place)
          out += weights[i][place] * load_item(head.values + place * size + d);
        q.out[from + i][d] = out;
      }
  }
  for (int i = 0; i < kCount; ++i) {
    float* out = q.out[from + i];
    const float by = 1.0f / sum[i];
    for (int64_t d = 0; d < size; ++d) out[d] *= by;
  }
}

// The end of a few queries: beyond it nothing is read.
int64_t end_of(const Queries& q, int from, int count) {
  int64_t end = 0;
  for (int i = from; i < from + count; ++i)
    if (q.last[i] > end) end = q.last[i];
  return end;
}

template <typename T>
void attend(const Queries& q, const Pages& pages) {
  int at = 0;
  while (at < q.count) {
    const int left = q.count - at;
    if (left >= 8) {
      attend_to<T, 8>(q, at, pages, end_of(q, at, 8));
      at += 8;
    } else if (left >= 4) {
      attend_to<T, 4>(q, at, pages, end_of(q, at, 4));
      at += 4;
    } else if (left >= 2) {
      attend_to<T, 2>(q, at, pages, end_of(q, at, 2));
      at += 2;
    } else {
      attend_to<T, 1>(q, at, pages, end_of(q, at, 1));
      at += 1;
    }
  }
}

void store_fp32(const float* key, const float* value, int64_t n, int64_t place, uint8_t* head) {
  float* keys = reinterpret_cast<float*>(head);
  float* values = keys + n * kPage;
  for (int64_t d = 0; d < n; ++d) {
    keys[d * kPage + place] = key[d];
    values[place * n + d] = value[d];
  }
}

void store_bf16(const float* key, const float* value, int64_t n, int64_t place, uint8_t* head) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(head);
  uint16_t* values = keys + n * kPage;
  for (int64_t d = 0; d < n; ++d) {
    keys[d * kPage + place] = round_nearest(key[d]);
    values[place * n + d] = round_nearest(value[d]);
  }
}

// Scale and codes of a vector: largest magnitude / 127. Where it is not finite the scale is NaN.
inline float encode(const float* x, int64_t n, int8_t* codes, int64_t stride) {
  uint32_t most = 0;
  for (int64_t d = 0; d < n; ++d) {
    const uint32_t bits = to_bits(x[d]) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  const float largest = from_bits(most);
  const bool rounds = largest > 0x1p-100f && most < 0x7f800000u;
  const float inverse = rounds ? 127.0f / largest : 0.0f;
  for (int64_t d = 0; d < n; ++d) {
    const float y = rounds ? x[d] * inverse : 0.0f;
    codes[d * stride] = int8_t(int32_t((y + 12582912.0f) - 12582912.0f));
  }
  return largest * (1.0f / 127.0f);
}

void store_int8(const float* key, const float* value, int64_t n, int64_t place, uint8_t* head) {
  int8_t* keys = reinterpret_cast<int8_t*>(head);
  int8_t* values = keys + n * kPage;
  float* scales = reinterpret_cast<float*>(values + n * kPage);
  scales[place] = encode(key, n, keys + place, kPage);
  scales[kPage + place] = encode(value, n, values + place * n, 1);
}

}  // namespace

extern const decoder::AttentionKernels decoder_attention_kernels;
const decoder::AttentionKernels decoder_attention_kernels = {
    {store_fp32, store_bf16, store_int8},
    {attend<float>, attend<bfloat16>, attend<int8_t>},
};

}  // namespace oarlock::OARLOCK_PATH

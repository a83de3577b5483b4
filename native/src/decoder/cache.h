// Keys and values in pages of 16 positions.
//
// A page holds all layers; of each layer and head of keys: keys [head_size, 16], values [16, head_size], and for
// int8 float32 scales of 16 keys and 16 values.
#pragma once

#include <stdint.h>

namespace oarlock::decoder {

enum class CacheFormat : int32_t { fp32, bf16, int8 };
constexpr int kCacheFormats = 3;
constexpr int64_t kPage = 16;

constexpr int64_t item_bytes(CacheFormat format) {
  return format == CacheFormat::fp32 ? 4 : format == CacheFormat::bf16 ? 2 : 1;
}
constexpr int64_t head_bytes(CacheFormat format, int64_t head_size) {
  return 2 * kPage * head_size * item_bytes(format) +
         (format == CacheFormat::int8 ? 2 * kPage * int64_t(sizeof(float)) : 0);
}

}  // namespace oarlock::decoder

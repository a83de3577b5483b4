// The arguments of entry points for rows and bricks.
#pragma once

#include <string>

#include "core/device.cuh"
#include "core/error.h"
#include "quant/arguments.h"
#include "quant/bricks.h"
#include "quant/numbers.cuh"

namespace oarlock::cuda::quant {

constexpr std::int32_t kUint8 = 1 << 8 | 8;

inline bool whole_eights(const void* data, std::int64_t columns) {
  return columns % kEight == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

// Blocks of a grid over so many threads' work.
inline unsigned grid_of(std::int64_t work, std::int64_t per) {
  const std::int64_t blocks = tiles_of(work, per);
  if (blocks >> 31) throw BadArgument("there is too much work for one call on a GPU; split it");
  return static_cast<unsigned>(blocks);
}

// [rows, columns] float32 or bfloat16 to be read.
inline Numbers numbers(const oarlock_tensors& list, std::int64_t rows, std::int64_t columns,
                       Device device) {
  const oarlock_tensor& item = oarlock::quant::matrix(list, Access::read, {kFloat32, kBfloat16},
                                                      rows, columns, device);
  return {item.data, item.shape[1], item.dtype == kBfloat16, whole_eights(item.data, item.shape[1])};
}

// ... and to be written; null for none.
inline Target target(const oarlock_tensors* list, std::int64_t rows, std::int64_t columns,
                     Device device) {
  if (list == nullptr) return {nullptr, 0, false, false};
  const oarlock_tensor& item = oarlock::quant::matrix(*list, Access::write, {kFloat32, kBfloat16},
                                                      rows, columns, device);
  return {item.data, columns, item.dtype == kBfloat16, whole_eights(item.data, columns)};
}

// Bytes for bricks; null for none.
inline char* bricks(const oarlock_tensors* list, Access access, std::int64_t bytes,
                    Device device) {
  if (list == nullptr) return nullptr;
  const oarlock_tensor& item = oarlock::quant::vector(*list, access, {kUint8}, bytes, device);
  if (reinterpret_cast<std::uintptr_t>(item.data) % 16 != 0)
    throw BadArgument(item_name(*list, 0) + " must begin at a multiple of 16 bytes");
  return static_cast<char*>(item.data);
}

inline const float* floats(const oarlock_tensors* list, std::int64_t count, Device device) {
  if (list == nullptr) return nullptr;
  return static_cast<const float*>(
      oarlock::quant::vector(*list, Access::read, {kFloat32}, count, device).data);
}

inline const oarlock_tensors& or_none(const oarlock_tensors* list) {
  static const oarlock_tensors none{"none", nullptr, 0};
  return list != nullptr ? *list : none;
}

}  // namespace oarlock::cuda::quant

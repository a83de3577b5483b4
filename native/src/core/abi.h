// What crosses the C ABI: tensors, lists of tensors, status codes.
//
// Entry points are `extern "C"`, return a status and throw nothing; the text of the last error of a
// thread is `oarlock_last_error()`. The structures are mirrored in oarlock/native/_abi.py.
#pragma once

#include <cstdint>

#define OARLOCK_API extern "C" __attribute__((visibility("default")))

// Grows with every change of a structure or signature; the Python side refuses another number.
#define OARLOCK_ABI_VERSION 1

enum oarlock_status : std::int32_t {
  OARLOCK_OK = 0,
  OARLOCK_BAD_ARGUMENT = 1,
  OARLOCK_OUT_OF_MEMORY = 2,
  OARLOCK_INTERNAL = 3,
  OARLOCK_DISCONNECTED = 4,
};

enum oarlock_flag : std::int32_t {
  OARLOCK_CONTIGUOUS = 1,
  OARLOCK_READ_ONLY = 2,
  OARLOCK_COPIED = 4,  // memory is not the exporter's own: writing would be lost
};

enum oarlock_device : std::int32_t { OARLOCK_CPU = 1, OARLOCK_CUDA = 2 };  // as in DLPack

constexpr std::int32_t oarlock_max_ndim = 12;

struct oarlock_tensor {
  void* data;
  std::int64_t count;      // elements
  std::int32_t dtype;      // DLPack's type code << 8 | bits
  std::int32_t device;     // DLPack's device type
  std::int32_t device_id;
  std::int16_t ndim;
  std::int16_t flags;      // of oarlock_flag
  std::int64_t shape[oarlock_max_ndim];
};

// A list argument; `name` is what messages call it.
struct oarlock_tensors {
  const char* name;
  const oarlock_tensor* items;
  std::int64_t count;
};

namespace oarlock {

constexpr std::int32_t kFloat32 = 2 << 8 | 32, kFloat64 = 2 << 8 | 64, kBfloat16 = 4 << 8 | 16;

}  // namespace oarlock

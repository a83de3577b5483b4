// The parts of DLPack (dmlc/dlpack, version 1.x) that reading a tensor needs.
#pragma once

#include <cstdint>

namespace oarlock::dlpack {

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null means contiguous
  std::uint64_t byte_offset;
};

struct Version {
  std::uint32_t major, minor;
};

struct ManagedTensorVersioned {
  Version version;
  void* context;
  void* deleter;
  std::uint64_t flags;  // 1: read-only, 2: copied
  Tensor tensor;
};

// What `type(tensor).__dlpack_c_exchange_api__` points to. Functions need the GIL.
struct ExchangeApi {
  Version version;
  void* previous;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);  // may be null
  int (*current_stream)(int device_type, std::int32_t device_id, void** out);
};

}  // namespace oarlock::dlpack

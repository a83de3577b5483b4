// Entry points that belong to no family: what was built and chosen, and reading DLPack tensors.

#include "core/abi.h"
#include "core/cpu.h"
#include "core/dlpack.h"
#include "core/error.h"
#include "core/parallel.h"

namespace oarlock {
namespace {

void describe(const dlpack::Tensor& tensor, oarlock_tensor* out) {
  if (tensor.ndim < 0 || tensor.ndim > oarlock_max_ndim)
    throw BadArgument("has " + std::to_string(tensor.ndim) + " axes; at most " +
                      std::to_string(oarlock_max_ndim) + " are supported, so reshape it");
  out->data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  out->dtype = tensor.dtype.lanes == 1 ? tensor.dtype.code << 8 | tensor.dtype.bits : -1;
  out->device = tensor.device.type;
  out->device_id = tensor.device.id;
  out->ndim = static_cast<std::int16_t>(tensor.ndim);
  std::int64_t count = 1;
  bool contiguous = true;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    const std::int64_t length = tensor.shape[axis];
    if (tensor.strides != nullptr && length != 1 && tensor.strides[axis] != count)
      contiguous = false;
    out->shape[axis] = length;
    count *= length;
  }
  out->count = count;
  out->flags = contiguous || count == 0 ? OARLOCK_CONTIGUOUS : 0;
}

}  // namespace
}  // namespace oarlock

using namespace oarlock;

OARLOCK_API const char* oarlock_build() { return OARLOCK_BUILD; }

OARLOCK_API const char* oarlock_thread_runtime() { return thread_runtime(); }

OARLOCK_API std::int32_t oarlock_team_size() { return team_size(); }

OARLOCK_API std::int32_t oarlock_pool_size() { return pool_size(); }

// Calls body(task) for each task under the policy of parallel.h, as kernels do. For tests of it.
OARLOCK_API std::int32_t oarlock_parallel_for(std::int64_t tasks, std::int32_t threads,
                                              void (*body)(std::int64_t)) {
  return guarded([&] { parallel_for(tasks, threads, [&](std::int64_t task) { body(task); }); });
}

// Bits: 0 AVX2 + FMA, 1 AVX-512, 2 AVX-512 BF16, 3 AVX-512 VNNI, 4 NEON.
OARLOCK_API std::int32_t oarlock_cpu_features() {
  const CpuFeatures& cpu = cpu_features();
  return cpu.avx2_fma | cpu.avx512 << 1 | cpu.avx512_bf16 << 2 | cpu.avx512_vnni << 3 |
         cpu.neon << 4;
}

// Name of a path, null past the last one.
OARLOCK_API const char* oarlock_path_name(std::int32_t path) {
  return path >= 0 && path < kPaths ? path_name(static_cast<Path>(path)) : nullptr;
}

// 0 not in this build, 1 not for this processor, 2 available.
OARLOCK_API std::int32_t oarlock_path_state(std::int32_t path) {
  const Path wanted = static_cast<Path>(path);
  return path_available(wanted) ? 2 : path_built(wanted) ? 1 : 0;
}

OARLOCK_API std::int32_t oarlock_active_path() { return static_cast<std::int32_t>(active_path()); }

OARLOCK_API std::int32_t oarlock_path_forced() { return path_forced(); }

// Forces a path for this thread; -1 leaves the choice to the processor again.
OARLOCK_API std::int32_t oarlock_force_path(std::int32_t path) {
  return guarded([&] {
    if (path < 0) return unforce_path();
    if (path >= kPaths) throw BadArgument("unknown path " + std::to_string(path));
    force_path(static_cast<Path>(path));
  });
}

// Reads n Python objects through the exchange API of their type. Needs the GIL. Returns the index of
// the first object that failed, or n. If a Python error is set there it is the exporter's.
OARLOCK_API std::int64_t oarlock_read_objects(const void* api, void* const* objects, std::int64_t n,
                                              oarlock_tensor* out) {
  const auto read = static_cast<const dlpack::ExchangeApi*>(api)->tensor_from_object;
  for (std::int64_t i = 0; i < n; ++i) {
    dlpack::Tensor tensor{};
    if (read(objects[i], &tensor) != 0) {
      set_last_error("cannot be read through DLPack");
      return i;
    }
    if (guarded([&] { describe(tensor, out + i); }) != OARLOCK_OK) return i;
  }
  return n;
}

// Whether this exchange API is of a version, and has the function, that oarlock_read_objects needs.
OARLOCK_API std::int32_t oarlock_exchange_usable(const void* api) {
  const auto exchange = static_cast<const dlpack::ExchangeApi*>(api);
  return exchange->version.major == 1 && exchange->tensor_from_object != nullptr;
}

// The stream of the exporter on this device; null for the default one.
OARLOCK_API void* oarlock_current_stream(const void* api, std::int32_t type, std::int32_t id) {
  const auto exchange = static_cast<const dlpack::ExchangeApi*>(api);
  void* stream = nullptr;
  if (exchange->current_stream == nullptr || exchange->current_stream(type, id, &stream) != 0)
    return nullptr;
  return stream;
}

// Reads the tensor of a capsule "dltensor" (versioned = 0) or "dltensor_versioned" (1).
OARLOCK_API std::int32_t oarlock_read_managed(const void* managed, std::int32_t versioned,
                                              oarlock_tensor* out) {
  return guarded([&] {
    if (!versioned) return describe(*static_cast<const dlpack::Tensor*>(managed), out);
    const auto& item = *static_cast<const dlpack::ManagedTensorVersioned*>(managed);
    if (item.version.major != 1)
      throw BadArgument("is of DLPack version " + std::to_string(item.version.major) +
                        "; version 1 is supported");
    describe(item.tensor, out);
    if (item.flags & 1) out->flags |= OARLOCK_READ_ONLY;
    if (item.flags & 2) out->flags |= OARLOCK_COPIED;
  });
}

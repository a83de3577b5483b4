// Entry points of products with weights in few bits.

#include <cstring>

#include "core/error.h"
#include "core/parallel.h"
#include "quant/arguments.h"
#include "quant/pack.h"
#include "quant/product.h"

using namespace oarlock;
using namespace oarlock::quant;

namespace {

constexpr std::int32_t kInt8 = 8, kInt64 = 64;

std::uint8_t* writable(const Matrix& matrix) { return const_cast<std::uint8_t*>(matrix.packed); }

}  // namespace

// Bytes of a packed weight, or -1 with an error.
OARLOCK_API std::int64_t oarlock_quant_packed_bytes(const oarlock_quant_matrix* matrix) {
  std::int64_t bytes = -1;
  guarded([&] { bytes = packed_bytes(*matrix); });
  return bytes;
}

// weight [inputs, outputs], or transposed, float32 or bfloat16 -> packed.
OARLOCK_API std::int32_t oarlock_quant_pack(const oarlock_tensors* weight,
                                            const oarlock_tensors* out,
                                            const oarlock_quant_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Matrix to = packed(*out, o->matrix, Access::write);
    const bool transposed = o->transposed != 0;
    const std::int64_t K = to.inputs, N = to.outputs;
    const oarlock_tensor& from = matrix(*weight, Access::read, {kFloat32, kBfloat16},
                                        transposed ? N : K, transposed ? K : N);
    check_overlap({{*weight, Access::read}, {*out, Access::write}});
    const Source source{from.data, from.dtype == kBfloat16, transposed ? 1 : N, transposed ? K : 1};
    pack(source, K, N, to.format, writable(to), threads);
  });
}

// codes int8 [outputs, inputs] and scales float32 [outputs, inputs / 32] -> packed.
OARLOCK_API std::int32_t oarlock_quant_pack_codes(const oarlock_tensors* codes,
                                                  const oarlock_tensors* scales,
                                                  const oarlock_tensors* out,
                                                  const oarlock_quant_options* o,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Matrix to = packed(*out, o->matrix, Access::write);
    if (!has_codes(to.format)) throw BadArgument("codes are of int8 or int4, not of floats");
    if (to.inputs % kGroup != 0)
      throw BadArgument("codes must have a multiple of 32 inputs, not " +
                        std::to_string(to.inputs));
    const auto& given = matrix(*codes, Access::read, {kInt8}, to.outputs, to.inputs);
    const auto& factors =
        matrix(*scales, Access::read, {kFloat32}, to.outputs, to.inputs / kGroup);
    check_overlap({{*codes, Access::read}, {*scales, Access::read}, {*out, Access::write}});
    pack_codes({static_cast<const std::int8_t*>(given.data),
                static_cast<const float*>(factors.data)},
               to.inputs, to.outputs, to.format, writable(to), threads);
  });
}

// The weights of some outputs: outputs int64 [n] -> out float32 [n, inputs].
OARLOCK_API std::int32_t oarlock_quant_unpack(const oarlock_tensors* weight,
                                              const oarlock_tensors* outputs,
                                              const oarlock_tensors* out,
                                              const oarlock_quant_options* o,
                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Matrix from = packed(*weight, o->matrix, Access::read);
    const oarlock_tensor& which = vector(*outputs, Access::read, {kInt64}, -1);
    const oarlock_tensor& to = matrix(*out, Access::write, {kFloat32}, which.count, from.inputs);
    check_overlap(
        {{*weight, Access::read}, {*outputs, Access::read}, {*out, Access::write}});
    const auto* index = static_cast<const std::int64_t*>(which.data);
    for (std::int64_t i = 0; i < which.count; ++i)
      if (index[i] < 0 || index[i] >= from.outputs)
        throw BadArgument("outputs must be in [0, " + std::to_string(from.outputs) + "), not " +
                          std::to_string(index[i]));
    parallel_for(which.count, threads, [&](std::int64_t i) {
      unpack_output(from.packed, from.inputs, index[i], from.format,
                    static_cast<float*>(to.data) + i * from.inputs);
    });
  });
}

// out = x W + bias, or out += ...; x and out float32; `bias` may be null.
OARLOCK_API std::int32_t oarlock_quant_matmul(const oarlock_tensors* x,
                                              const oarlock_tensors* weight,
                                              const oarlock_tensors* bias,
                                              const oarlock_tensors* out,
                                              const oarlock_quant_options* o,
                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Matrix w = packed(*weight, o->matrix, Access::read);
    const oarlock_tensor& rows = matrix(*x, Access::read, {kFloat32}, -1, w.inputs);
    const std::int64_t count = rows.shape[0];
    const oarlock_tensor& to = matrix(*out, Access::write, {kFloat32}, count, w.outputs);
    const float* offsets = nullptr;
    if (bias != nullptr)
      offsets = static_cast<const float*>(
          vector(*bias, Access::read, {kFloat32}, w.outputs).data);
    const oarlock_tensors none{"bias", nullptr, 0};
    check_overlap({{*x, Access::read},
                   {*weight, Access::read},
                   {bias != nullptr ? *bias : none, Access::read},
                   {*out, Access::write}});
    Workspace workspace(count, w.inputs);
    multiply(static_cast<const float*>(rows.data), w.inputs, count, w,
             {static_cast<float*>(to.data), w.outputs, offsets, o->accumulate != 0}, workspace,
             o->base != 0, threads);
  });
}

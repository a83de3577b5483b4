// Entry points that round and transform matrices on a GPU: the CPU's names, arguments and bits.
// `threads` is not used.

#include "core/error.h"
#include "core/launch.cuh"
#include "lowp/arguments.h"
#include "lowp/codes.cuh"
#include "lowp/hadamard.cuh"

using namespace oarlock;
using namespace oarlock::lowp;

namespace {

float* scales_of(const oarlock_tensors* scales) {
  return scales ? static_cast<float*>(scales->items[0].data) : nullptr;
}

Depth depth_of(const oarlock_tensor& x, const oarlock_lowp_format& format, bool along_rows) {
  return Depth(x.shape[along_rows ? 1 : 0], Unit::floats, format.block);
}

}  // namespace

OARLOCK_API std::int32_t oarlock_lowp_quantize(const oarlock_tensors* x,
                                               const oarlock_tensors* codes,
                                               const oarlock_tensors* scales,
                                               const oarlock_lowp_format* o,
                                               std::int32_t along_rows, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    check_rounding(*x, *codes, scales, *o, along_rows != 0, true, Access::write, use.device());
    check_dtype(*x, {kFloat32, kBfloat16});
    const auto format = static_cast<Format>(o->format);
    check_dtype(*codes, {code_type(format)});
    const oarlock_tensor& item = x->items[0];
    cuda::lowp::encode({item, *o, along_rows != 0, 0}, scales_of(scales), codes->items[0].data,
                       item.shape[1] * cuda::lowp::code_size(format));
  });
}

OARLOCK_API std::int32_t oarlock_lowp_cast(const oarlock_tensors* x, const oarlock_tensors* out,
                                           const oarlock_tensors* scales,
                                           const oarlock_lowp_format* o, std::int32_t along_rows,
                                           std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    const auto format = check_format(x->name, *o);
    check_rounding(*x, *out, scales, *o, along_rows != 0,
                   format == Format::int8 || format == Format::int16, Access::write, use.device());
    check_dtype(*x, {kFloat32, kBfloat16});
    check_dtype(*out, {kFloat32});
    const oarlock_tensor& item = x->items[0];
    const std::int64_t pitch = item.shape[1] * cuda::lowp::code_size(format);
    const cuda::Memory codes(item.shape[0] * pitch);
    cuda::lowp::encode({item, *o, along_rows != 0, 0}, scales_of(scales), codes.as<void>(), pitch);
    cuda::lowp::decode(codes.as<void>(), format, item.shape[0], item.shape[1], along_rows != 0,
                       depth_of(item, *o, along_rows != 0), scales_of(scales),
                       static_cast<float*>(out->items[0].data));
  });
}

OARLOCK_API std::int32_t oarlock_lowp_dequantize(const oarlock_tensors* codes,
                                                 const oarlock_tensors* out,
                                                 const oarlock_tensors* scales,
                                                 const oarlock_lowp_format* o,
                                                 std::int32_t along_rows, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*codes);
    check_rounding(*codes, *out, scales, *o, along_rows != 0, true, Access::read, use.device());
    const auto format = static_cast<Format>(o->format);
    check_dtype(*codes, {code_type(format)});
    check_dtype(*out, {kFloat32});
    const oarlock_tensor& item = codes->items[0];
    cuda::lowp::decode(item.data, format, item.shape[0], item.shape[1], along_rows != 0,
                       depth_of(item, *o, along_rows != 0), scales_of(scales),
                       static_cast<float*>(out->items[0].data));
  });
}

OARLOCK_API std::int32_t oarlock_lowp_hadamard(const oarlock_tensors* x, const oarlock_tensors* out,
                                               std::int64_t block, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    check_hadamard(*x, *out, block, use.device());
    if (block > cuda::lowp::kMostOfTransform)
      throw BadArgument("block must be at most " + std::to_string(cuda::lowp::kMostOfTransform) +
                        " on a GPU, not " + std::to_string(block));
    const oarlock_tensor &from = x->items[0], &to = out->items[0];
    const std::int64_t blocks = from.count / block;
    if (blocks == 0) return;
    cuda::launch("lowp hadamard", cuda::lowp::hadamard,
                 dim3(static_cast<unsigned>(std::min<std::int64_t>(blocks, 1 << 20))),
                 cuda::lowp::kTransformThreads, sizeof(float) * block, from.data, to.data,
                 from.dtype == kBfloat16, to.dtype == kBfloat16, blocks, static_cast<int>(block));
  });
}

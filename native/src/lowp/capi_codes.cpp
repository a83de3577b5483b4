// Entry points that round and transform matrices.

#include <algorithm>

#include "core/dispatch.h"
#include "core/error.h"
#include "lowp/arguments.h"
#include "core/buffer.h"
#include "lowp/codes.h"
#include "lowp/tasks.h"

OARLOCK_DECLARE_KERNELS(oarlock::lowp::HadamardKernels, lowp_hadamard_kernels)

using namespace oarlock;
using namespace oarlock::lowp;

namespace {

bool is_integer(std::int32_t format) {
  return format == std::int32_t(Format::int8) || format == std::int32_t(Format::int16);
}

float* scales_of(const oarlock_tensors* scales) {
  return scales ? static_cast<float*>(scales->items[0].data) : nullptr;
}

}  // namespace

// codes [rows, columns] and scales [blocks, vectors] of x; scales are null for formats without.
OARLOCK_API std::int32_t oarlock_lowp_quantize(const oarlock_tensors* x,
                                               const oarlock_tensors* codes,
                                               const oarlock_tensors* scales,
                                               const oarlock_lowp_format* format,
                                               std::int32_t along_rows, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_rounding(*x, *codes, scales, *format, along_rows != 0, true, Access::write);
    check_dtype(*x, {kFloat32, kBfloat16});
    check_dtype(*codes, {code_type(static_cast<Format>(format->format))});
    quantize({x->items[0], *format, along_rows != 0, scales_of(scales)}, codes->items[0].data,
             threads);
  });
}

// out, float32, <- the values that the codes of x would have; scales are written as in quantize.
OARLOCK_API std::int32_t oarlock_lowp_cast(const oarlock_tensors* x, const oarlock_tensors* out,
                                           const oarlock_tensors* scales,
                                           const oarlock_lowp_format* format,
                                           std::int32_t along_rows, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_rounding(*x, *out, scales, *format, along_rows != 0, is_integer(format->format),
                   Access::write);
    check_dtype(*x, {kFloat32, kBfloat16});
    check_dtype(*out, {kFloat32});
    round_values({x->items[0], *format, along_rows != 0, scales_of(scales)},
                 static_cast<float*>(out->items[0].data), threads);
  });
}

// out, float32, <- codes times scales.
OARLOCK_API std::int32_t oarlock_lowp_dequantize(const oarlock_tensors* codes,
                                                 const oarlock_tensors* out,
                                                 const oarlock_tensors* scales,
                                                 const oarlock_lowp_format* format,
                                                 std::int32_t along_rows, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_rounding(*codes, *out, scales, *format, along_rows != 0, true, Access::read);
    check_dtype(*codes, {code_type(static_cast<Format>(format->format))});
    check_dtype(*out, {kFloat32});
    dequantize(codes->items[0], *format, along_rows != 0, scales_of(scales),
               static_cast<float*>(out->items[0].data), threads);
  });
}

// out <- the orthonormal Walsh-Hadamard transform of each block of the rows of x.
OARLOCK_API std::int32_t oarlock_lowp_hadamard(const oarlock_tensors* x, const oarlock_tensors* out,
                                               std::int64_t block, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_hadamard(*x, *out, block);
    const oarlock_tensor &from = x->items[0], &to = out->items[0];
    if (from.count == 0) return;
    const std::int64_t width = from.shape[from.ndim - 1], rows = from.count / width;
    const std::int64_t rows_of_task = std::max<std::int64_t>(1, (1 << 15) / width);
    const auto transform = OARLOCK_KERNELS(lowp_hadamard_kernels)
                               .transform[from.dtype == kBfloat16][to.dtype == kBfloat16];
    for_tasks(divided_up(rows, rows_of_task), threads, [&](std::int64_t task) {
      const Buffer<float> room(width);
      const std::int64_t end = std::min((task + 1) * rows_of_task, rows);
      for (std::int64_t row = task * rows_of_task; row < end; ++row)
        transform(static_cast<const char*>(from.data) + row * width * item_size(from.dtype), width,
                  block, room.data(),
                  static_cast<char*>(to.data) + row * width * item_size(to.dtype));
    });
  });
}

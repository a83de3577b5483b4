// Entry points of accumulation and of bfloat16.

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "codec/row.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::ValueKernels, codec_value_kernels)

using namespace oarlock;
using namespace oarlock::codec;

// acc = decay acc + weight gradient
OARLOCK_API std::int32_t oarlock_codec_accumulate(const oarlock_tensors* acc,
                                                  const oarlock_tensors* gradient,
                                                  const oarlock_codec_options* o,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& x = flat(*acc, {kFloat32}, Access::write);
    const oarlock_tensor& g = flat(*gradient, {kFloat32, kBfloat16}, Access::read, x.count,
                                   elements_of(*acc));
    check_overlap({{*acc, Access::write}, {*gradient, Access::read}});
    const ValueKernels& kernels = OARLOCK_KERNELS(codec_value_kernels);
    const auto accumulate = kernels.accumulate[g.dtype == kBfloat16];
    const std::int64_t size = item_size(g.dtype);
    for_parts(Parts(x.count, 1), threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      accumulate(data<float>(x) + begin, data<char>(g) + begin * size, end - begin, o->weight,
                 o->decay);
    });
  });
}

OARLOCK_API std::int32_t oarlock_codec_bf16_encode(const oarlock_tensors* acc,
                                                   const oarlock_tensors* gradients,
                                                   const oarlock_tensors* code,
                                                   const oarlock_codec_options* o,
                                                   std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Row added(*gradients, Access::read);
    const Access access = o->keep || !added.empty() ? Access::write : Access::read;
    const oarlock_tensor& x = flat(*acc, {kFloat32}, access);
    if (!added.empty()) added.check_elements(x.count, elements_of(*acc));
    const oarlock_tensor& c = flat(*code, {kUint16, kBfloat16}, Access::write, x.count,
                                   elements_of(*acc));
    check_overlap({{*acc, access}, {*gradients, Access::read}, {*code, Access::write}});
    const auto encode = OARLOCK_KERNELS(codec_value_kernels).bf16_encode[o->keep != 0];
    for_parts(Parts(x.count, 1, kSmallPart), threads, [&](std::int64_t, std::int64_t begin,
                                                          std::int64_t end) {
      float* const here = data<float>(x) + begin;
      added.add_to(here, begin, end - begin);
      encode(here, end - begin, data<std::uint16_t>(c) + begin);
    });
  });
}

OARLOCK_API std::int32_t oarlock_codec_bf16_add(const oarlock_tensors* code,
                                                const oarlock_tensors* out,
                                                const oarlock_codec_options* o,
                                                std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& y = flat(*out, {kFloat32}, Access::write);
    check_flat(*code, {kUint16, kBfloat16}, Access::read, y.count, elements_of(*out));
    check_overlap({{*code, Access::read}, {*out, Access::write}});
    const auto add = OARLOCK_KERNELS(codec_value_kernels).bf16_add;
    for_parts(Parts(y.count, 1, kSmallPart), threads, [&](std::int64_t, std::int64_t begin,
                                                          std::int64_t end) {
      for (std::int64_t one = 0; one < code->count; ++one)
        add(data<std::uint16_t>(code->items[one]) + begin, end - begin, o->weight,
            data<float>(y) + begin);
    });
  });
}

OARLOCK_API std::int32_t oarlock_codec_bf16_write(const oarlock_tensors* code,
                                                  const oarlock_tensors* targets,
                                                  const oarlock_codec_options*,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Row row(*targets, Access::write);
    const oarlock_tensor& c = flat(*code, {kUint16, kBfloat16}, Access::read);
    row.check_elements(c.count, elements_of(*code));
    check_overlap({{*code, Access::read}, {*targets, Access::write}});
    const auto add = OARLOCK_KERNELS(codec_value_kernels).bf16_add;
    for_parts(Parts(c.count, 1, kSmallPart), threads, [&](std::int64_t, std::int64_t begin,
                                                          std::int64_t end) {
      float room[kSmallPart] = {};
      add(data<std::uint16_t>(c) + begin, end - begin, 1.0f, room);
      row.write(room, begin, end - begin);
    });
  });
}

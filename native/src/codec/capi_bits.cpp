// Entry points of packing numbers of few bits.

#include <atomic>

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::BitKernels, codec_bit_kernels)

using namespace oarlock;
using namespace oarlock::codec;

namespace {

constexpr std::int64_t kEight = 8;  // numbers that fill whole bytes, whatever their width

struct Packing {
  std::uint8_t* packed;
  std::uint16_t* values;
  std::int64_t count;
  int width;

  // Calls body(packed, values, count) for parts that begin with a byte.
  template <typename Body>
  void for_values(std::int32_t threads, const Body& body) const {
    for_parts(Parts(divided_up(count, kEight), kEight), threads,
              [&](std::int64_t, std::int64_t first, std::int64_t end) {
                const std::int64_t begin = first * kEight, n = std::min(count, end * kEight) - begin;
                body(packed + first * width, values + begin, n);
              });
  }
};

Packing packing(const oarlock_tensors& packed, const oarlock_tensors& values, int width,
                Access bytes, Access numbers) {
  if (width < 1 || width > 16)
    throw BadArgument("width must be from 1 to 16 bits, not " + std::to_string(width));
  const oarlock_tensor& v = flat(values, {kUint16}, numbers);
  const oarlock_tensor& p = flat(packed, {kUint8}, bytes, divided_up(v.count * width, 8),
                                 elements_of(values) + " in " + std::to_string(width) + " bits");
  check_overlap({{packed, bytes}, {values, numbers}});
  return {data<std::uint8_t>(p), data<std::uint16_t>(v), v.count, width};
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_pack_bits(const oarlock_tensors* values,
                                                 const oarlock_tensors* out,
                                                 const oarlock_codec_options* o,
                                                 std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Packing p = packing(*out, *values, o->bits, Access::write, Access::read);
    const BitKernels& kernels = OARLOCK_KERNELS(codec_bit_kernels);
    std::atomic<bool> wide{false};
    p.for_values(threads, [&](std::uint8_t*, const std::uint16_t* numbers, std::int64_t n) {
      if (kernels.any(numbers, n) >> p.width != 0) wide = true;
    });
    for (std::int64_t i = 0; wide && i < p.count; ++i)
      if (p.values[i] >> p.width != 0)
        throw BadArgument(item_name(*values, 0) + " has " + std::to_string(p.values[i]) +
                          " as element " + std::to_string(i) + ", but width " +
                          std::to_string(p.width) + " is for numbers below " +
                          std::to_string(1 << p.width) + "; pass a larger width");
    p.for_values(threads, [&](std::uint8_t* packed, const std::uint16_t* numbers, std::int64_t n) {
      kernels.pack(numbers, n, p.width, packed);
    });
  });
}

OARLOCK_API std::int32_t oarlock_codec_unpack_bits(const oarlock_tensors* packed,
                                                   const oarlock_tensors* values,
                                                   const oarlock_codec_options* o,
                                                   std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Packing p = packing(*packed, *values, o->bits, Access::read, Access::write);
    const BitKernels& kernels = OARLOCK_KERNELS(codec_bit_kernels);
    p.for_values(threads, [&](const std::uint8_t* from, std::uint16_t* numbers, std::int64_t n) {
      kernels.unpack(from, n, p.width, numbers);
    });
  });
}

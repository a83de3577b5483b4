// Entry points of codes with a scale for each block: of 8, 4 and 2 bits, and signs.

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "codec/row.h"
#include "core/buffer.h"
#include "core/dispatch.h"
#include "core/random.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::BlockKernels, codec_block_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::codec::SignKernels, codec_sign_kernels)

using namespace oarlock;
using namespace oarlock::codec;

namespace {

constexpr std::int64_t kLeastBlock = 8, kLargestBlock = 65536;

int index_of(std::int32_t bits) {
  if (bits != 8 && bits != 4 && bits != 2)
    throw BadArgument("bits must be 8, 4 or 2, not " + std::to_string(bits));
  return bits == 8 ? 0 : bits == 4 ? 1 : 2;
}

void check_block(std::int64_t block) {
  if (block < kLeastBlock || block > kLargestBlock || block % kLeastBlock != 0)
    throw BadArgument("block must be a multiple of 8 from 8 to 65536, not " +
                      std::to_string(block));
}

// Codes and scales, of `count` elements each.
struct Codes {
  std::int64_t count, block;
  std::int32_t bits;
  const oarlock_tensors& codes;
  const oarlock_tensors& scales;

  std::uint8_t* codes_of(std::int64_t one, std::int64_t begin) const {
    return data<std::uint8_t>(codes.items[one]) + begin * bits / 8;
  }
  float* scales_of(std::int64_t one, std::int64_t first) const {
    return data<float>(scales.items[one]) + first;
  }

  // Calls body(begin, blocks) for parts of whole blocks, from element `begin` on.
  template <typename Body>
  void for_blocks(std::uint64_t key, std::int32_t threads, const Body& body) const {
    const Parts parts(divided_up(count, block), block, kSmallPart);
    for_parts(parts, threads, [&](std::int64_t, std::int64_t first, std::int64_t end) {
      const std::int64_t begin = first * block, elements = std::min(count, end * block) - begin;
      body(begin, Blocks{elements, block, first, key});
    });
  }
};

Codes codes_of(const oarlock_tensors& codes, const oarlock_tensors& scales, std::int64_t count,
               const std::string& elements, std::int64_t block, std::int32_t bits, Access access) {
  check_block(block);
  check_flat(codes, {kUint8}, access, divided_up(count * bits, 8),
             elements + " in " + std::to_string(bits) + (bits == 1 ? " bit" : " bits"));
  check_flat(scales, {kFloat32}, access, divided_up(count, block),
             elements + " in blocks of " + std::to_string(block));
  check_count(scales, codes);
  return {count, block, bits, codes, scales};
}

void encode(const oarlock_tensors& acc, const oarlock_tensors& gradients,
            const oarlock_tensors& codes, const oarlock_tensors& scales,
            const oarlock_codec_options& o, std::int32_t bits, EncodeBlocks kernel,
            std::int32_t threads) {
  const Row added(gradients, Access::read);
  const Access access = o.keep || !added.empty() ? Access::write : Access::read;
  const oarlock_tensor& x = flat(acc, {kFloat32}, access);
  if (!added.empty()) added.check_elements(x.count, elements_of(acc));
  const Codes code = codes_of(codes, scales, x.count, elements_of(acc), o.block, bits,
                              Access::write);
  check_overlap({{acc, access}, {gradients, Access::read}, {codes, Access::write},
                 {scales, Access::write}});
  code.for_blocks(mix(o.seed), threads, [&](std::int64_t begin, const Blocks& blocks) {
    float* const here = data<float>(x) + begin;
    added.add_to(here, begin, blocks.n);
    kernel(here, blocks, code.codes_of(0, begin), code.scales_of(0, blocks.first));
  });
}

void add(const oarlock_tensors& codes, const oarlock_tensors& scales, const oarlock_tensors& out,
         const oarlock_codec_options& o, std::int32_t bits, AddBlocks kernel,
         std::int32_t threads) {
  const oarlock_tensor& y = flat(out, {kFloat32}, Access::write);
  const Codes code = codes_of(codes, scales, y.count, elements_of(out), o.block, bits,
                              Access::read);
  check_overlap({{codes, Access::read}, {scales, Access::read}, {out, Access::write}});
  code.for_blocks(0, threads, [&](std::int64_t begin, const Blocks& blocks) {
    for (std::int64_t one = 0; one < codes.count; ++one)
      kernel(code.codes_of(one, begin), code.scales_of(one, blocks.first), blocks, o.weight,
             data<float>(y) + begin);
  });
}

void write(const oarlock_tensors& codes, const oarlock_tensors& scales,
           const oarlock_tensors& targets, const oarlock_codec_options& o, std::int32_t bits,
           WriteBlocks kernel, std::int32_t threads) {
  const Row row(targets, Access::write);
  flat(codes, {kUint8}, Access::read);
  const std::string elements = "the " + std::to_string(row.count()) + " elements of " +
                               targets.name;
  const Codes code = codes_of(codes, scales, row.count(), elements, o.block, bits, Access::read);
  check_overlap({{codes, Access::read}, {scales, Access::read}, {targets, Access::write}});
  code.for_blocks(0, threads, [&](std::int64_t begin, const Blocks& blocks) {
    float* const there = row.place(begin, blocks.n);
    Buffer<float> room;
    if (there == nullptr) room.allocate(blocks.n);
    float* const to = there == nullptr ? room.data() : there;
    kernel(code.codes_of(0, begin), code.scales_of(0, blocks.first), blocks, to);
    if (there == nullptr) row.write(to, begin, blocks.n);
  });
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_blocks_encode(const oarlock_tensors* acc,
                                                     const oarlock_tensors* gradients,
                                                     const oarlock_tensors* codes,
                                                     const oarlock_tensors* scales,
                                                     const oarlock_codec_options* o,
                                                     std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto& kernels = OARLOCK_KERNELS(codec_block_kernels).encode[index_of(o->bits)];
    const auto kernel = kernels[o->stochastic != 0][o->keep != 0];
    encode(*acc, *gradients, *codes, *scales, *o, o->bits, kernel, threads);
  });
}

OARLOCK_API std::int32_t oarlock_codec_blocks_add(const oarlock_tensors* codes,
                                                  const oarlock_tensors* scales,
                                                  const oarlock_tensors* out,
                                                  const oarlock_codec_options* o,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto kernel = OARLOCK_KERNELS(codec_block_kernels).add[index_of(o->bits)];
    add(*codes, *scales, *out, *o, o->bits, kernel, threads);
  });
}

OARLOCK_API std::int32_t oarlock_codec_blocks_write(const oarlock_tensors* codes,
                                                    const oarlock_tensors* scales,
                                                    const oarlock_tensors* targets,
                                                    const oarlock_codec_options* o,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto kernel = OARLOCK_KERNELS(codec_block_kernels).write[index_of(o->bits)];
    write(*codes, *scales, *targets, *o, o->bits, kernel, threads);
  });
}

OARLOCK_API std::int32_t oarlock_codec_signs_encode(const oarlock_tensors* acc,
                                                    const oarlock_tensors* gradients,
                                                    const oarlock_tensors* bits,
                                                    const oarlock_tensors* scales,
                                                    const oarlock_codec_options* o,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto kernel = OARLOCK_KERNELS(codec_sign_kernels).encode[o->keep != 0];
    encode(*acc, *gradients, *bits, *scales, *o, 1, kernel, threads);
  });
}

OARLOCK_API std::int32_t oarlock_codec_signs_add(const oarlock_tensors* bits,
                                                 const oarlock_tensors* scales,
                                                 const oarlock_tensors* out,
                                                 const oarlock_codec_options* o,
                                                 std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    add(*bits, *scales, *out, *o, 1, OARLOCK_KERNELS(codec_sign_kernels).add, threads);
  });
}

OARLOCK_API std::int32_t oarlock_codec_signs_write(const oarlock_tensors* bits,
                                                   const oarlock_tensors* scales,
                                                   const oarlock_tensors* targets,
                                                   const oarlock_codec_options* o,
                                                   std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    write(*bits, *scales, *targets, *o, 1, OARLOCK_KERNELS(codec_sign_kernels).write, threads);
  });
}

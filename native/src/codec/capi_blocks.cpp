// Entry points of codes with a scale for each block: of 8, 4 and 2 bits, and signs.

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "codec/parts.h"
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

// The codes and scales of a tensor of `count` elements.
struct Code {
  std::int64_t count, block;
  std::uint8_t* codes;
  float* scales;
  int bits;

  // Calls body(blocks, codes, scales) for parts of whole blocks.
  template <typename Body>
  void for_blocks(std::uint64_t key, std::int32_t threads, const Body& body) const {
    const Parts parts(divided_up(count, block), block);
    for_parts(parts, threads, [&](std::int64_t, std::int64_t first, std::int64_t end) {
      const std::int64_t begin = first * block, elements = std::min(count, end * block) - begin;
      body(begin, Blocks{elements, block, first, key}, codes + begin * bits / 8, scales + first);
    });
  }
};

Code code_of(const oarlock_tensors& x, const oarlock_tensors& codes, const oarlock_tensors& scales,
             std::int64_t block, std::int32_t bits, Access access) {
  check_block(block);
  const std::int64_t count = x.items[0].count;
  const std::string because = elements_of(x) + " in " + std::to_string(bits) +
                              (bits == 1 ? " bit" : " bits");
  const oarlock_tensor& c = flat(codes, {kUint8}, access, divided_up(count * bits, 8), because);
  const oarlock_tensor& s = flat(scales, {kFloat32}, access, divided_up(count, block),
                                 elements_of(x) + " in blocks of " + std::to_string(block));
  return {count, block, data<std::uint8_t>(c), data<float>(s), bits};
}

void encode(const oarlock_tensors& acc, const oarlock_tensors& codes,
            const oarlock_tensors& scales, const oarlock_codec_options& o, std::int32_t bits,
            EncodeBlocks kernel, std::int32_t threads) {
  const Access access = o.keep ? Access::write : Access::read;
  const oarlock_tensor& x = flat(acc, {kFloat32}, access);
  const Code code = code_of(acc, codes, scales, o.block, bits, Access::write);
  check_overlap({{acc, access}, {codes, Access::write}, {scales, Access::write}});
  code.for_blocks(mix(o.seed), threads, [&](std::int64_t begin, const Blocks& blocks,
                                            std::uint8_t* c, float* s) {
    kernel(data<float>(x) + begin, blocks, c, s);
  });
}

void add(const oarlock_tensors& codes, const oarlock_tensors& scales, const oarlock_tensors& out,
         const oarlock_codec_options& o, std::int32_t bits, AddBlocks kernel,
         std::int32_t threads) {
  const oarlock_tensor& y = flat(out, {kFloat32}, Access::write);
  const Code code = code_of(out, codes, scales, o.block, bits, Access::read);
  check_overlap({{codes, Access::read}, {scales, Access::read}, {out, Access::write}});
  code.for_blocks(0, threads, [&](std::int64_t begin, const Blocks& blocks, const std::uint8_t* c,
                                  const float* s) {
    kernel(c, s, blocks, o.weight, data<float>(y) + begin);
  });
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_blocks_encode(const oarlock_tensors* acc,
                                                     const oarlock_tensors* codes,
                                                     const oarlock_tensors* scales,
                                                     const oarlock_codec_options* o,
                                                     std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto& kernels = OARLOCK_KERNELS(codec_block_kernels).encode[index_of(o->bits)];
    encode(*acc, *codes, *scales, *o, o->bits, kernels[o->stochastic != 0][o->keep != 0], threads);
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

OARLOCK_API std::int32_t oarlock_codec_signs_encode(const oarlock_tensors* acc,
                                                    const oarlock_tensors* bits,
                                                    const oarlock_tensors* scales,
                                                    const oarlock_codec_options* o,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const auto kernel = OARLOCK_KERNELS(codec_sign_kernels).encode[o->keep != 0];
    encode(*acc, *bits, *scales, *o, 1, kernel, threads);
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

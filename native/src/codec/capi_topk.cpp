// Entry points of the largest entries of each chunk.

#include <atomic>

#include "codec/arguments.h"
#include "codec/entries.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::RankKernels, codec_rank_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::codec::TakeKernels, codec_take_kernels)

using namespace oarlock;
using namespace oarlock::codec;

namespace {

// Chunks of a tensor and the entries of each: k, and of a last chunk that is shorter, all of it.
struct Chunks {
  std::int64_t count, chunk, k;

  Chunks(std::int64_t count, const oarlock_codec_options& o)
      : count(count), chunk(o.block), k(o.k) {
    if (chunk < 1 || chunk > kLargestChunk)
      throw BadArgument("chunk must be from 1 to " + std::to_string(kLargestChunk) + ", not " +
                        std::to_string(chunk));
    if (k < 1 || k > chunk)
      throw BadArgument("k must be from 1 to chunk, " + std::to_string(chunk) + ", not " +
                        std::to_string(k));
  }
  std::int64_t number() const { return divided_up(count, chunk); }
  std::int64_t size(std::int64_t i) const { return std::min(chunk, count - i * chunk); }
  std::int64_t entries(std::int64_t i) const { return std::min(k, size(i)); }
  std::int64_t entries() const {
    return count == 0 ? 0 : (number() - 1) * k + entries(number() - 1);
  }
};

struct Entries {
  std::uint16_t* indices;
  float* values;
};

Entries entries_of(const oarlock_tensors& x, const Chunks& chunks, const oarlock_tensors& indices,
                   const oarlock_tensors& values, Access access) {
  const std::string because = elements_of(x) + " in chunks of " + std::to_string(chunks.chunk) +
                              " with " + std::to_string(chunks.k) + " entries";
  const oarlock_tensor& i = flat(indices, {kUint16}, access, chunks.entries(), because);
  const oarlock_tensor& v = flat(values, {kFloat32}, access, chunks.entries(), because);
  return {data<std::uint16_t>(i), data<float>(v)};
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_chunk_topk_encode(const oarlock_tensors* acc,
                                                         const oarlock_tensors* indices,
                                                         const oarlock_tensors* values,
                                                         const oarlock_codec_options* o,
                                                         std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Access access = o->keep ? Access::write : Access::read;
    const oarlock_tensor& x = flat(*acc, {kFloat32}, access);
    const Chunks chunks(x.count, *o);
    const Entries to = entries_of(*acc, chunks, *indices, *values, Access::write);
    check_overlap({{*acc, access}, {*indices, Access::write}, {*values, Access::write}});
    const auto kth = OARLOCK_KERNELS(codec_rank_kernels).kth;
    const auto take = OARLOCK_KERNELS(codec_take_kernels).take_short[o->keep != 0];
    const Parts parts(chunks.number(), chunks.chunk);
    std::atomic<bool> changed{false};
    for_parts(parts, threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        float* const here = data<float>(x) + i * chunks.chunk;
        const std::int64_t size = chunks.size(i), entries = chunks.entries(i);
        const Rank rank = entries == size ? Rank{-1, size} : kth(here, size, entries);
        const std::int64_t taken = take(here, size, rank.least, entries - rank.above, 0, entries,
                                        to.indices + i * chunks.k, to.values + i * chunks.k);
        if (taken != entries) changed = true;
      }
    });
    if (changed) throw changed_meanwhile(*acc);
  });
}

OARLOCK_API std::int32_t oarlock_codec_chunk_topk_add(const oarlock_tensors* indices,
                                                      const oarlock_tensors* values,
                                                      const oarlock_tensors* out,
                                                      const oarlock_codec_options* o,
                                                      std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& y = flat(*out, {kFloat32}, Access::write);
    const Chunks chunks(y.count, *o);
    const Entries from = entries_of(*out, chunks, *indices, *values, Access::read);
    check_overlap({{*indices, Access::read}, {*values, Access::read}, {*out, Access::write}});
    const Parts parts(chunks.number(), chunks.chunk);
    std::atomic<std::int64_t> wrong{-1};  // an entry that is
    for_parts(parts, threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t at =
            first_wrong(from.indices + i * chunks.k, chunks.entries(i), chunks.size(i));
        if (at < chunks.entries(i)) wrong = i * chunks.k + at;
      }
    });
    if (wrong >= 0)
      throw BadArgument(item_name(*indices, 0) + " has " + std::to_string(from.indices[wrong]) +
                        " as entry " + std::to_string(wrong) + ", but positions must rise within "
                        "each chunk and be below its size, " +
                        std::to_string(chunks.size(wrong / chunks.k)) +
                        "; pass what chunk_topk_encode wrote");
    for_parts(parts, threads, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        add_entries(from.indices + i * chunks.k, from.values + i * chunks.k, chunks.entries(i),
                    o->weight, data<float>(y) + i * chunks.chunk);
    });
  });
}

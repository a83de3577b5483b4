// Entry points of orthogonal columns and of cosine transforms.

#include "codec/arguments.h"
#include "codec/cosines.h"
#include "codec/kernels.h"
#include "codec/orthogonal.h"
#include "codec/parts.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::CosineKernels, codec_cosine_kernels)

using namespace oarlock;
using namespace oarlock::codec;

OARLOCK_API std::int32_t oarlock_codec_orthogonalise(const oarlock_tensors* matrix,
                                                     const oarlock_codec_options* o,
                                                     std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& a = flat(*matrix, {kFloat32}, Access::write);
    const std::string given = item_name(*matrix, 0) + " has shape " + shape_text(a);
    if (a.ndim != 2) throw BadArgument(given + ", but must have 2 axes, [rows, r]; reshape it");
    const std::int64_t rows = a.shape[0], columns = a.shape[1];
    if (columns > kColumns)
      throw BadArgument(given + ", but may have at most " + std::to_string(kColumns) +
                        " columns; pass fewer");
    if (columns > rows)
      throw BadArgument(given + ", but in " + std::to_string(rows) + " dimensions there are not " +
                        std::to_string(columns) + " orthogonal columns; pass at most as many as rows");
    if (columns > 0) orthogonalise(data<float>(a), rows, static_cast<int>(columns), o->eps, threads);
  });
}

// `out` may be x.
OARLOCK_API std::int32_t oarlock_codec_dct(const oarlock_tensors* x, const oarlock_tensors* out,
                                           const oarlock_codec_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& from = flat(*x, {kFloat32}, Access::read);
    const oarlock_tensor& to = flat(*out, {kFloat32}, Access::write, from.count, elements_of(*x));
    if (o->block < 8 || o->block > kLargestTransform)
      throw BadArgument("chunk must be from 8 to " + std::to_string(kLargestTransform) + ", not " +
                        std::to_string(o->block));
    if (from.data != to.data) check_overlap({{*x, Access::read}, {*out, Access::write}});
    const CosineKernels& kernels = OARLOCK_KERNELS(codec_cosine_kernels);
    const auto transform = o->inverse ? kernels.inverse : kernels.forward;
    const std::int64_t whole = from.count / o->block, rest = from.count % o->block;
    const CosineTables& tables = cosine_tables(o->block, o->inverse != 0);
    for_parts(Parts(whole, o->block), threads,
              [&](std::int64_t, std::int64_t begin, std::int64_t end) {
                transform(data<float>(from) + begin * o->block, end - begin, tables,
                          data<float>(to) + begin * o->block);
              });
    if (rest > 0)
      transform(data<float>(from) + whole * o->block, 1, cosine_tables(rest, o->inverse != 0),
                data<float>(to) + whole * o->block);
  });
}

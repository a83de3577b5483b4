// Entry points of products with weights in few bits on a GPU. Names of their own, as rows and weights lie in bricks,
// which the CPU's do not.

#include "core/device.cuh"
#include "core/error.h"
#include "core/launch.cuh"
#include "quant/encode.cuh"
#include "quant/operands.cuh"
#include "quant/gpu_options.h"
#include "quant/product.cuh"

namespace oarlock::cuda::quant {
namespace {

int processors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  return count;
}

void check_codes(Format format) {
  if (!oarlock::quant::has_codes(format))
    throw BadArgument("weights on a GPU are int8 or int4; of floats, lowp.matmul has products");
}

// Calls body(a constant of the format).
template <typename Body>
void with_format(Format format, const Body& body) {
  if (format == Format::int4)
    body(std::integral_constant<Format, Format::int4>{});
  else
    body(std::integral_constant<Format, Format::int8>{});
}

template <Format format, int tiles>
void start_few(const Product& p) {
  launch("quant multiply_few", multiply_few<format, tiles>, dim3(grid_of(p.outputs, kTileOutputs)),
         kFewThreads, 0, p);
}

template <Format format, typename Tile>
void start_many(const Product& p, std::int64_t tiles) {
  launch("quant multiply_many", multiply_many<format, Tile>, dim3(grid_of(tiles, 1)), kManyThreads,
         Tile::shared_bytes(format), p);
}

template <Format format>
void multiply(const Product& p) {
  if (p.count <= kTileRows) return start_few<format, 1>(p);
  if (p.count <= 2 * kTileRows) return start_few<format, 2>(p);
  if (p.count <= kMostFewRows) return start_few<format, 4>(p);
  const auto tiles = [&](std::int64_t rows, std::int64_t outputs) {
    return tiles_of(p.count, rows) * tiles_of(p.outputs, outputs);
  };
  const std::int64_t large = tiles(LargeTile::kRows, LargeTile::kOutputs);
  if (large >= processors()) return start_many<format, LargeTile>(p, large);
  start_many<format, SmallTile>(p, tiles(SmallTile::kRows, SmallTile::kOutputs));
}

}  // namespace
}  // namespace oarlock::cuda::quant

using namespace oarlock;
using namespace oarlock::cuda::quant;

// Bytes of a weight and of rows in bricks, or -1 with an error.
OARLOCK_API std::int64_t oarlock_cuda_quant_weight_bytes(const oarlock_quant_matrix* m) {
  std::int64_t bytes = -1;
  guarded([&] {
    oarlock::quant::packed_bytes(*m);
    check_codes(oarlock::quant::format_of(m->format));
    bytes = weight_bytes(oarlock::quant::format_of(m->format), m->inputs, m->outputs);
  });
  return bytes;
}

OARLOCK_API std::int64_t oarlock_cuda_quant_rows_bytes(std::int64_t rows, std::int64_t inputs) {
  std::int64_t bytes = -1;
  guarded([&] {
    if (rows < 0 || inputs < 1)
      throw BadArgument("there must be rows and inputs, not " + std::to_string(rows) + " and " +
                        std::to_string(inputs));
    bytes = rows_bytes(rows, inputs);
  });
  return bytes;
}

// panels, what oarlock_quant_pack gives -> bricks.
OARLOCK_API std::int32_t oarlock_cuda_quant_arrange(const oarlock_tensors* panels,
                                                    const oarlock_tensors* out,
                                                    const oarlock_quant_matrix* m) {
  return guarded([&] {
    const cuda::UseDevice use(*panels);
    const std::int64_t bytes = oarlock::quant::packed_bytes(*m);
    const Format format = oarlock::quant::format_of(m->format);
    check_codes(format);
    const char* const from = bricks(panels, Access::read, bytes, use.device());
    char* const to =
        bricks(out, Access::write, weight_bytes(format, m->inputs, m->outputs), use.device());
    check_overlap({{*panels, Access::read}, {*out, Access::write}});
    const std::int64_t tiles = tiles_of(m->outputs, kTileOutputs);
    const std::int64_t blocks = blocks_of(m->inputs);
    with_format(format, [&](auto known) {
      constexpr Format kFormat = decltype(known)::value;
      cuda::launch("quant arrange", arrange<kFormat>,
                   dim3(grid_of(tiles * blocks * (brick_bytes(kFormat) / 4), kArrangeThreads)),
                   kArrangeThreads, 0, from, reinterpret_cast<std::uint32_t*>(to), blocks, tiles);
    });
  });
}

// x [rows, inputs], float32 or bfloat16 -> rows in bricks.
OARLOCK_API std::int32_t oarlock_cuda_quant_encode(const oarlock_tensors* x,
                                                   const oarlock_tensors* out) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    const Numbers from = numbers(*x, -1, -1, use.device());
    const std::int64_t rows = x->items[0].shape[0], inputs = x->items[0].shape[1];
    if (inputs < 1) throw BadArgument("x must have inputs");
    char* const to = bricks(out, Access::write, rows_bytes(rows, inputs), use.device());
    check_overlap({{*x, Access::read}, {*out, Access::write}});
    if (rows == 0) return;
    const std::int64_t work = tiles_of(rows, kTileRows) * kTileRows * eights_of(inputs);
    cuda::launch("quant encode", map_rows<Given>, dim3(grid_of(work, kEncodeThreads)),
                 kEncodeThreads, 0, Given{from}, rows, inputs, Target{}, to);
  });
}

// out [rows, outputs], float32 or bfloat16, = rows times weight + bias, or += ...; the bias may be null.
OARLOCK_API std::int32_t oarlock_cuda_quant_matmul(const oarlock_tensors* rows,
                                                   const oarlock_tensors* weight,
                                                   const oarlock_tensors* bias,
                                                   const oarlock_tensors* out,
                                                   const oarlock_cuda_matmul_options* o) {
  return guarded([&] {
    const cuda::UseDevice use(*rows);
    const oarlock_quant_matrix& m = o->matrix;
    oarlock::quant::packed_bytes(m);
    const Format format = oarlock::quant::format_of(m.format);
    check_codes(format);
    if (o->rows < 0) throw BadArgument("rows must not be negative");
    const Product p{
        bricks(rows, Access::read, rows_bytes(o->rows, m.inputs), use.device()),
        bricks(weight, Access::read, weight_bytes(format, m.inputs, m.outputs), use.device()),
        floats(bias, m.outputs, use.device()),
        target(out, o->rows, m.outputs, use.device()),
        o->accumulate != 0,
        o->rows,
        m.outputs,
        blocks_of(m.inputs)};
    check_overlap({{*rows, Access::read},
                   {*weight, Access::read},
                   {or_none(bias), Access::read},
                   {*out, Access::write}});
    if (p.count == 0) return;
    with_format(format, [&](auto known) { multiply<decltype(known)::value>(p); });
  });
}

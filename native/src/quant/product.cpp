#include "quant/product.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "core/dispatch.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::quant::Kernels, quant_kernels)

namespace oarlock::quant {
namespace {

constexpr std::int64_t kTasksOfThread = 8;  // so that threads end at about the same time
constexpr std::int64_t kRowsToWiden = 24;   // as many pay for widening a panel
constexpr std::int64_t kRowsAtOnce = 96;   // whose sums stay in a cache

// Inputs whose part of a panel stays in the first cache while rows pass by.
std::int64_t depth_of(Format format, std::int64_t rows) {
  constexpr std::int64_t kCacheBytes = 30 * 1024;
  if (rows <= 6) return std::int64_t{1} << 40;  // few passes
  return std::max<std::int64_t>(1, kCacheBytes / block_bytes(format)) * kBlock;
}

std::int64_t row_bytes(std::int64_t inputs, bool codes) {
  const std::int64_t padded = blocks_of(inputs) * kBlock;
  return codes ? padded / kGroup * std::int64_t{sizeof(Group)} : padded * 4;
}

// The calling thread's room, for a widened panel and for sums; null if there is no memory, as tasks must
// not throw.
template <typename T>
T* room(std::int64_t count) noexcept {
  thread_local Buffer<T> memory;
  try {
    if (memory.size() < count) memory.allocate(count);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return memory.data();
}

Rows packed(const float* x, std::int64_t stride, std::int64_t rows, const Matrix& weight,
            const Kernels& kernels, Workspace& workspace, std::int32_t threads) {
  const bool codes = has_codes(weight.format);
  const std::int64_t most = codes ? kernels.tile_of_codes : kernels.tile_of_floats;
  const Rows found{workspace.packed.data(), row_bytes(weight.inputs, codes), rows,
                   (rows + most - 1) / most};
  parallel_for(found.tiles, threads, [&](std::int64_t tile) {
    const std::int64_t first = found.first_row(tile), count = found.first_row(tile + 1) - first;
    void* const out = workspace.packed.data() + first * found.row_bytes;
    if (codes)
      kernels.encode(x + first * stride, stride, count, weight.inputs, zero_of(weight.format),
                     static_cast<Group*>(out));
    else
      kernels.gather(x + first * stride, stride, count, weight.inputs, static_cast<float*>(out));
  });
  return found;
}

}  // namespace

Workspace::Workspace(std::int64_t rows, std::int64_t inputs)
    : packed(rows * std::max(row_bytes(inputs, false), row_bytes(inputs, true))) {}

void multiply(const float* x, std::int64_t x_stride, std::int64_t rows, const Matrix& weight,
              const Output& out, Workspace& workspace, bool base, std::int32_t threads) {
  const Kernels& kernels = OARLOCK_KERNELS(quant_kernels);
  const bool more = !base && cpu_features().avx512_vnni;
  const auto format = static_cast<int>(weight.format);
  const std::int64_t size = panel_bytes(weight.format, weight.inputs);
  const bool widen = kernels.widen[format] != nullptr && rows >= kRowsToWiden;
  const Format multiplied = widen ? widened(weight.format) : weight.format;
  const std::int64_t wide_bytes = widen ? panel_bytes(multiplied, weight.inputs) : 0;
  const Products& products = widen ? kernels.widened[format] : kernels.products[format];
  const Product product = more ? products.more : products.base;
  if (rows == 0) return;
  const Rows given = packed(x, x_stride, rows, weight, kernels, workspace, threads);
  const std::int64_t tiles_at_once = kRowsAtOnce / ((rows + given.tiles - 1) / given.tiles);
  const std::int64_t depth = depth_of(multiplied, rows);
  const std::int64_t panels = panels_of(weight.outputs);
  const std::int64_t tasks = std::min(panels, threads > 1 ? threads * kTasksOfThread : 1);
  std::atomic<bool> full{false};
  parallel_for(tasks, threads, [&](std::int64_t task) {
    float* const sums = room<float>(kRowsAtOnce * kWidth);
    std::uint8_t* const wide = widen ? room<std::uint8_t>(wide_bytes) : nullptr;
    if (sums == nullptr || (widen && wide == nullptr)) {
      full = true;
      return;
    }
    for (std::int64_t p = panels * task / tasks; p < panels * (task + 1) / tasks; ++p) {
      const std::uint8_t* panel = weight.packed + p * size;
      if (widen) {
        kernels.widen[format](panel, blocks_of(weight.inputs), wide);
        panel = wide;
      }
      const std::int64_t first = p * kWidth, columns = std::min(kWidth, weight.outputs - first);
      const float* const bias = out.bias != nullptr ? out.bias + first : nullptr;
      for (std::int64_t tile = 0; tile < given.tiles; tile += tiles_at_once) {
        const std::int64_t end = std::min(given.tiles, tile + tiles_at_once);
        for (std::int64_t k = 0; k < weight.inputs; k += depth)
          product(given, tile, end, k, panel + k / kBlock * block_bytes(multiplied),
                  std::min(depth, weight.inputs - k), k == 0, sums);
        const std::int64_t row = given.first_row(tile);
        kernels.write(sums, given.first_row(end) - row, columns, bias, out.accumulate,
                      out.values + row * out.stride + first, out.stride);
      }
    }
  });
  if (full) throw std::bad_alloc();
}

}  // namespace oarlock::quant

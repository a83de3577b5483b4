#include "quant/product.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "core/dispatch.h"
#include "core/parallel.h"
#include "quant/kernels.h"

OARLOCK_DECLARE_KERNELS(oarlock::quant::Kernels, quant_kernels)

namespace oarlock::quant {
namespace {

constexpr std::int64_t kTasksOfThread = 8;  // so that threads end at about the same time
constexpr std::int64_t kRowsToEncode = 4;   // as many pay for a task of their own
constexpr std::int64_t kRowsToWiden = 24;   // as many pay for widening a panel
constexpr std::int64_t kRowsAtOnce = 192;   // whose sums stay in a cache

// Inputs whose part of a panel stays in the first cache while rows pass by.
std::int64_t depth_of(Format format, std::int64_t rows) {
  constexpr std::int64_t kCacheBytes = 20 * 1024;
  if (rows <= 6) return std::int64_t{1} << 40;  // a tile passes once
  return std::max<std::int64_t>(1, kCacheBytes / block_bytes(format)) * kBlock;
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

Rows encoded(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t inputs,
             const Kernels& kernels, Workspace& workspace, std::int32_t threads) {
  const std::int64_t width = blocks_of(inputs) * kBlock, groups = width / kGroup;
  parallel_for((rows + kRowsToEncode - 1) / kRowsToEncode, threads, [&](std::int64_t task) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsToEncode);
    for (std::int64_t row = task * kRowsToEncode; row < end; ++row)
      kernels.encode(x + row * stride, inputs, workspace.codes.data() + row * width,
                     workspace.scales.data() + row * groups,
                     workspace.sums.data() + row * groups);
  });
  return {x, stride, workspace.codes.data(), width, workspace.scales.data(),
          workspace.sums.data(), groups};
}

// From a row and an input, a multiple of kBlock, on.
Rows from(const Rows& x, std::int64_t row, std::int64_t input) {
  Rows some = x;
  some.values += row * x.stride + input;
  if (x.codes == nullptr) return some;
  some.codes += row * x.code_stride + input;
  some.scales += row * x.group_stride + input / kGroup;
  some.sums += row * x.group_stride + input / kGroup;
  return some;
}

void write(const float* tile, std::int64_t rows, std::int64_t columns, const float* bias,
           bool accumulate, float* out, std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, tile += kWidth, out += stride)
    for (std::int64_t c = 0; c < columns; ++c) {
      const float sum = bias != nullptr ? tile[c] + bias[c] : tile[c];
      out[c] = accumulate ? out[c] + sum : sum;
    }
}

}  // namespace

Workspace::Workspace(std::int64_t rows, std::int64_t inputs)
    : codes(rows * blocks_of(inputs) * kBlock),
      scales(rows * blocks_of(inputs) * 2),
      sums(rows * blocks_of(inputs) * 2) {}

void multiply(const float* x, std::int64_t x_stride, std::int64_t rows, const Matrix& weight,
              const Output& out, Workspace& workspace, bool base, std::int32_t threads) {
  const Kernels& kernels = OARLOCK_KERNELS(quant_kernels);
  const bool more = !base && cpu_features().avx512_vnni;
  const auto format = static_cast<int>(weight.format);
  const std::int64_t size = panel_bytes(weight.format, weight.inputs);
  const bool widen = weight.format == Format::int4 && rows >= kRowsToWiden;
  const std::int64_t wide_bytes = widen ? panel_bytes(Format::int8, weight.inputs) : 0;
  const Product product = widen  ? (more ? kernels.widened_more : kernels.widened_base)
                          : more ? kernels.more[format]
                                 : kernels.base[format];
  const Rows given =
      has_codes(weight.format)
          ? encoded(x, x_stride, rows, weight.inputs, kernels, workspace, threads)
          : Rows{x, x_stride, nullptr, 0, nullptr, nullptr, 0};
  const Format multiplied = widen ? Format::int8 : weight.format;
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
        kernels.widen(panel, blocks_of(weight.inputs), wide);
        panel = wide;
      }
      const std::int64_t first = p * kWidth, columns = std::min(kWidth, weight.outputs - first);
      for (std::int64_t row = 0; row < rows; row += kRowsAtOnce) {
        const std::int64_t part = std::min(kRowsAtOnce, rows - row);
        for (std::int64_t k = 0; k < weight.inputs; k += depth)
          product(from(given, row, k), part, panel + k / kBlock * block_bytes(multiplied),
                  std::min(depth, weight.inputs - k), k == 0, sums);
        write(sums, part, columns, out.bias != nullptr ? out.bias + first : nullptr,
              out.accumulate, out.values + row * out.stride + first, out.stride);
      }
    }
  });
  if (full) throw std::bad_alloc();
}

}  // namespace oarlock::quant

#include "lowp/codes.h"

#include <algorithm>
#include <vector>

#include "core/dispatch.h"
#include "core/buffer.h"
#include "lowp/operand.h"
#include "lowp/random.h"
#include "lowp/tasks.h"

OARLOCK_DECLARE_KERNELS(oarlock::lowp::PackKernels, lowp_pack_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::lowp::CodeKernels, lowp_code_kernels)

namespace oarlock::lowp {
namespace {

constexpr std::int64_t kRowsOfTask = 64;

// The blocks of a matrix's reduction, and its rows and columns in memory.
struct Layout {
  Layout(const oarlock_tensor& x, const oarlock_lowp_format& format, bool along_rows)
      : rows(x.shape[0]), columns(x.shape[1]), along_rows(along_rows),
        size(item_size(x.dtype)), source(x.dtype == kBfloat16),
        format(static_cast<Format>(format.format)),
        depth(along_rows ? columns : rows, Unit::floats, format.block) {}

  std::int64_t rows, columns;
  bool along_rows;
  std::int64_t size;
  int source;
  Format format;
  Depth depth;
};

std::int64_t code_size(Format format) {
  switch (format) {
    case Format::fp32: return 4;
    case Format::int8:
    case Format::fp8_e4m3:
    case Format::fp8_e5m2: return 1;
    default: return 2;
  }
}

// Largest magnitudes of the columns of rows [begin, end), as slabs that threads share.
std::vector<std::uint32_t> most_of_columns(const Layout& l, const Most& most, const char* data,
                                           std::int64_t begin, std::int64_t end,
                                           std::int32_t threads) {
  const std::int64_t slabs = std::clamp<std::int64_t>((end - begin) / kRowsOfTask, 1, threads);
  std::vector<std::uint32_t> found(slabs * l.columns);
  parallel_for(slabs, threads, [&](std::int64_t slab) {
    const std::int64_t rows = end - begin, after = begin + rows * (slab + 1) / slabs;
    for (std::int64_t row = begin + rows * slab / slabs; row < after; ++row)
      most.columns(data + row * l.columns * l.size, l.columns, found.data() + slab * l.columns);
  });
  for (std::int64_t slab = 1; slab < slabs; ++slab)
    for (std::int64_t i = 0; i < l.columns; ++i)
      found[i] = std::max(found[i], found[slab * l.columns + i]);
  found.resize(l.columns);
  return found;
}

// Calls write(row, first column, count, codes) with the codes of a part of a row, after its scale
// was written; codes are at `target`, or in memory of the task's own where that is null.
template <typename Write>
void encode(const Rounding& r, char* target, std::int32_t threads, const Write& write) {
  const Layout l(r.x, r.format, r.along_rows);
  const Most& most = OARLOCK_KERNELS(lowp_pack_kernels).most[l.source];
  const auto& kernels = OARLOCK_KERNELS(lowp_code_kernels)
                            .store[l.source][static_cast<int>(l.format)][r.format.stochastic != 0];
  const auto* const data = static_cast<const char*>(r.x.data);
  const std::uint64_t key = mix(mix(r.format.seed));
  const std::int64_t size = code_size(l.format);
  const auto place = [&](std::int64_t row, std::int64_t column, Buffer<char>& room) {
    return target ? target + (row * l.columns + column) * size : room.data() + column * size;
  };
  const auto rows_of = [&](std::int64_t begin, std::int64_t end, const auto& body) {
    for_tasks(divided_up(end - begin, kRowsOfTask), threads, [&](std::int64_t task) {
      Buffer<char> room;
      if (target == nullptr) room.allocate(l.columns * size);
      const std::int64_t first = begin + task * kRowsOfTask;
      const std::int64_t after = std::min(first + kRowsOfTask, end);
      for (std::int64_t row = first; row < after; ++row) body(row, room);
    });
  };
  if (r.along_rows) {
    rows_of(0, l.rows, [&](std::int64_t row, Buffer<char>& room) {
      for (std::int64_t block = 0; block < l.depth.blocks; ++block) {
        const std::int64_t begin = block * l.depth.block;
        const std::int64_t n = std::min(l.depth.block, l.columns - begin);
        const char* const x = data + (row * l.columns + begin) * l.size;
        float inverse = 1;
        if (r.scales != nullptr)
          r.scales[block * l.rows + row] = scale_of(l.format, most.row(x, n), &inverse);
        char* const codes = place(row, begin, room);
        kernels.row(x, n, inverse, random_of_row(key, row, begin), codes);
        write(row, block, begin, n, codes);
      }
    });
    return;
  }
  std::vector<float> inverses(l.columns, 1.0f);
  for (std::int64_t block = 0; block < l.depth.blocks; ++block) {
    const std::int64_t begin = block * l.depth.block;
    const std::int64_t end = std::min(begin + l.depth.block, l.rows);
    if (r.scales != nullptr) {
      const std::vector<std::uint32_t> found = most_of_columns(l, most, data, begin, end, threads);
      for (std::int64_t i = 0; i < l.columns; ++i)
        r.scales[block * l.columns + i] = scale_of(l.format, found[i], &inverses[i]);
    }
    rows_of(begin, end, [&](std::int64_t row, Buffer<char>& room) {
      char* const codes = place(row, 0, room);
      kernels.wide(data + row * l.columns * l.size, l.columns, inverses.data(),
                   random_of_row(key, row, 0), codes);
      write(row, block, 0, l.columns, codes);
    });
  }
}

}  // namespace

void quantize(const Rounding& r, void* codes, std::int32_t threads) {
  encode(r, static_cast<char*>(codes), threads,
         [](std::int64_t, std::int64_t, std::int64_t, std::int64_t, const char*) {});
}

void round_values(const Rounding& r, float* out, std::int32_t threads) {
  const Layout l(r.x, r.format, r.along_rows);
  const auto& kernels = OARLOCK_KERNELS(lowp_code_kernels).load[static_cast<int>(l.format)];
  encode(r, nullptr, threads, [&](std::int64_t row, std::int64_t block, std::int64_t first,
                                  std::int64_t n, const char* codes) {
    float* const target = out + row * l.columns + first;
    if (r.scales == nullptr)
      kernels.row(codes, n, 1.0f, target);
    else if (r.along_rows)
      kernels.row(codes, n, r.scales[block * l.rows + row], target);
    else
      kernels.wide(codes, n, r.scales + block * l.columns, target);
  });
}

void dequantize(const oarlock_tensor& codes, const oarlock_lowp_format& format, bool along_rows,
                const float* scales, float* out, std::int32_t threads) {
  const Layout l(codes, format, along_rows);
  const auto& kernels = OARLOCK_KERNELS(lowp_code_kernels).load[static_cast<int>(l.format)];
  const auto* const data = static_cast<const char*>(codes.data);
  parallel_for(divided_up(l.rows, kRowsOfTask), threads, [&](std::int64_t task) {
    const std::int64_t end = std::min((task + 1) * kRowsOfTask, l.rows);
    for (std::int64_t row = task * kRowsOfTask; row < end; ++row) {
      const char* const x = data + row * l.columns * l.size;
      float* const target = out + row * l.columns;
      if (scales == nullptr) {
        kernels.row(x, l.columns, 1.0f, target);
      } else if (!along_rows) {
        kernels.wide(x, l.columns, scales + row / l.depth.block * l.columns, target);
      } else {
        for (std::int64_t block = 0; block < l.depth.blocks; ++block) {
          const std::int64_t begin = block * l.depth.block;
          kernels.row(x + begin * l.size, std::min(l.depth.block, l.columns - begin),
                      scales[block * l.rows + row], target + begin);
        }
      }
    }
  });
}

}  // namespace oarlock::lowp

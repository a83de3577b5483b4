#include "lowp/product.h"

#include <unistd.h>

#include <algorithm>

#include "core/dispatch.h"
#include "core/buffer.h"
#include "lowp/tasks.h"

OARLOCK_DECLARE_KERNELS(oarlock::lowp::TileKernels, lowp_tile_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::lowp::FinishKernels, lowp_finish_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::lowp::PanelKernels, lowp_panel_kernels)

namespace oarlock::lowp {
namespace {

constexpr std::uint32_t kFlip = 0x80808080u;  // int8 of b are unsigned, larger by 128
constexpr std::int64_t kInner = 256;     // groups of a panel of b that stay in the first cache
constexpr std::int64_t kOuter = 1100;    // groups of a block of a that stay in the second
constexpr std::int64_t kMostTiles = 36;  // rows of tiles in a block of a

std::int64_t second_level_cache() {
  static const std::int64_t found = [] {
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes >= 1 << 18 ? static_cast<std::int64_t>(bytes) : std::int64_t{1} << 19;
  }();
  return found;
}

class Product {
 public:
  Product(Operand& a, Operand& b, const Depth& depth, const Arithmetic& arithmetic,
          const Result& out, std::int32_t threads)
      : a_(a), b_(b), depth_(depth), arithmetic_(arithmetic), out_(out), m_(a.length()),
        n_(b.length()), panels_of_b_(divided_up(n_, width_)) {
    const std::int64_t interval = depth.interval(arithmetic.most_summed);
    interval_ = divided_up(interval, per_group(arithmetic.unit));
    intervals_ = std::max<std::int64_t>(1, divided_up(depth.groups, interval_));
    intervals_of_block_ = divided_up(depth.block, interval);
    outers_ = std::max<std::int64_t>(1, divided_up(depth.groups, kOuter));
    outer_ = std::max<std::int64_t>(1, divided_up(depth.groups, outers_));
    const std::int64_t fitting = second_level_cache() / 3 / (4 * rows_ * outer_);
    const std::int64_t tiles = std::clamp<std::int64_t>(fitting, 2, kMostTiles);
    std::int64_t parts = divided_up(m_, tiles * rows_);
    if (threads > 1) parts = divided_up(parts, threads) * threads;
    tiles_ = divided_up(divided_up(m_, parts), rows_);
    parts_of_m_ = divided_up(m_, tiles_ * rows_);
    parts_of_n_ = std::min(panels_of_b_, divided_up(threads, parts_of_m_));
  }

  void run(std::int32_t threads) {
    a_.find_scales(threads);
    b_.find_scales(threads);
    pack_b(threads);
    for_tasks(parts_of_m_ * parts_of_n_, threads, [&](std::int64_t task) {
      const std::int64_t part = task % parts_of_n_;
      block(task / parts_of_n_, panels_of_b_ * part / parts_of_n_,
            panels_of_b_ * (part + 1) / parts_of_n_);
    });
  }

 private:
  // Panels of a for some rows, and the sums of their tiles.
  struct Block {
    std::int64_t first, count, tiles;
    Buffer<std::uint32_t> panels;
    std::vector<std::int32_t> offsets;  // where sums start, [intervals][tiles][rows]
    Buffer<std::uint32_t> tile;         // sums of an interval, [panels of b][tiles][rows][width]
    Buffer<float> sums;                 // ... of all intervals so far
  };

  void pack_b(std::int32_t threads) {
    const std::int64_t parts = std::min<std::int64_t>(panels_of_b_, threads);
    packed_.allocate(panels_of_b_ * width_ * depth_.groups);
    for_tasks(parts, threads, [&](std::int64_t part) {
      const std::int64_t begin = panels_of_b_ * part / parts * width_;
      const std::int64_t end = std::min(n_, panels_of_b_ * (part + 1) / parts * width_);
      b_.pack(begin, end - begin, width_, arithmetic_.unit == Unit::bytes ? kFlip : 0u,
              packed_.data() + begin * depth_.groups);
    });
    const std::int64_t padded = panels_of_b_ * width_;
    if (out_.bias != nullptr) {
      bias_.resize(padded);
      std::copy_n(out_.bias, n_, bias_.begin());
    }
    if (b_.scales() == nullptr) return;
    scales_of_b_.resize(depth_.blocks * padded);
    for (std::int64_t block = 0; block < depth_.blocks; ++block)
      std::copy_n(b_.scales() + block * n_, n_, scales_of_b_.begin() + block * padded);
  }

  void block(std::int64_t part_of_m, std::int64_t first_panel, std::int64_t end_panel) {
    Block work;
    work.first = part_of_m * tiles_ * rows_;
    work.count = std::min(tiles_ * rows_, m_ - work.first);
    work.tiles = divided_up(work.count, rows_);
    work.panels.allocate(work.tiles * rows_ * depth_.groups);
    a_.pack(work.first, work.count, rows_, 0, work.panels.data());
    find_offsets(work);
    const std::int64_t kept = outers_ > 1 ? end_panel - first_panel : 1;
    work.tile.allocate(kept * work.tiles * rows_ * width_);
    if (depth_.groups == 0) std::fill_n(work.tile.data(), work.tile.size(), 0u);
    if (intervals_ > 1) work.sums.allocate(work.tile.size());
    for (std::int64_t outer = 0; outer < outers_; ++outer) {
      const std::int64_t begin = outer * outer_, end = std::min(begin + outer_, depth_.groups);
      for (std::int64_t panel = first_panel; panel < end_panel; ++panel) {
        const std::int64_t slot = outers_ > 1 ? (panel - first_panel) * work.tiles : 0;
        for (std::int64_t from = begin; from < end || from == begin; from += kInner) {
          const std::int64_t to = std::min(from + kInner, end);
          const bool last = to == depth_.groups;
          for (std::int64_t tile = 0; tile < work.tiles; ++tile) {
            Fetch fetch = last ? result_of(work, tile, panel) : Fetch{};
            add_next(fetch, work, tile, from, to, to < end ? panel : panel + 1,
                     to < end ? to : begin);
            advance(work, tile, panel, slot + tile, from, to, fetch);
            if (last) finish(work, tile, panel, slot + tile);
          }
        }
      }
    }
  }

  // What `finish` will write.
  Fetch result_of(const Block& work, std::int64_t tile, std::int64_t panel) const {
    const std::int64_t size = item_size(out_.dtype), row = work.first + tile * rows_;
    const std::int64_t columns = std::min<std::int64_t>(width_, n_ - panel * width_);
    Fetch fetch{};
    fetch.data = static_cast<const char*>(out_.data) + (row * n_ + panel * width_) * size;
    fetch.lines = rows_of(work, tile), fetch.bytes = columns * size, fetch.stride = n_ * size;
    return fetch;
  }

  // This tile's share of the part of a panel of b that comes after groups [from, to).
  void add_next(Fetch& fetch, const Block& work, std::int64_t tile, std::int64_t from,
                std::int64_t to, std::int64_t panel, std::int64_t begin) const {
    if (from == to) return;
    panel = std::min(panel, panels_of_b_ - 1);
    const std::int64_t bytes = std::min(kInner, depth_.groups - begin) * width_ * 4;
    const std::int64_t share = divided_up(bytes, work.tiles * 64) * 64;
    fetch.next = reinterpret_cast<const char*>(packed_.data() +
                                               (panel * depth_.groups + begin) * width_) +
                 std::min(share * tile, bytes);
    fetch.step = divided_up(share, to - from);
  }

  // With 128 added to the int8 of b, sums are too large by 128 times the sum of a row of a.
  void find_offsets(Block& work) const {
    work.offsets.resize(intervals_ * work.tiles * rows_);
    if (arithmetic_.unit != Unit::bytes) return;
    for (std::int64_t interval = 0; interval < intervals_; ++interval) {
      const std::int64_t begin = interval * interval_;
      const std::int64_t groups = std::min(interval_, depth_.groups - begin);
      for (std::int64_t tile = 0; tile < work.tiles; ++tile)
        panel_kernels_.offsets(work.panels.data() + (tile * depth_.groups + begin) * rows_, groups,
                               rows_, work.offsets.data() + (interval * work.tiles + tile) * rows_);
    }
  }

  // Adds the products of groups [from, to) to a tile.
  void advance(Block& work, std::int64_t tile, std::int64_t panel, std::int64_t slot,
               std::int64_t from, std::int64_t to, Fetch fetch) const {
    const std::uint32_t* const a = work.panels.data() + tile * rows_ * depth_.groups;
    const std::uint32_t* const b = packed_.data() + panel * width_ * depth_.groups;
    std::uint32_t* const sums = work.tile.data() + slot * rows_ * width_;
    const int rows = rows_of(work, tile);
    for (std::int64_t g = from; g < to;) {
      const std::int64_t interval = g / interval_, ends = (interval + 1) * interval_;
      const std::int64_t stop = std::min(to, ends);
      const std::int32_t* const start =
          g % interval_ ? nullptr : work.offsets.data() + (interval * work.tiles + tile) * rows_;
      arithmetic_.tile[rows - 1](a + g * rows_, b + g * width_, stop - g, start, sums,
                                 fetch);
      fetch.lines = 0;
      fetch.next = static_cast<const char*>(fetch.next) + (stop - g) * fetch.step;
      g = stop;
      if (intervals_ > 1 && (stop == ends || stop == depth_.groups))
        finish_kernels_.flush(sums, rows, scales(work, tile, panel, interval), interval == 0,
                              work.sums.data() + slot * rows_ * width_);
    }
  }

  void finish(const Block& work, std::int64_t tile, std::int64_t panel, std::int64_t slot) const {
    Finish f = scales(work, tile, panel, 0);
    const std::uint32_t* sums = work.tile.data() + slot * rows_ * width_;
    if (intervals_ > 1) {
      f = {};
      sums = reinterpret_cast<const std::uint32_t*>(work.sums.data()) + slot * rows_ * width_;
    }
    f.activation = out_.activation;
    if (!bias_.empty()) f.bias = bias_.data() + panel * width_;
    const std::int64_t row = work.first + tile * rows_, column = panel * width_;
    const bool narrow = out_.dtype == kBfloat16;
    finish_kernels_.finish[narrow](
        sums, rows_of(work, tile), std::min<std::int64_t>(width_, n_ - column), f,
        static_cast<char*>(out_.data) + (row * n_ + column) * item_size(out_.dtype), n_);
  }

  int rows_of(const Block& work, std::int64_t tile) const {
    return static_cast<int>(std::min<std::int64_t>(rows_, work.count - tile * rows_));
  }

  Finish scales(const Block& work, std::int64_t tile, std::int64_t panel,
                std::int64_t interval) const {
    Finish f{};
    f.integers = arithmetic_.integers;
    if (a_.scales() == nullptr) return f;
    const std::int64_t block = interval / intervals_of_block_;
    f.row_scales = a_.scales() + block * m_ + work.first + tile * rows_;
    f.column_scales = scales_of_b_.data() + (block * panels_of_b_ + panel) * width_;
    return f;
  }

  const TileKernels& tile_kernels_ = OARLOCK_KERNELS(lowp_tile_kernels);
  const FinishKernels& finish_kernels_ = OARLOCK_KERNELS(lowp_finish_kernels);
  const PanelKernels& panel_kernels_ = OARLOCK_KERNELS(lowp_panel_kernels);
  const int rows_ = tile_kernels_.tile_rows, width_ = tile_kernels_.panel_width;
  Operand &a_, &b_;
  const Depth& depth_;
  const Arithmetic& arithmetic_;
  const Result& out_;
  const std::int64_t m_, n_, panels_of_b_;
  std::int64_t interval_;  // in groups
  std::int64_t intervals_, intervals_of_block_;
  std::int64_t outer_, outers_, tiles_, parts_of_m_, parts_of_n_;
  std::vector<float> bias_, scales_of_b_;  // padded to whole panels
  Buffer<std::uint32_t> packed_;
};

}  // namespace

Arithmetic arithmetic_of(Format a, Format b, bool base) {
  const TileKernels& kernels = OARLOCK_KERNELS(lowp_tile_kernels);
  const CpuFeatures& cpu = cpu_features();
  const bool wide = active_path() == Path::avx512 && !base;
  const auto with = [&](Unit unit, bool more, bool integers, std::int64_t most) {
    const int index = static_cast<int>(unit);
    return Arithmetic{unit, more ? kernels.more[index] : kernels.base[index], kernels.tile_rows,
                      kernels.panel_width, integers, most};
  };
  const bool vnni = wide && cpu.avx512_vnni;
  if (a == Format::int8)
    return vnni ? with(Unit::bytes, true, true, kInt8Sums)
                : with(Unit::words, false, true, kInt8Sums);
  if (a == Format::int16) return with(Unit::words, vnni, true, kInt16Sums);
  if (a == Format::bf16 && b == Format::bf16 && wide && cpu.avx512_bf16)
    return with(Unit::halves, true, false, 0);
  return with(Unit::floats, false, false, 0);
}

void multiply(Operand& a, Operand& b, const Depth& depth, const Arithmetic& arithmetic,
              const Result& out, std::int32_t threads) {
  if (a.length() == 0 || b.length() == 0) return;
  Product(a, b, depth, arithmetic, out, threads).run(threads);
}

}  // namespace oarlock::lowp

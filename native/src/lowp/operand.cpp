#include "lowp/operand.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/parallel.h"
#include "core/buffer.h"
#include "lowp/random.h"

OARLOCK_DECLARE_KERNELS(oarlock::lowp::PackKernels, lowp_pack_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::lowp::PanelKernels, lowp_panel_kernels)

namespace oarlock::lowp {

Operand::Operand(const oarlock_tensor& x, bool codes, const float* scales, bool along_rows,
                 const oarlock_lowp_format& format, std::uint64_t stream, const Depth& depth,
                 Unit unit)
    : data_(static_cast<const char*>(x.data)),
      size_(item_size(x.dtype)),
      stored_columns_(x.shape[1]),
      length_(x.shape[along_rows ? 0 : 1]),
      codes_(codes),
      along_rows_(along_rows),
      format_(static_cast<Format>(format.format)),
      unit_(unit),
      depth_(depth),
      stochastic_(format.stochastic != 0),
      key_(mix(mix(format.seed) ^ stream)),
      given_(scales),
      panels_(OARLOCK_KERNELS(lowp_panel_kernels)) {
  const PackKernels& kernels = OARLOCK_KERNELS(lowp_pack_kernels);
  const int source = x.dtype == kBfloat16;
  encoder_ = codes ? kernels.decode[static_cast<int>(format_)][static_cast<int>(unit)]
                   : kernels.encode[source][static_cast<int>(format_)][static_cast<int>(unit)]
                                   [stochastic_];
  most_ = kernels.most[source];
  if (!codes && has_scales(format_)) scales_.resize(depth.blocks * length_);
}

Random Operand::random(std::int64_t row, std::int64_t column) const {
  return random_of_row(key_, row, column);
}

void Operand::find_scales(std::int32_t threads) {
  if (scales_.empty() || along_rows_ || depth_.blocks > 1) return;
  const std::int64_t rows = depth_.elements;
  const std::int64_t slabs = std::min<std::int64_t>(threads, std::max<std::int64_t>(1, rows / 64));
  std::vector<std::uint32_t> most(slabs * length_);
  parallel_for(slabs, threads, [&](std::int64_t slab) {
    for (std::int64_t row = rows * slab / slabs; row < rows * (slab + 1) / slabs; ++row)
      most_.columns(at(row, 0), length_, most.data() + slab * length_);
  });
  for (std::int64_t slab = 1; slab < slabs; ++slab)
    for (std::int64_t i = 0; i < length_; ++i)
      most[i] = std::max(most[i], most[slab * length_ + i]);
  inverses_.resize(length_);
  for (std::int64_t i = 0; i < length_; ++i) scales_[i] = scale_of(format_, most[i], &inverses_[i]);
}

void Operand::pack(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
                   std::uint32_t* panels) {
  along_rows_ ? pack_rows(first, count, width, flip, panels)
              : pack_columns(first, count, width, flip, panels);
}

// The reduction is contiguous: each vector is scaled and rounded while it is in the cache.
void Operand::pack_rows(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
                        std::uint32_t* panels) {
  const std::int64_t per = per_group(unit_), stride = depth_.groups + 16;
  const Buffer<std::uint32_t> rows(width * stride);
  for (std::int64_t i = 0; i < count; i += width, panels += width * depth_.groups) {
    const std::int64_t here = std::min<std::int64_t>(width, count - i);
    if (here < width) std::fill(rows.data() + here * stride, rows.data() + width * stride, 0u);
    for (std::int64_t r = 0; r < here; ++r) {
      const std::int64_t row = first + i + r;
      for (std::int64_t block = 0; block < depth_.blocks; ++block) {
        const std::int64_t begin = block * depth_.block;
        const std::int64_t n = std::min(depth_.block, depth_.elements - begin);
        float inverse = 1;
        if (!scales_.empty())
          scales_at(block)[row] = scale_of(format_, most_.row(at(row, begin), n), &inverse);
        std::uint32_t* const out = rows.data() + r * stride + begin / per;
        if (n % per != 0) out[n / per] = 0;
        encoder_.row(at(row, begin), n, inverse, random(row, begin), out);
      }
    }
    panels_.interleave(rows.data(), stride, depth_.groups, width, flip, panels);
  }
}

// The reduction runs across rows: as many rows as make a group at a time.
void Operand::pack_columns(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
                           std::uint32_t* panels) {
  const int per = per_group(unit_);
  const Buffer<std::uint32_t> groups(count);
  std::vector<std::uint32_t> most(count);
  std::vector<float> inverses(count, 1.0f);
  const std::vector<char> zeros(depth_.elements % per ? count * size_ : 0);
  for (std::int64_t block = 0; block < depth_.blocks; ++block) {
    const std::int64_t begin = block * depth_.block;
    const std::int64_t end = std::min(begin + depth_.block, depth_.elements);
    if (depth_.blocks == 1 && !inverses_.empty()) {
      std::copy_n(inverses_.begin() + first, count, inverses.begin());
    } else if (!scales_.empty()) {
      std::fill(most.begin(), most.end(), 0u);
      for (std::int64_t row = begin; row < end; ++row)
        most_.columns(at(row, first), count, most.data());
      for (std::int64_t i = 0; i < count; ++i)
        scales_at(block)[first + i] = scale_of(format_, most[i], &inverses[i]);
    }
    for (std::int64_t row = begin; row < end; row += per) {
      const void* rows[4];
      Random keys[4];
      for (int t = 0; t < per; ++t) {
        rows[t] = row + t < end ? at(row + t, first) : zeros.data();
        keys[t] = random(row + t, first);
      }
      encoder_.group(rows, count, inverses.data(), keys, groups.data());
      panels_.scatter(groups.data(), count, width, flip, width * depth_.groups,
                      panels + row / per * width);
    }
  }
}

}  // namespace oarlock::lowp

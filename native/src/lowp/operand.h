// One operand of a product: where its elements and scales are, and how it gets into panels.
#pragma once

#include <vector>

#include "core/tensors.h"
#include "lowp/kernels.h"
#include "lowp/options.h"
#include "lowp/scales.h"

namespace oarlock::lowp {

// Rows of op(a), or columns of op(b): `length` vectors along the reduction.
class Operand {
 public:
  // `codes`: whether x holds codes of the format with these scales, [blocks][length].
  Operand(const oarlock_tensor& x, bool codes, const float* scales, bool reduce_rows,
          const oarlock_lowp_format& format, std::uint64_t stream, const Depth& depth, Unit unit);

  std::int64_t length() const { return length_; }
  const float* scales() const {  // null for formats without
    return given_ ? given_ : scales_.empty() ? nullptr : scales_.data();
  }

  // Scales that no single vector tells: those of columns without blocks. Before `pack`.
  void find_scales(std::int32_t threads);

  // Writes vectors [first, first + count) as panels of `width`, depth.groups groups each, and their
  // scales. Missing vectors of the last panel are zero.
  void pack(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
            std::uint32_t* panels);

 private:
  void pack_rows(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
                 std::uint32_t* panels);
  void pack_columns(std::int64_t first, std::int64_t count, int width, std::uint32_t flip,
                    std::uint32_t* panels);
  const char* at(std::int64_t row, std::int64_t column) const {
    return data_ + (row * stored_columns_ + column) * size_;
  }
  Random random(std::int64_t row, std::int64_t column) const;
  float* scales_at(std::int64_t block) { return scales_.data() + block * length_; }

  const char* data_;
  std::int64_t size_, stored_columns_, length_;
  bool codes_, along_rows_;  // along_rows_: the reduction is contiguous in memory
  Format format_;
  Unit unit_;
  Depth depth_;
  bool stochastic_;
  std::uint64_t key_;
  const float* given_;
  std::vector<float> scales_, inverses_;
  Encoder encoder_;
  Most most_;
  const PanelKernels& panels_;
};

}  // namespace oarlock::lowp

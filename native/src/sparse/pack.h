// Packing of dense matrices into strips and tiles (see kernels.h), and of blocks into rows of strips.
#pragma once

#include <cstdint>

#include "sparse/kernels.h"

namespace oarlock::sparse {

struct View {
  float* data;
  std::int64_t rows, columns;  // contiguous
  float* row(std::int64_t i) const { return data + i * columns; }
};

inline std::int64_t strips_of(std::int64_t columns) { return (columns + kStrip - 1) / kStrip; }

// Rows [begin, end) of blocks [first, last) of `width` columns each, cut into strips of their own:
// strip s of block b begins at out + ((b - first) * strips_of(width) + s) * (end - begin) * kStrip.
void pack_strips(const View& x, std::int64_t begin, std::int64_t end, std::int64_t first,
                 std::int64_t last, std::int64_t width, float* out);

// A tile: rows [begin, end) of x, or of its transpose, and kTile columns from `column`; zeros past
// the last one.
void pack_tile(const View& x, bool transpose, std::int64_t begin, std::int64_t end,
               std::int64_t column, float* out);

// A tile of results back to rows [begin, end) and columns from `column` of x, or of its transpose.
void unpack_tile(const float* tile, const View& x, bool transpose, std::int64_t begin,
                 std::int64_t end, std::int64_t column);

// A block [rows, columns], or its transpose, with rows of `pitch` floats; zeros at their ends.
void pack_block(const float* block, std::int64_t rows, std::int64_t columns, bool transpose,
                std::int64_t pitch, float* out);

}  // namespace oarlock::sparse

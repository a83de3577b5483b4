// The kernels of sparse products: what a code path provides.
//
// Dense operands are packed first. A *strip* holds kStrip neighbouring columns of a matrix, row after
// row, so that a kernel reads whole cache lines one after the other wherever the matrix lies and
// however long its rows are; a *tile* holds kTile columns in the same way.
#pragma once

#include <stdint.h>

namespace oarlock::sparse {

constexpr int64_t kStrip = 16;
constexpr int64_t kTile = 128;

// A block of weights as the kernel reads it: `depth` rows, `pitch` floats apart.
struct BlockLayout {
  int64_t depth, pitch, size;  // size: floats from one block to the next
};

// One column of blocks: blocks[i] is multiplied by the strips of block row inner[i].
struct BlockColumn {
  const int32_t* inner;
  const int32_t* blocks;
  int64_t count;
};

// Products with matrices of dense blocks (blocks.kernel.cpp).
struct BlockKernels {
  // out[r][c] = sum over blocks and depth of x[r][depth] weights[depth][c], for `rows` rows and
  // `columns` <= kStrip columns. `strips` is x packed: strip s begins at strips + s * strip_size.
  void (*multiply)(const float* strips, int64_t strip_size, const BlockColumn& column,
                   const float* weights, const BlockLayout& layout, int64_t rows, float* out,
                   int64_t out_pitch, int64_t columns);
  // The same for 2 kStrip columns at once; null where that is not faster.
  void (*multiply_wide)(const float* strips, int64_t strip_size, const BlockColumn& column,
                        const float* weights, const BlockLayout& layout, int64_t rows, float* out,
                        int64_t out_pitch, int64_t columns);
  // out[i][j] (+)= sum over `length` rows of a[row][i] b[row][j], for i < rows <= kStrip and
  // j < columns <= kStrip; a and b are strips. `first`: out is overwritten.
  void (*sample)(const float* a, const float* b, int64_t length, bool first, int64_t rows,
                 float* out, int64_t out_pitch, int64_t columns);
};

// Entries of one row that fall into a tile.
struct Run {
  int32_t row, count;
};

// Products with single entries (entries.kernel.cpp). The entries of all runs follow each other:
// lines[i] is where in the tile the line of entry i begins. Runs come sorted by count, so that loops
// over them are foreseeable.
struct EntryKernels {
  // sums[run.row][:] += values[i] * tile[lines[i]...] over the entries of each run.
  void (*multiply)(const Run* runs, int64_t count, const int32_t* lines, const float* values,
                   const float* tile, float* sums);
  // sums[i] += a[run.row][:] . tile[lines[i]...].
  void (*sample)(const Run* runs, int64_t count, const int32_t* lines, const float* tile,
                 const float* a, float* sums);
  // Number of elements of x that are not 0.
  int64_t (*count)(const float* x, int64_t n);
  // ... and above `least` or NaN.
  int64_t (*count_above)(const float* x, int64_t n, float least);
  // Writes their positions and values if there are `count`; false if there are not.
  bool (*compress)(const float* x, int64_t n, int64_t count, int32_t* indices, float* values);
  // ... and the values less `least`.
  bool (*compress_above)(const float* x, int64_t n, float least, int64_t count, int32_t* indices,
                         float* values);
};

}  // namespace oarlock::sparse

#include "sparse/pack.h"

#include <algorithm>
#include <cstring>

namespace oarlock::sparse {
namespace {

void copy_padded(const float* from, std::int64_t count, std::int64_t width, float* to) {
  std::memcpy(to, from, sizeof(float) * count);
  std::fill(to + count, to + width, 0.0f);
}

// to[j * to_pitch + i] = from[i * from_pitch + j], in squares that stay in the first cache.
void transposed(const float* from, std::int64_t from_pitch, std::int64_t rows,
                std::int64_t columns, float* to, std::int64_t to_pitch) {
  constexpr std::int64_t kSquare = 16;
  for (std::int64_t i = 0; i < rows; i += kSquare)
    for (std::int64_t j = 0; j < columns; j += kSquare) {
      const std::int64_t last_i = std::min(rows, i + kSquare), last_j = std::min(columns, j + kSquare);
      for (std::int64_t b = j; b < last_j; ++b)
        for (std::int64_t a = i; a < last_i; ++a) to[b * to_pitch + a] = from[a * from_pitch + b];
    }
}

}  // namespace

void pack_strips(const View& x, std::int64_t begin, std::int64_t end, std::int64_t first,
                 std::int64_t last, std::int64_t width, float* out) {
  const std::int64_t size = (end - begin) * kStrip;
  for (std::int64_t row = begin; row < end; ++row, out += kStrip) {
    const float* from = x.row(row) + first * width;
    float* to = out;
    for (std::int64_t block = first; block < last; ++block)
      for (std::int64_t left = width; left > 0; left -= kStrip, to += size) {
        const std::int64_t count = std::min(left, kStrip);
        if (count == kStrip)
          std::memcpy(to, from, sizeof(float) * kStrip);
        else
          copy_padded(from, count, kStrip, to);
        from += count;
      }
  }
}

void pack_tile(const View& x, bool transpose, std::int64_t begin, std::int64_t end,
               std::int64_t column, float* out) {
  const std::int64_t count = std::min(kTile, (transpose ? x.rows : x.columns) - column);
  if (!transpose) {
    for (std::int64_t row = begin; row < end; ++row, out += kTile)
      copy_padded(x.row(row) + column, count, kTile, out);
    return;
  }
  if (count < kTile) std::fill(out, out + (end - begin) * kTile, 0.0f);
  transposed(x.row(column) + begin, x.columns, count, end - begin, out, kTile);
}

void unpack_tile(const float* tile, const View& x, bool transpose, std::int64_t begin,
                 std::int64_t end, std::int64_t column) {
  const std::int64_t count = std::min(kTile, (transpose ? x.rows : x.columns) - column);
  if (transpose) {
    transposed(tile, kTile, end - begin, count, x.row(column) + begin, x.columns);
    return;
  }
  for (std::int64_t row = begin; row < end; ++row, tile += kTile)
    std::memcpy(x.row(row) + column, tile, sizeof(float) * count);
}

void pack_block(const float* block, std::int64_t rows, std::int64_t columns, bool transpose,
                std::int64_t pitch, float* out) {
  if (!transpose) {
    for (std::int64_t row = 0; row < rows; ++row, out += pitch)
      copy_padded(block + row * columns, columns, pitch, out);
    return;
  }
  if (rows < pitch) std::fill(out, out + columns * pitch, 0.0f);
  transposed(block, columns, rows, columns, out, pitch);
}

}  // namespace oarlock::sparse

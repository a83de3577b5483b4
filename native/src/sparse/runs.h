// The entries of some rows of a sparse matrix, in the order in which kernels read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "sparse/arguments.h"

namespace oarlock::sparse {

constexpr std::uint32_t kDepth = 64;  // rows of a tile; it fills two thirds of a first cache

inline std::int64_t pieces_of(std::int64_t columns) { return (columns + kDepth - 1) / kDepth; }

// The entries of rows [begin, end) in the order in which kernels read them: by pieces of kDepth
// columns, and in a piece by runs, the short ones first.
class Runs {
 public:
  // Floats of the memory that it needs.
  static std::int64_t size(std::int64_t rows, std::int64_t entries, std::int64_t columns) {
    static_assert(sizeof(Run) == 2 * sizeof(float));
    return pieces_of(columns) * (2 * rows + 2 + pitch_of(rows)) + 1 + pitch_of(rows) + 2 * entries;
  }

  // With `values` those of the entries are kept, else their places.
  Runs(const Structure& s, const float* values, std::int64_t begin, std::int64_t end,
       std::int64_t columns, float* memory)
      : rows_(end - begin), pieces_(pieces_of(columns)), runs_(reinterpret_cast<Run*>(memory)) {
    counts_ = reinterpret_cast<std::int32_t*>(runs_ + pieces_ * rows_);
    first_ = counts_ + pieces_;
    // Where the entries of each piece end in each row, after a line of where rows begin. A store
    // for each entry and no branch: lengths of runs cannot be foreseen.
    const std::int64_t pitch = pitch_of(rows_);
    std::int32_t* const ends = first_ + pieces_ + 1;
    lines_ = ends + (pieces_ + 1) * pitch;
    places_ = lines_ + (s.pointers[end] - s.pointers[begin]);
    std::fill_n(ends, (pieces_ + 1) * pitch, 0);
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int32_t last = s.pointers[begin + row + 1];
      std::int32_t i = ends[row] = s.pointers[begin + row];
      for (; i < last; ++i) {
        const auto piece = static_cast<std::uint32_t>(s.indices[i]) / kDepth;
        ends[(piece + 1) * pitch + row] = i + 1;
      }
    }
    first_[0] = 0;
    for (std::int64_t piece = 0; piece < pieces_; ++piece)
      sort(s, values, ends + piece * pitch, ends + (piece + 1) * pitch, piece);
  }

  std::int64_t count(std::int64_t piece) const { return counts_[piece]; }
  const Run* runs(std::int64_t piece) const { return runs_ + piece * rows_; }
  std::int64_t first(std::int64_t piece) const { return first_[piece]; }  // of its entries
  std::int64_t entries() const { return first_[pieces_]; }
  const std::int32_t* lines() const { return lines_; }
  const std::int32_t* places() const { return places_; }  // of entries in the structure
  const float* values() const { return reinterpret_cast<const float*>(places_); }

 private:
  // Lines a power of two apart would meet in the same set of the cache.
  static std::int64_t pitch_of(std::int64_t rows) { return rows + 16; }

  void sort(const Structure& s, const float* values, const std::int32_t* from, std::int32_t* to,
            std::int64_t piece) {
    // Places of runs and of entries, by the length of the run; empty ones are left out.
    std::int32_t runs[kDepth + 2] = {}, entries[kDepth + 2] = {};
    for (std::int64_t row = 0; row < rows_; ++row) {
      to[row] = std::max(to[row], from[row]);
      ++runs[to[row] - from[row] + 1];
    }
    const std::int32_t empty = runs[1];
    entries[1] = first_[piece];
    for (std::int32_t length = 1; length <= std::int32_t{kDepth}; ++length) {
      entries[length + 1] = entries[length] + length * runs[length + 1];
      runs[length + 1] += runs[length];
    }
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int32_t length = to[row] - from[row];
      if (length == 0) continue;
      runs_[piece * rows_ + runs[length]++ - empty] = {static_cast<std::int32_t>(row), length};
      const std::int32_t next = entries[length], begin = from[row];
      entries[length] += length;
      for (std::int32_t i = 0; i < length; ++i) {
        const auto index = static_cast<std::uint32_t>(s.indices[begin + i]);
        lines_[next + i] = static_cast<std::int32_t>(index % kDepth * kTile);
        places_[next + i] = begin + i;
        if (values != nullptr) std::memcpy(places_ + next + i, values + begin + i, sizeof(float));
      }
    }
    counts_[piece] = static_cast<std::int32_t>(rows_ - empty);
    first_[piece + 1] = entries[kDepth + 1];
  }

  std::int64_t rows_, pieces_;
  Run* runs_;
  std::int32_t *counts_, *first_, *lines_, *places_;
};

// The most entries that `rows` neighbouring rows of a task have.
inline std::int64_t most_entries(const Structure& s, std::int64_t rows) {
  std::int64_t most = 0;
  for (std::int64_t begin = 0; begin < s.rows; begin += rows) {
    const std::int64_t end = std::min(s.rows, begin + rows);
    most = std::max<std::int64_t>(most, s.pointers[end] - s.pointers[begin]);
  }
  return most;
}

}  // namespace oarlock::sparse

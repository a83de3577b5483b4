#include "common/broadcast.h"

#include <array>
#include <cstddef>

#include "common/parallel.h"

namespace oarlock {
namespace {

constexpr std::int64_t kGrain = 1 << 15;  // elements worth waking a thread for
constexpr int kLanes = 32;
constexpr std::int64_t kColumns = 128;  // columns summed together: 4 to 8 vectors of floats
constexpr std::int64_t kRows = 256;     // rows per partial sum, to keep rounding errors small

void store(float value, float* to) { *to = value; }
void store(float value, Bf16* to) { *to = narrow(value); }

template <typename Op, typename Out>
OARLOCK_CLONES void of_vectors(const Bf16* x, const Bf16* y, Out* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(Op::of(widen(x[i]), widen(y[i])), out + i);
}

template <typename Op, typename Out>
OARLOCK_CLONES void of_vector_and_scalar(const Bf16* x, float y, Out* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(Op::of(widen(x[i]), y), out + i);
}

template <typename Op, typename Out>
OARLOCK_CLONES void of_scalar_and_vector(float x, const Bf16* y, Out* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(Op::of(x, widen(y[i])), out + i);
}

// A loop over dimensions: sizes and the strides of two operands, 0 where one repeats.
struct Loop {
  Dims sizes, x_strides, y_strides;
};

Dims aligned(const Dims& dims, std::size_t rank) {
  Dims result(rank - dims.size(), 1);
  result.insert(result.end(), dims.begin(), dims.end());
  return result;
}

Dims strides_of(const Dims& dims) {
  Dims strides(dims.size());
  std::int64_t step = 1;
  for (std::size_t i = dims.size(); i-- > 0;) {
    strides[i] = dims[i] == 1 ? 0 : step;
    step *= dims[i];
  }
  return strides;
}

// Merges neighbouring dimensions that both operands walk through without a jump.
Loop merged(const Dims& sizes, const Dims& x_strides, const Dims& y_strides) {
  Loop loop;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 1) continue;
    if (!loop.sizes.empty() && loop.x_strides.back() == x_strides[i] * sizes[i] &&
        loop.y_strides.back() == y_strides[i] * sizes[i]) {
      loop.sizes.back() *= sizes[i];
      loop.x_strides.back() = x_strides[i];
      loop.y_strides.back() = y_strides[i];
    } else {
      loop.sizes.push_back(sizes[i]);
      loop.x_strides.push_back(x_strides[i]);
      loop.y_strides.push_back(y_strides[i]);
    }
  }
  if (loop.sizes.empty()) loop = {{1}, {0}, {0}};
  return loop;
}

std::int64_t product(const Dims& dims) {
  std::int64_t result = 1;
  for (const auto size : dims) result *= size;
  return result;
}

// Where element `index` of a loop over `sizes` lies.
std::int64_t offset(std::int64_t index, const Dims& sizes, const Dims& strides) {
  std::int64_t result = 0;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    result += index % sizes[i] * strides[i];
    index /= sizes[i];
  }
  return result;
}

// acc[j] += sum over `rows` of the elements from[offset(row) + j]
template <typename T>
OARLOCK_CLONES void add_rows(const T* from, const std::int64_t* offsets, std::int64_t rows,
                             std::int64_t columns, float* acc) {
  float part[kColumns] = {};
  if (columns == kColumns) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* row = from + offsets[r];
      for (std::int64_t j = 0; j < kColumns; ++j) part[j] += widen(row[j]);
    }
  } else {
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* row = from + offsets[r];
      for (std::int64_t j = 0; j < columns; ++j) part[j] += widen(row[j]);
    }
  }
  for (std::int64_t j = 0; j < columns; ++j) acc[j] += part[j];
}

template <typename T>
OARLOCK_CLONES float sum_vector(const T* from, std::int64_t n) {
  float total = 0;
  while (n > 0) {
    const std::int64_t block = std::min(n, kRows * kLanes);
    float lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= block; i += kLanes)
      for (int k = 0; k < kLanes; ++k) lanes[k] += widen(from[i + k]);
    for (; i < block; ++i) lanes[i % kLanes] += widen(from[i]);
    float part = 0;
    for (int k = 0; k < kLanes; ++k) part += lanes[k];
    total += part;
    from += block;
    n -= block;
  }
  return total;
}

}  // namespace

OARLOCK_CLONES void widen_range(const Bf16* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

OARLOCK_CLONES void narrow_range(const float* from, Bf16* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = narrow(from[i]);
}

void widen_all(const Bf16* from, float* to, std::int64_t count) {
  parallel_ranges(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    widen_range(from + begin, to + begin, end - begin);
  });
}

void narrow_all(const float* from, Bf16* to, std::int64_t count) {
  parallel_ranges(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    narrow_range(from + begin, to + begin, end - begin);
  });
}

template <typename Op, typename Out>
void broadcast(const Bf16* x, const Dims& x_dims, const Bf16* y, const Dims& y_dims, Out* out,
               const Dims& out_dims) {
  const std::size_t rank = out_dims.size();
  const Loop loop = merged(out_dims, strides_of(aligned(x_dims, rank)),
                           strides_of(aligned(y_dims, rank)));
  const std::int64_t inner = loop.sizes.back();
  const std::int64_t x_step = loop.x_strides.back(), y_step = loop.y_strides.back();
  const Dims outer(loop.sizes.begin(), loop.sizes.end() - 1);
  parallel_ranges(product(out_dims), kGrain, [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const std::int64_t row = begin / inner, first = begin % inner;
      const std::int64_t n = std::min(inner - first, end - begin);
      const Bf16* from_x = x + offset(row, outer, loop.x_strides) + first * x_step;
      const Bf16* from_y = y + offset(row, outer, loop.y_strides) + first * y_step;
      if (y_step == 0) {
        of_vector_and_scalar<Op>(from_x, widen(*from_y), out + begin, n);
      } else if (x_step == 0) {
        of_scalar_and_vector<Op>(widen(*from_x), from_y, out + begin, n);
      } else {
        of_vectors<Op>(from_x, from_y, out + begin, n);
      }
      begin += n;
    }
  });
}

template <typename T>
void sum_to(const T* from, const Dims& from_dims, Bf16* to, const Dims& to_dims, float factor) {
  const std::size_t rank = from_dims.size();
  // Dimensions with a stride in `to` are kept, those with stride 0 are summed over.
  const Loop loop =
      merged(from_dims, strides_of(from_dims), strides_of(aligned(to_dims, rank)));
  Dims kept, kept_from, kept_to, summed, summed_from;
  for (std::size_t i = 0; i + 1 < loop.sizes.size(); ++i) {
    if (loop.y_strides[i] != 0) {
      kept.push_back(loop.sizes[i]);
      kept_from.push_back(loop.x_strides[i]);
      kept_to.push_back(loop.y_strides[i]);
    } else {
      summed.push_back(loop.sizes[i]);
      summed_from.push_back(loop.x_strides[i]);
    }
  }
  const std::int64_t inner = loop.sizes.back(), repeats = product(summed);
  if (loop.y_strides.back() == 0) {  // the last dimension is summed over
    parallel_ranges(product(kept), std::max<std::int64_t>(1, kGrain / (inner * repeats)),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t k = begin; k < end; ++k) {
                        const T* start = from + offset(k, kept, kept_from);
                        float total = 0;
                        for (std::int64_t r = 0; r < repeats; ++r)
                          total += sum_vector(start + offset(r, summed, summed_from), inner);
                        to[offset(k, kept, kept_to)] = narrow(total * factor);
                      }
                    });
    return;
  }
  const std::int64_t blocks = (inner + kColumns - 1) / kColumns;
  parallel_ranges(product(kept) * blocks, std::max<std::int64_t>(1, kGrain / (kColumns * repeats)),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t b = begin; b < end; ++b) {
                      const std::int64_t k = b / blocks, first = b % blocks * kColumns;
                      const std::int64_t columns = std::min(kColumns, inner - first);
                      const T* start = from + offset(k, kept, kept_from) + first;
                      float acc[kColumns] = {};
                      std::array<std::int64_t, kRows> offsets;
                      for (std::int64_t r = 0; r < repeats;) {
                        const std::int64_t rows = std::min(kRows, repeats - r);
                        for (std::int64_t i = 0; i < rows; ++i, ++r)
                          offsets[i] = offset(r, summed, summed_from);
                        add_rows(start, offsets.data(), rows, columns, acc);
                      }
                      Bf16* row = to + offset(k, kept, kept_to) + first;
                      for (std::int64_t j = 0; j < columns; ++j) row[j] = narrow(acc[j] * factor);
                    }
                  });
}

#define OARLOCK_BROADCAST(Op, Out)                                                            \
  template void broadcast<Op, Out>(const Bf16*, const Dims&, const Bf16*, const Dims&, Out*, \
                                   const Dims&);
OARLOCK_BROADCAST(Add, Bf16)
OARLOCK_BROADCAST(Subtract, Bf16)
OARLOCK_BROADCAST(Multiply, Bf16)
OARLOCK_BROADCAST(Multiply, float)

template void sum_to<Bf16>(const Bf16*, const Dims&, Bf16*, const Dims&, float);
template void sum_to<float>(const float*, const Dims&, Bf16*, const Dims&, float);

}  // namespace oarlock

// Sums over edges, and elementwise functions of rows; see edges_kernels.h.

#include "atoms/edges_kernels.h"
#include "atoms/edge_lanes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::Columns;
using atoms::Pairs;

// Vectors that go through registers together.
constexpr int kTogether = 4;

template <typename T>
void convolve(const T* features, const T* filters, const Pairs& pairs, const Columns& columns,
              T* out) {
  constexpr int kWidth = Lanes<T>::count;
  const int64_t pitch = columns.pitch;
  for (int64_t p = 0; p < pairs.count; ++p) {
    const int64_t i = pairs.first[p] * pitch, j = pairs.second[p] * pitch;
    const T* const filter = filters + p * columns.width;
    const bool both = p < pairs.both;
    int64_t f = columns.begin;
    // An atom that is its own neighbour is read after it was written.
    for (; f + kWidth <= columns.end; f += kWidth) {
      const Vector<T> w = get(filter + f), there = get(features + j + f);
      const Vector<T> here = get(features + i + f);
      put(out + i + f, multiply_add(w, there, get(out + i + f)));
      if (both) put(out + j + f, multiply_add(w, here, get(out + j + f)));
    }
    for (; f < columns.end; ++f) {
      out[i + f] += filter[f] * features[j + f];
      if (both) out[j + f] += filter[f] * features[i + f];
    }
  }
}

template <typename T>
void multiply(const T* a, const T* b, const Pairs& pairs, int64_t from, int64_t to,
              int64_t channels, int64_t width, T* out) {
  constexpr int kWidth = Lanes<T>::count;
  for (int64_t p = from; p < to; ++p) {
    const int64_t i = pairs.first[p] * channels * width, j = pairs.second[p] * channels * width;
    const bool both = p < pairs.both;
    T* const row = out + p * width;
    int64_t f = 0;
    for (; f + kWidth <= width; f += kWidth) {
      Vector<T> sum = {};
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = c * width + f;
        sum = multiply_add(get(a + i + at), get(b + j + at), sum);
        if (both) sum = multiply_add(get(a + j + at), get(b + i + at), sum);
      }
      put(row + f, sum);
    }
    for (; f < width; ++f) {
      T sum = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = c * width + f;
        sum += a[i + at] * b[j + at];
        if (both) sum += a[j + at] * b[i + at];
      }
      row[f] = sum;
    }
  }
}

template <typename T>
void scatter(const T* values, const int64_t* index, int64_t count, const Columns& columns, T* out) {
  constexpr int kWidth = Lanes<T>::count;
  for (int64_t e = 0; e < count; ++e) {
    const T* const from = values + e * columns.pitch;
    T* const to = out + index[e] * columns.pitch;
    int64_t f = columns.begin;
    for (; f + kWidth <= columns.end; f += kWidth) put(to + f, get(to + f) + get(from + f));
    for (; f < columns.end; ++f) to[f] += from[f];
  }
}

template <typename T>
void dot(const T* x, const T* y, int64_t rows, int64_t width, T* out) {
  constexpr int kWidth = Lanes<T>::count;
  for (int64_t e = 0; e < rows; ++e) {
    const T *const a = x + e * width, *const b = y + e * width;
    Vector<T> sum = {};
    int64_t f = 0;
    for (; f + kWidth <= width; f += kWidth) sum = multiply_add(get(a + f), get(b + f), sum);
    T result = total<T>(sum);
    for (; f < width; ++f) result += a[f] * b[f];
    out[e] = result;
  }
}

template <typename T>
void scale(const T* x, const T* s, int64_t rows, int64_t width, T* out) {
  for (int64_t e = 0; e < rows; ++e)
    for (int64_t f = 0; f < width; ++f) out[e * width + f] = x[e * width + f] * s[e];
}

template <typename T>
void sum(const T* x, int64_t rows, int64_t width, T* out) {
  constexpr int kWidth = Lanes<T>::count;
  int64_t f = 0;
  for (; f + kTogether * kWidth <= width; f += kTogether * kWidth) {
    Vector<T> sums[kTogether];
    for (int v = 0; v < kTogether; ++v) sums[v] = get(out + f + v * kWidth);
    for (int64_t e = 0; e < rows; ++e)
      for (int v = 0; v < kTogether; ++v) sums[v] += get(x + e * width + f + v * kWidth);
    for (int v = 0; v < kTogether; ++v) put(out + f + v * kWidth, sums[v]);
  }
  for (; f < width; ++f)
    for (int64_t e = 0; e < rows; ++e) out[f] += x[e * width + f];
}

template <typename T, int kOrder, bool kSilu>
void activate_rows(const T* x, const T* bias, const T* g, const T* h, int64_t rows, int64_t width,
                   T* out) {
  constexpr int kWidth = Lanes<T>::count;
  if (bias == nullptr) {  // the shape does not matter: no ends of rows
    width *= rows;
    rows = 1;
  }
  for (int64_t e = 0; e < rows; ++e)
    for (int64_t f = 0; f < width; f += kWidth) {
      const int64_t at = e * width + f, left = width - f;
      const bool whole = left >= kWidth;
      const auto read = [&](const T* p, int64_t i) {
        return whole ? get(p + i) : get_some<T>(p + i, left);
      };
      Vector<T> y = read(x, at);
      if (bias != nullptr) y += read(bias, f);
      y = activation<T, kOrder, kSilu>(y).at[kOrder];
      if (g != nullptr) y *= read(g, at);
      if (h != nullptr) y *= read(h, at);
      if (whole)
        put(out + at, y);
      else
        put_some<T>(out + at, y, left);
    }
}

template <typename T>
void activate(const T* x, const T* bias, const T* g, const T* h, int64_t rows, int64_t width,
              int32_t silu, int32_t order, T* out) {
  using Function = void (*)(const T*, const T*, const T*, const T*, int64_t, int64_t, T*);
  static constexpr Function functions[2][4] = {
      {activate_rows<T, 0, false>, activate_rows<T, 1, false>, activate_rows<T, 2, false>,
       activate_rows<T, 3, false>},
      {activate_rows<T, 0, true>, activate_rows<T, 1, true>, activate_rows<T, 2, true>,
       activate_rows<T, 3, true>}};
  functions[silu != 0][order](x, bias, g, h, rows, width, out);
}

template <typename T>
constexpr atoms::EdgeTable<T> table() {
  return {convolve<T>, multiply<T>, scatter<T>, dot<T>, scale<T>, sum<T>, activate<T>};
}

}  // namespace

extern const atoms::EdgeKernels edge_kernels;
const atoms::EdgeKernels edge_kernels = {table<float>(), table<double>()};

}  // namespace oarlock::OARLOCK_PATH

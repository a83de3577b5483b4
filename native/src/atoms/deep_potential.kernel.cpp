// What edges and atoms of a Deep Potential go through: environment rows, networks, sums over neighbours.

#include "atoms/deep_potential_networks.h"
#include "atoms/deep_potential_tables.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::Environment;
using atoms::Segment;

// s = w / r and its slope, with the switch w.
template <typename T>
struct Radial {
  vector<T> inverse, unit[3], s, slope;
};

template <typename T>
OARLOCK_ALWAYS_INLINE Radial<T> radial(const Environment<T>& of, const T* vectors) {
  Radial<T> found;
  const vector<T> x = load(vectors), y = load(vectors + kStrip), z = load(vectors + 2 * kStrip);
  const vector<T> one = fill(T(1)), zero = {};
  const vector<T> r = square_roots(multiply_add(x, x, multiply_add(y, y, z * z)));
  found.inverse = one / r;
  found.unit[0] = x * found.inverse;
  found.unit[1] = y * found.inverse;
  found.unit[2] = z * found.inverse;
  const T width = T(1) / (of.cutoff - of.smooth);
  vector<T> u = (r - fill(of.smooth)) * fill(width);
  u = u < zero ? zero : u;
  u = u > one ? one : u;
  const vector<T> square = u * u;
  const vector<T> w = multiply_add(square * u, (square * T(-6) + u * T(15)) - T(10), one);
  const vector<T> falls = square * ((square * T(-30) + u * T(60)) - T(30)) * fill(width);
  found.s = w * found.inverse;
  found.slope = (falls - found.s) * found.inverse;
  return found;
}

template <typename T>
void environment(const Environment<T>& of, const T* vectors, int64_t strips, T* rows) {
  for (int64_t strip = 0; strip < strips; ++strip, vectors += 3 * kStrip, rows += 4 * kStrip)
    for (int64_t i = 0; i < kStrip; i += lanes<T>) {
      const Radial<T> at = radial(of, vectors + i);
      store(rows + i, (at.s - fill(of.mean[0])) * fill(of.inverse_deviation[0]));
      for (int c = 1; c < 4; ++c)
        store(rows + c * kStrip + i,
              (at.s * at.unit[c - 1] - fill(of.mean[c])) * fill(of.inverse_deviation[c]));
    }
}

template <typename T>
void gradient(const Environment<T>& of, const T* vectors, const T* slopes, int64_t strips,
              T* gradients) {
  for (int64_t strip = 0; strip < strips;
       ++strip, vectors += 3 * kStrip, slopes += 4 * kStrip, gradients += 3 * kStrip)
    for (int64_t i = 0; i < kStrip; i += lanes<T>) {
      const Radial<T> at = radial(of, vectors + i);
      vector<T> q[4];
      for (int c = 0; c < 4; ++c) q[c] = load(slopes + c * kStrip + i) * fill(of.inverse_deviation[c]);
      const vector<T> along = q[1] * at.unit[0] + q[2] * at.unit[1] + q[3] * at.unit[2];
      const vector<T> across = at.s * at.inverse;
      const vector<T> radially = (q[0] + along) * at.slope - across * along;
      for (int c = 0; c < 3; ++c)
        store(gradients + c * kStrip + i, at.unit[c] * radially + across * q[c + 1]);
    }
}

// Of values and of derivatives by the number that the network began with.
template <typename T>
void activate_pairs(const LayerOf<T>& layer, const T* x, T* y) {
  for (int64_t n = 0; n < layer.outputs; ++n) {
    T* const row = y + n * kColumns;
    const T* const past = layer.repeats ? x + (n % layer.inputs) * kColumns : nullptr;
    const vector<T> time = fill(layer.timestep != nullptr ? layer.timestep[n] : T(1));
    for (int64_t i = 0; i < kStrip; i += lanes<T>) {
      vector<T> t = hyperbolic_tangent<T>(load(row + i));
      vector<T> d = load(row + kStrip + i) * time * (fill(T(1)) - t * t);
      t = t * time;
      if (past != nullptr) {
        t += load(past + i);
        d += load(past + kStrip + i);
      }
      store(row + i, t);
      store(row + kStrip + i, d);
    }
  }
}

template <typename T>
void fill_rows(const T* values, int64_t rows, int64_t filled, T* y) {
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t i = 0; i < kColumns; i += lanes<T>)
      store(y + n * kColumns + i, i < filled ? fill(values[n]) : vector<T>{});
}

template <typename T>
void embed(const NetworkOf<T>& network, const T* rows, int64_t strips, T* room, T* features) {
  int64_t widest = 1;
  for (int64_t l = 0; l < network.count; ++l)
    if (network.layers[l].outputs > widest) widest = network.layers[l].outputs;
  T* const rooms[2] = {room, room + widest * kColumns};
  const int64_t width = network.layers[network.count - 1].outputs;
  for (int64_t strip = 0; strip < strips; ++strip) {
    T* x = rooms[1];
    for (int64_t i = 0; i < kStrip; i += lanes<T>) {
      store(x + i, load(rows + strip * 4 * kStrip + i));
      store(x + kStrip + i, fill(T(1)));
    }
    for (int64_t l = 0; l < network.count; ++l) {
      const LayerOf<T>& layer = network.layers[l];
      T* const y = l + 1 < network.count ? rooms[l % 2] : features + strip * width * kColumns;
      fill_rows(layer.bias, layer.outputs, kStrip, y);
      multiply(layer.weight, layer.inputs, layer.outputs, x, y);
      activate_pairs(layer, x, y);
      x = y;
    }
  }
}

// Rows of the lanes of a segment, 0 in the others. Returns the first strip.
template <typename T>
int64_t masked(const T* rows, const Segment& segment, T* room) {
  const int64_t first = segment.begin / kStrip, past = (segment.end + kStrip - 1) / kStrip;
  for (int64_t i = 0; i < (past - first) * 4 * kStrip; i += lanes<T>)
    store(room + i, load(rows + first * 4 * kStrip + i));
  for (int c = 0; c < 4; ++c) {
    for (int64_t i = 0; i < segment.begin - first * kStrip; ++i) room[c * kStrip + i] = 0;
    T* const last = room + (past - 1 - first) * 4 * kStrip + c * kStrip;
    for (int64_t i = segment.end - (past - 1) * kStrip; i < kStrip; ++i) last[i] = 0;
  }
  return first;
}

template <typename T>
void contract(const T* features, const T* rows, int64_t width, const Segment& segment, T* room,
              T* sums) {
  constexpr int kTogether = lanes<T> < 4 ? 1 : lanes<T> / 4;  // features whose totals fill vectors
  const int64_t first = masked(rows, segment, room);
  const int64_t strips = (segment.end + kStrip - 1) / kStrip - first;
  const T* const begin = features + first * width * kColumns;
  int64_t k = 0;
  for (; k + kTogether <= width; k += kTogether) {
    vector<T> parts[4 * kTogether] = {};
    for (int64_t strip = 0; strip < strips; ++strip) {
      const T* const g = begin + (strip * width + k) * kColumns;
      const T* const row = room + strip * 4 * kStrip;
#pragma GCC unroll 4
      for (int64_t i = 0; i < kStrip; i += lanes<T>) {
        vector<T> r[4];
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) r[c] = load(row + c * kStrip + i);
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; ++j) {
          const vector<T> value = load(g + j * kColumns + i);
#pragma GCC unroll 4
          for (int c = 0; c < 4; ++c)
            parts[4 * j + c] = multiply_add(value, r[c], parts[4 * j + c]);
        }
      }
    }
#pragma GCC unroll 2
    for (int part = 0; part < 4 * kTogether; part += lanes<T>) {
      vector<T> own[lanes<T>];
#pragma GCC unroll 16
      for (int i = 0; i < lanes<T>; ++i) own[i] = parts[part + i];
      T* const sum = sums + 4 * k + part;
      store(sum, load(sum) + totals<T>(own));
    }
  }
  for (; k < width; ++k)
    for (int64_t strip = 0; strip < strips; ++strip)
      for (int c = 0; c < 4; ++c) {
        T sum = 0;
        for (int64_t i = 0; i < kStrip; ++i)
          sum += begin[(strip * width + k) * kColumns + i] * room[(strip * 4 + c) * kStrip + i];
        sums[4 * k + c] += sum;
      }
}

template <typename T>
void contract_back(const T* features, const T* rows, int64_t width, const Segment& segment,
                   const T* given, T* room, T* slopes) {
  const int64_t first = masked(rows, segment, room);
  const int64_t strips = (segment.end + kStrip - 1) / kStrip - first;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t begin = segment.begin - (first + strip) * kStrip;
    const int64_t end = segment.end - (first + strip) * kStrip;
    for (int64_t i = 0; i < kStrip; i += lanes<T>) {
      const T* g = features + (first + strip) * width * kColumns + i;
      vector<T> by_row[4] = {}, by_feature[4] = {};
      const T* factor = given;
      for (int64_t k = 0; k < width; ++k, g += kColumns, factor += 4) {
        const vector<T> value = load(g), slope = load(g + kStrip);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
          by_row[c] = multiply_add(value, fill(factor[c]), by_row[c]);
          by_feature[c] = multiply_add(slope, fill(factor[c]), by_feature[c]);
        }
      }
      const T* const row = room + strip * 4 * kStrip + i;
      for (int c = 0; c < 4; ++c)
        by_row[0] = multiply_add(load(row + c * kStrip), by_feature[c], by_row[0]);
      T* const out = slopes + (first + strip) * 4 * kStrip + i;
      for (int c = 0; c < 4; ++c) {
        vector<T> masked_out = by_row[c];
        for (int lane = 0; lane < lanes<T>; ++lane)
          if (i + lane < begin || i + lane >= end) masked_out[lane] = 0;
        store(out + c * kStrip, load(out + c * kStrip) + masked_out);
      }
    }
  }
}

template <typename T>
void describe(const T* sums, int64_t width, int64_t axis, T* products) {
  for (int64_t i = 0; i < width; ++i)
    for (int64_t column = 0; column < kBlock; column += lanes<T>) {
      vector<T> own[4];
      for (int c = 0; c < 4; ++c) own[c] = load(sums + (i * 4 + c) * kBlock + column);
      for (int64_t j = 0; j < axis; ++j) {
        vector<T> sum = {};
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c)
          sum = multiply_add(own[c], load(sums + (j * 4 + c) * kBlock + column), sum);
        store(products + (i * axis + j) * kBlock + column, sum);
      }
    }
}

template <typename T>
void describe_back(const T* slopes, const T* sums, int64_t width, int64_t axis, T* given) {
  for (int64_t i = 0; i < width; ++i)
    for (int64_t column = 0; column < kBlock; column += lanes<T>) {
      vector<T> parts[4] = {};
      for (int64_t j = 0; j < axis; ++j) {
        const vector<T> slope = load(slopes + (i * axis + j) * kBlock + column);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c)
          parts[c] = multiply_add(slope, load(sums + (j * 4 + c) * kBlock + column), parts[c]);
      }
      for (int c = 0; c < 4; ++c) store(given + (i * 4 + c) * kBlock + column, parts[c]);
    }
  for (int64_t j = 0; j < axis; ++j)
    for (int64_t column = 0; column < kBlock; column += lanes<T>) {
      vector<T> parts[4];
      for (int c = 0; c < 4; ++c) parts[c] = load(given + (j * 4 + c) * kBlock + column);
      for (int64_t i = 0; i < width; ++i) {
        const vector<T> slope = load(slopes + (i * axis + j) * kBlock + column);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c)
          parts[c] = multiply_add(slope, load(sums + (i * 4 + c) * kBlock + column), parts[c]);
      }
      for (int c = 0; c < 4; ++c) store(given + (j * 4 + c) * kBlock + column, parts[c]);
    }
}

// room: for each layer its tangents, then twice the widest layer; rows of kBlock.
template <typename T>
void fit(const NetworkOf<T>& network, T* descriptors, T* room, T* energies) {
  int64_t widest = 0, tangents = 0;
  for (int64_t l = 0; l < network.count; ++l) {
    tangents += network.layers[l].outputs;
    if (network.layers[l].outputs > widest) widest = network.layers[l].outputs;
  }
  T* const rooms[2] = {room + tangents * kBlock, room + (tangents + widest) * kBlock};
  T *x = descriptors, *kept = room;
  for (int64_t l = 0; l < network.count; ++l) {
    const LayerOf<T>& layer = network.layers[l];
    T* const y = rooms[l % 2];
    fill_rows(layer.bias, layer.outputs, kColumns, kept);
    multiply(layer.weight, layer.inputs, layer.outputs, x, kept);
    for (int64_t n = 0; n < layer.outputs; ++n) {
      const T* const past = layer.repeats ? x + (n % layer.inputs) * kBlock : nullptr;
      const vector<T> time = fill(layer.timestep != nullptr ? layer.timestep[n] : T(1));
      for (int64_t i = 0; i < kBlock; i += lanes<T>) {
        const vector<T> t = hyperbolic_tangent<T>(load(kept + n * kBlock + i));
        store(kept + n * kBlock + i, t);
        store(y + n * kBlock + i, past != nullptr ? t * time + load(past + i) : t * time);
      }
    }
    kept += layer.outputs * kBlock;
    x = y;
  }
  const int64_t width = network.layers[network.count - 1].outputs;
  T* g = rooms[network.count % 2];
  for (int64_t i = 0; i < kBlock; i += lanes<T>) {
    vector<T> sum = fill(network.last_bias);
    for (int64_t n = 0; n < width; ++n) {
      sum = multiply_add(fill(network.last[n]), load(x + n * kBlock + i), sum);
      store(g + n * kBlock + i, fill(network.last[n]));
    }
    store(energies + i, sum);
  }
  for (int64_t l = network.count - 1; l >= 0; --l) {
    const LayerOf<T>& layer = network.layers[l];
    kept -= layer.outputs * kBlock;
    for (int64_t n = 0; n < layer.outputs; ++n) {
      const vector<T> time = fill(layer.timestep != nullptr ? layer.timestep[n] : T(1));
      for (int64_t i = 0; i < kBlock; i += lanes<T>) {
        const vector<T> t = load(kept + n * kBlock + i);
        store(kept + n * kBlock + i, load(g + n * kBlock + i) * time * (fill(T(1)) - t * t));
      }
    }
    T* const into = l > 0 ? (g == rooms[0] ? rooms[1] : rooms[0]) : descriptors;
    for (int64_t k = 0; k < layer.inputs; ++k)
      for (int64_t i = 0; i < kBlock; i += lanes<T>) {
        vector<T> sum = {};
        for (int64_t part = 0; part < layer.repeats; ++part)
          sum += load(g + (part * layer.inputs + k) * kBlock + i);
        store(into + k * kBlock + i, sum);
      }
    multiply(layer.transposed, layer.outputs, layer.inputs, kept, into);
    g = into;
  }
}

template <typename T>
constexpr atoms::DeepPotentialKernels<T> kernels_of = {
    environment<T>,    gradient<T>,  embed<T>,         contract<T>, contract_back<T>, tabulated<T>,
    tabulated_back<T>, describe<T>,  describe_back<T>, fit<T>,
};

}  // namespace

extern const atoms::DeepPotentialKernels<float> deep_potential_floats;
extern const atoms::DeepPotentialKernels<double> deep_potential_doubles;
const atoms::DeepPotentialKernels<float> deep_potential_floats = kernels_of<float>;
const atoms::DeepPotentialKernels<double> deep_potential_doubles = kernels_of<double>;

}  // namespace oarlock::OARLOCK_PATH

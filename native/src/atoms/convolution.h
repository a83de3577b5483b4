// Convolutions in the frames of edges: out_i = Σ_j Dᵀ S(r) D h_j, its gradients and their gradients.
//
// S has one weight for each |m|, degree out, degree in and channel: a cubic spline over the length of
// the edge. Since S commutes with turns about the edge, all that moving an atom does is to change the
// length, and to turn the frame about its x and y (`torque`): the choice of the frame never shows.
//
// With ω the turn that a direction of the vectors makes, u = h' − ω·J h (h' the direction of h), dotted
// S the change of the weights, and ō the gradient by the result, all in the edge's frame,
//   out' = S u + Ṡ h + ω·J S h,
// and `second` has the gradients of ō · out' by h, the weights and the vector.
#pragma once

#include "atoms/convolution_kernels.h"
#include "atoms/features.h"
#include "atoms/turning.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::Convolution;

constexpr int kChunk = 32;  // edges whose sums are kept at once

constexpr int least(int a, int b) { return a < b ? a : b; }

// What a kernel needs of an edge.
template <typename T>
struct Edge {
  const T* frame;
  int64_t at, other, row;    // row: the first of four of the table
  T value[4], slope[4], curve[4];  // the weights of the rows, and their derivatives by the length
};

// Cubic B-splines with equal intervals; beyond the cut-off all is zero.
template <typename T>
OARLOCK_ALWAYS_INLINE void set_spline(const Convolution<T>& work, T length, Edge<T>& edge) {
  const T scale = T(work.intervals) / work.cutoff;
  const T place = length * scale;
  const bool inside = length < work.cutoff && int64_t(place) < work.intervals;
  edge.row = inside ? int64_t(place) : work.intervals - 1;
  const T one = inside ? T(1) : T(0);
  const T t = place - T(edge.row), s = 1 - t, by = one * scale, by2 = by * scale, sixth = one / 6;
  edge.value[0] = sixth * s * s * s;
  edge.value[1] = sixth * (4 + t * t * (3 * t - 6));
  edge.value[2] = sixth * (1 + t * (3 + t * (3 - 3 * t)));
  edge.value[3] = sixth * t * t * t;
  edge.slope[0] = by * T(-0.5) * s * s;
  edge.slope[1] = by * t * (T(1.5) * t - 2);
  edge.slope[2] = by * (T(0.5) + t - T(1.5) * t * t);
  edge.slope[3] = by * T(0.5) * t * t;
  edge.curve[0] = by2 * s;
  edge.curve[1] = by2 * (3 * t - 2);
  edge.curve[2] = by2 * (1 - 3 * t);
  edge.curve[3] = by2 * t;
}

template <typename T>
OARLOCK_ALWAYS_INLINE int set_edges(const Convolution<T>& work, int64_t begin, int64_t end, Edge<T>* edges) {
  int count = 0;
  for (int64_t i = begin; i < end; ++i, ++count) {
    Edge<T>& edge = edges[count];
    edge.at = work.edges.order ? work.edges.order[i] : i;
    edge.other = work.edges.other[edge.at];
    edge.frame = work.frames + edge.at * work.frame;
    set_spline(work, edge.frame[0], edge);
  }
  return count;
}

// Four rows of the table at one path and channel.
template <typename T>
struct Rows {
  Lanes<T> at[4];
  OARLOCK_ALWAYS_INLINE Lanes<T> mixed(const T* weights) const {
    Lanes<T> sum = every(weights[0]) * at[0];
    sum = multiply_add(every(weights[1]), at[1], sum);
    sum = multiply_add(every(weights[2]), at[2], sum);
    return multiply_add(every(weights[3]), at[3], sum);
  }
};

template <typename T>
OARLOCK_ALWAYS_INLINE Rows<T> load_rows(const T* table, int64_t pitch) {
  return {{load_lanes(table), load_lanes(table + pitch), load_lanes(table + 2 * pitch),
           load_lanes(table + 3 * pitch)}};
}

// out_i, by centre.
template <int In, int Out, typename T>
void forward(const Convolution<T>& work, int64_t begin, int64_t end) {
  constexpr int M = least(In, Out), kPaths = atoms::paths(In, Out);
  const int64_t channels = work.channels, pitch = kPaths * channels;
  Edge<T> edges[kChunk];
  for (int64_t atom = begin; atom < end; ++atom) {
    const int64_t first = work.edges.offsets[atom], last = work.edges.offsets[atom + 1];
    int64_t from = first;
    do {
      const int count = set_edges(work, from, from + kChunk < last ? from + kChunk : last, edges);
      for (int64_t c = 0; c < channels; c += kLanesOf<T>) {
        Lanes<T> sum[atoms::components(Out)] = {};
        if (from != first) load_features<Out, T>(work.out, atom, channels, c, sum);
        for (int k = 0; k < count; ++k) {
          const Edge<T>& edge = edges[k];
          Lanes<T> h[atoms::components(In)], x[atoms::components(In)], y[atoms::components(Out)];
          load_features<In, T>(work.in, edge.other, channels, c, h);
          turn_in<In, M>(edge.frame, h, x);
          const T* const table = work.table + edge.row * pitch + c;
#pragma GCC unroll 4
          for (int m = 0; m <= M; ++m) {
#pragma GCC unroll 4
            for (int lo = m; lo <= Out; ++lo) {
              Lanes<T> plus{}, minus{};
#pragma GCC unroll 4
              for (int li = m; li <= In; ++li) {
                const int at = atoms::path(In, Out, m, lo, li);
                const Lanes<T> w = load_rows(table + at * channels, pitch).mixed(edge.value);
                plus = multiply_add(w, x[component(li, m)], plus);
                if (m > 0) minus = multiply_add(w, x[component(li, -m)], minus);
              }
              y[component(lo, m)] = plus;
              if (m > 0) y[component(lo, -m)] = minus;
            }
          }
          turn_out<Out, M>(edge.frame, y, sum);
        }
        store_features<Out, T>(work.out, atom, channels, c, sum);
      }
      from += kChunk;
    } while (from < last);
  }
}

// Gradients by h_j, the vectors and the table, by neighbour.
template <int In, int Out, typename T>
void backward(const Convolution<T>& work, int64_t begin, int64_t end) {
  constexpr int M = least(In, Out), kPaths = atoms::paths(In, Out), kSeen = least(M + 1, Out);
  const int64_t channels = work.channels, pitch = kPaths * channels;
  Edge<T> edges[kChunk];
  for (int64_t atom = begin; atom < end; ++atom) {
    const int64_t first = work.edges.offsets[atom], last = work.edges.offsets[atom + 1];
    int64_t from = first;
    do {
      const int count = set_edges(work, from, from + kChunk < last ? from + kChunk : last, edges);
      Lanes<T> radial[kChunk] = {}, turn_x[kChunk] = {}, turn_y[kChunk] = {};
      for (int64_t c = 0; c < channels; c += kLanesOf<T>) {
        Lanes<T> sum[atoms::components(In)] = {}, h[atoms::components(In)];
        if (from != first) load_features<In, T>(work.in_slope, atom, channels, c, sum);
        load_features<In, T>(work.in, atom, channels, c, h);
        for (int k = 0; k < count; ++k) {
          const Edge<T>& edge = edges[k];
          Lanes<T> x[atoms::components(In)], y[atoms::components(Out)], o[atoms::components(Out)];
          Lanes<T> in_slope[atoms::components(In)] = {}, out_slope[atoms::components(Out)];
          load_features<Out, T>(work.out_slope, edge.other, channels, c, o);
          turn_in<In, M>(edge.frame, h, x);
          turn_in<Out, kSeen>(edge.frame, o, out_slope);
          const T* const table = work.table + edge.row * pitch + c;
          T* const table_slope = work.table_slope ? work.table_slope + edge.row * pitch + c : nullptr;
#pragma GCC unroll 4
          for (int m = 0; m <= M; ++m) {
#pragma GCC unroll 4
            for (int lo = m; lo <= Out; ++lo) {
              Lanes<T> plus{}, minus{};
#pragma GCC unroll 4
              for (int li = m; li <= In; ++li) {
                const int at = atoms::path(In, Out, m, lo, li);
                const Rows<T> rows = load_rows(table + at * channels, pitch);
                const Lanes<T> w = rows.mixed(edge.value);
                const int ip = component(li, m), op = component(lo, m);
                plus = multiply_add(w, x[ip], plus);
                in_slope[ip] = multiply_add(w, out_slope[op], in_slope[ip]);
                Lanes<T> by_weight = out_slope[op] * x[ip];
                if (m > 0) {
                  const int in = component(li, -m), on = component(lo, -m);
                  minus = multiply_add(w, x[in], minus);
                  in_slope[in] = multiply_add(w, out_slope[on], in_slope[in]);
                  by_weight = multiply_add(out_slope[on], x[in], by_weight);
                }
                radial[k] = multiply_add(rows.mixed(edge.slope), by_weight, radial[k]);
                if (table_slope != nullptr) {
#pragma GCC unroll 4
                  for (int row = 0; row < 4; ++row) {
                    T* const to = table_slope + row * pitch + at * channels;
                    store_as(to, multiply_add(every(edge.value[row]), by_weight, load_lanes(to)));
                  }
                }
              }
              y[component(lo, m)] = plus;
              if (m > 0) y[component(lo, -m)] = minus;
            }
          }
          Lanes<T> in_x{}, in_y{};
          torque<Out, kSeen, M, T>(out_slope, y, turn_x[k], turn_y[k]);
          torque<In, M, M, T>(in_slope, x, in_x, in_y);
          turn_x[k] -= in_x;
          turn_y[k] -= in_y;
          turn_out<In, M>(edge.frame, in_slope, sum);
        }
        store_features<In, T>(work.in_slope, atom, channels, c, sum);
      }
      for (int k = 0; k < count; ++k) {
        const T* const f = edges[k].frame;
        const T along = sum_of<T>(radial[k]);
        const T x = sum_of<T>(turn_y[k]) / f[0], y = -sum_of<T>(turn_x[k]) / f[0];
        // Rows of D¹ are the frame's y, z, x; its columns are y, z, x of the box.
        T* const to = work.vector_slope + edges[k].at * 3;
        to[0] = x * f[9] + y * f[3] + along * f[6];
        to[1] = x * f[7] + y * f[1] + along * f[4];
        to[2] = x * f[8] + y * f[2] + along * f[5];
      }
      from += kChunk;
    } while (from < last);
  }
}

// A direction of the vectors in the frame of an edge: how the length changes, and how the frame turns.
template <typename T>
struct Motion {
  T x, y, along, omega_x, omega_y;
  OARLOCK_ALWAYS_INLINE Motion(const T* f, const T* v) {
    x = f[9] * v[0] + f[7] * v[1] + f[8] * v[2];
    y = f[3] * v[0] + f[1] * v[1] + f[2] * v[2];
    along = f[6] * v[0] + f[4] * v[1] + f[5] * v[2];
    omega_x = -y / f[0];
    omega_y = x / f[0];
  }
};

// The direction of out_i that directions of h_j and of the vectors make, by centre.
template <int In, int Out, typename T>
void tangent(const Convolution<T>& work, int64_t begin, int64_t end) {
  constexpr int M = least(In, Out), kPaths = atoms::paths(In, Out), kSeen = least(M + 1, Out);
  const int64_t channels = work.channels, pitch = kPaths * channels;
  Edge<T> edges[kChunk];
  for (int64_t atom = begin; atom < end; ++atom) {
    const int64_t first = work.edges.offsets[atom], last = work.edges.offsets[atom + 1];
    int64_t from = first;
    do {
      const int count = set_edges(work, from, from + kChunk < last ? from + kChunk : last, edges);
      for (int64_t c = 0; c < channels; c += kLanesOf<T>) {
        Lanes<T> sum[atoms::components(Out)] = {};
        if (from != first) load_features<Out, T>(work.out, atom, channels, c, sum);
        for (int k = 0; k < count; ++k) {
          const Edge<T>& edge = edges[k];
          const Motion<T> motion(edge.frame, work.vector_tangent + edge.at * 3);
          Lanes<T> h[atoms::components(In)], x[atoms::components(In)], u[atoms::components(In)];
          Lanes<T> y[atoms::components(Out)], z[atoms::components(Out)] = {};
          load_features<In, T>(work.in, edge.other, channels, c, h);
          turn_in<In, In>(edge.frame, h, x);
          load_features<In, T>(work.in_tangent, edge.other, channels, c, h);
          turn_in<In, In>(edge.frame, h, u);
          add_turned<In, In, T>(-motion.omega_x, -motion.omega_y, x, u);
          const Lanes<T> along = every(motion.along);
          const T* const table = work.table + edge.row * pitch + c;
#pragma GCC unroll 4
          for (int m = 0; m <= M; ++m) {
#pragma GCC unroll 4
            for (int lo = m; lo <= Out; ++lo) {
              Lanes<T> plus{}, minus{}, moved_plus{}, moved_minus{};
#pragma GCC unroll 4
              for (int li = m; li <= In; ++li) {
                const int at = atoms::path(In, Out, m, lo, li);
                const Rows<T> rows = load_rows(table + at * channels, pitch);
                const Lanes<T> w = rows.mixed(edge.value), dw = along * rows.mixed(edge.slope);
                const int ip = component(li, m), in = component(li, -m);
                plus = multiply_add(w, x[ip], plus);
                moved_plus = multiply_add(w, u[ip], multiply_add(dw, x[ip], moved_plus));
                if (m > 0) {
                  minus = multiply_add(w, x[in], minus);
                  moved_minus = multiply_add(w, u[in], multiply_add(dw, x[in], moved_minus));
                }
              }
              y[component(lo, m)] = plus;
              z[component(lo, m)] = moved_plus;
              if (m > 0) y[component(lo, -m)] = minus;
              if (m > 0) z[component(lo, -m)] = moved_minus;
            }
          }
          add_turned<Out, M, T>(motion.omega_x, motion.omega_y, y, z);
          turn_out<Out, kSeen>(edge.frame, z, sum);
        }
        store_features<Out, T>(work.out, atom, channels, c, sum);
      }
      from += kChunk;
    } while (from < last);
  }
}

// Gradients of ō · out' by h_j, the vectors and the table, by neighbour.
template <int In, int Out, typename T>
void second(const Convolution<T>& work, int64_t begin, int64_t end) {
  constexpr int M = least(In, Out), kPaths = atoms::paths(In, Out);
  constexpr int kMoved = least(M + 1, Out), kSeen = least(M + 2, Out);
  const int64_t channels = work.channels, pitch = kPaths * channels;
  Edge<T> edges[kChunk];
  for (int64_t atom = begin; atom < end; ++atom) {
    const int64_t first = work.edges.offsets[atom], last = work.edges.offsets[atom + 1];
    int64_t from = first;
    do {
      const int count = set_edges(work, from, from + kChunk < last ? from + kChunk : last, edges);
      // By the length and by the turn: of ō · out, and of ō · out'.
      Lanes<T> radial[kChunk] = {}, radial2[kChunk] = {};
      Lanes<T> turn_x[kChunk] = {}, turn_y[kChunk] = {}, turn2_x[kChunk] = {}, turn2_y[kChunk] = {};
      for (int64_t c = 0; c < channels; c += kLanesOf<T>) {
        Lanes<T> sum[atoms::components(In)] = {}, h[atoms::components(In)], dh[atoms::components(In)];
        if (from != first) load_features<In, T>(work.in_slope, atom, channels, c, sum);
        load_features<In, T>(work.in, atom, channels, c, h);
        load_features<In, T>(work.in_tangent, atom, channels, c, dh);
        for (int k = 0; k < count; ++k) {
          const Edge<T>& edge = edges[k];
          const Motion<T> motion(edge.frame, work.vector_tangent + edge.at * 3);
          Lanes<T> x[atoms::components(In)], dx[atoms::components(In)], u[atoms::components(In)];
          Lanes<T> o[atoms::components(Out)], out_slope[atoms::components(Out)];
          Lanes<T> turned[atoms::components(Out)] = {};  // −ω·J ō
          Lanes<T> y[atoms::components(Out)], z[atoms::components(Out)] = {};
          Lanes<T> in_slope[atoms::components(In)] = {}, moved[atoms::components(In)] = {};
          load_features<Out, T>(work.out_slope, edge.other, channels, c, o);
          turn_in<Out, kSeen>(edge.frame, o, out_slope);
          turn_in<In, In>(edge.frame, h, x);
          turn_in<In, In>(edge.frame, dh, dx);
          for (int i = 0; i < atoms::components(In); ++i) u[i] = dx[i];
          add_turned<In, In, T>(-motion.omega_x, -motion.omega_y, x, u);
          add_turned<Out, kSeen, T>(-motion.omega_x, -motion.omega_y, out_slope, turned);
          const Lanes<T> along = every(motion.along);
          const T* const table = work.table + edge.row * pitch + c;
          T* const table_slope = work.table_slope ? work.table_slope + edge.row * pitch + c : nullptr;
          T mixed[4];
#pragma GCC unroll 4
          for (int row = 0; row < 4; ++row) mixed[row] = motion.along * edge.slope[row];
#pragma GCC unroll 4
          for (int m = 0; m <= M; ++m) {
#pragma GCC unroll 4
            for (int lo = m; lo <= Out; ++lo) {
              Lanes<T> plus{}, minus{}, moved_plus{}, moved_minus{};
#pragma GCC unroll 4
              for (int li = m; li <= In; ++li) {
                const int at = atoms::path(In, Out, m, lo, li);
                const Rows<T> rows = load_rows(table + at * channels, pitch);
                const Lanes<T> w = rows.mixed(edge.value), slope = rows.mixed(edge.slope);
                const Lanes<T> dw = along * slope;
                const int ip = component(li, m), op = component(lo, m);
                const int in = component(li, -m), on = component(lo, -m);
                plus = multiply_add(w, x[ip], plus);
                moved_plus = multiply_add(w, u[ip], multiply_add(dw, x[ip], moved_plus));
                in_slope[ip] = multiply_add(w, out_slope[op], in_slope[ip]);
                moved[ip] = multiply_add(w, turned[op], multiply_add(dw, out_slope[op], moved[ip]));
                Lanes<T> by_change = out_slope[op] * x[ip];
                Lanes<T> by_weight = multiply_add(out_slope[op], u[ip], turned[op] * x[ip]);
                if (m > 0) {
                  minus = multiply_add(w, x[in], minus);
                  moved_minus = multiply_add(w, u[in], multiply_add(dw, x[in], moved_minus));
                  in_slope[in] = multiply_add(w, out_slope[on], in_slope[in]);
                  moved[in] = multiply_add(w, turned[on], multiply_add(dw, out_slope[on], moved[in]));
                  by_change = multiply_add(out_slope[on], x[in], by_change);
                  by_weight = multiply_add(out_slope[on], u[in], by_weight);
                  by_weight = multiply_add(turned[on], x[in], by_weight);
                }
                radial[k] = multiply_add(slope, by_change, radial[k]);
                radial2[k] = multiply_add(slope, by_weight, radial2[k]);
                radial2[k] = multiply_add(along * rows.mixed(edge.curve), by_change, radial2[k]);
                if (table_slope != nullptr) {
#pragma GCC unroll 4
                  for (int row = 0; row < 4; ++row) {
                    T* const to = table_slope + row * pitch + at * channels;
                    const Lanes<T> part = multiply_add(every(mixed[row]), by_change, load_lanes(to));
                    store_as(to, multiply_add(every(edge.value[row]), by_weight, part));
                  }
                }
              }
              y[component(lo, m)] = plus;
              z[component(lo, m)] = moved_plus;
              if (m > 0) y[component(lo, -m)] = minus;
              if (m > 0) z[component(lo, -m)] = moved_minus;
            }
          }
          // Of in_slope the components |m| > M are zero.
          add_turned<Out, M, T>(motion.omega_x, motion.omega_y, y, z);
          add_turned<In, In, T>(motion.omega_x, motion.omega_y, in_slope, moved);
          Lanes<T> in_x{}, in_y{};
          torque<Out, kSeen, M, T>(out_slope, y, turn_x[k], turn_y[k]);
          torque<In, M, In, T>(in_slope, x, in_x, in_y);
          turn_x[k] -= in_x;
          turn_y[k] -= in_y;
          Lanes<T> in2_x{}, in2_y{};
          torque<Out, kSeen, kMoved, T>(out_slope, z, turn2_x[k], turn2_y[k]);
          torque<In, M, In, T>(in_slope, dx, in2_x, in2_y);
          torque<In, In, In, T>(moved, x, in2_x, in2_y);
          turn2_x[k] -= in2_x;
          turn2_y[k] -= in2_y;
          turn_out<In, In>(edge.frame, moved, sum);
        }
        store_features<In, T>(work.in_slope, atom, channels, c, sum);
      }
      for (int k = 0; k < count; ++k) {
        const T* const f = edges[k].frame;
        const Motion<T> motion(f, work.vector_tangent + edges[k].at * 3);
        const T slope = sum_of<T>(radial[k]);
        const T gx = sum_of<T>(turn_y[k]), gy = -sum_of<T>(turn_x[k]);
        const T near = 1 / f[0];
        const T along = sum_of<T>(radial2[k]) - (gx * motion.x + gy * motion.y) * near * near;
        const T x = (sum_of<T>(turn2_y[k]) - gx * motion.along * near + slope * motion.x) * near;
        const T y = (-sum_of<T>(turn2_x[k]) - gy * motion.along * near + slope * motion.y) * near;
        T* const to = work.vector_slope + edges[k].at * 3;
        to[0] = x * f[9] + y * f[3] + along * f[6];
        to[1] = x * f[7] + y * f[1] + along * f[4];
        to[2] = x * f[8] + y * f[2] + along * f[5];
      }
      from += kChunk;
    } while (from < last);
  }
}

#define OARLOCK_DEGREES(kernel, T)                                       \
  {{{nullptr, kernel<0, 1, T>, kernel<0, 2, T>, kernel<0, 3, T>},        \
    {nullptr, kernel<1, 1, T>, kernel<1, 2, T>, kernel<1, 3, T>},        \
    {nullptr, nullptr, kernel<2, 2, T>, kernel<2, 3, T>},                \
    {nullptr, nullptr, nullptr, kernel<3, 3, T>}}}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH

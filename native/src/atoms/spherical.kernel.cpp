// Frames of edges, rotations by them, and real spherical harmonics, of as many edges at once as a
// register has lanes.

#include "atoms/lanes.h"
#include "atoms/spherical_kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::component;
using atoms::components;
using atoms::entry;
using atoms::frame_size;
using atoms::kMaxDegree;

constexpr double square_root_of(double x) {
  if (x <= 0) return 0;
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 60; ++i) r = 0.5 * (r + x / r);
  return r;
}

constexpr int magnitude(int x) { return x < 0 ? -x : x; }

// Factors of the recursion of Ivanic and Ruedenberg (J. Phys. Chem. 1996, 100, 6342, and its erratum).
struct Recursion {
  double u[kMaxDegree + 1][9][9] = {}, v[kMaxDegree + 1][9][9] = {}, w[kMaxDegree + 1][9][9] = {};
  constexpr Recursion() {
    for (int l = 2; l <= kMaxDegree; ++l)
      for (int m = -l; m <= l; ++m)
        for (int n = -l; n <= l; ++n) {
          const double below = magnitude(n) < l ? (l + n) * (l - n) : 2 * l * (2 * l - 1);
          const int size = magnitude(m), zero = m == 0;
          u[l][m + l][n + l] = square_root_of((l + m) * (l - m) / below);
          v[l][m + l][n + l] = 0.5 * square_root_of((1 + zero) * (l + size - 1) * (l + size) / below) *
                               (1 - 2 * zero);
          w[l][m + l][n + l] =
              zero ? 0 : -0.5 * square_root_of((l - size - 1) * (l - size) / below);
        }
  }
};
constexpr Recursion kRecursion;
constexpr double kRootTwo = square_root_of(2);

template <typename T>
struct Matrices {
  const Lanes<T>* d;
  OARLOCK_ALWAYS_INLINE Lanes<T> operator()(int l, int m, int n) const { return d[entry(l, m, n)]; }
  // Row i of D¹ with row m of D^(l − 1), to column n of D^l.
  OARLOCK_ALWAYS_INLINE Lanes<T> product(int l, int i, int m, int n) const {
    const Matrices& at = *this;
    if (n == l) return at(1, i, 1) * at(l - 1, m, l - 1) - at(1, i, -1) * at(l - 1, m, 1 - l);
    if (n == -l) return at(1, i, 1) * at(l - 1, m, 1 - l) + at(1, i, -1) * at(l - 1, m, l - 1);
    return at(1, i, 0) * at(l - 1, m, n);
  }
};

template <typename T>
void set_matrix(int l, Lanes<T>* d) {
  const Matrices<T> at{d};
  for (int m = -l; m <= l; ++m)
    for (int n = -l; n <= l; ++n) {
      const T u = T(kRecursion.u[l][m + l][n + l]), v = T(kRecursion.v[l][m + l][n + l]);
      const T w = T(kRecursion.w[l][m + l][n + l]);
      Lanes<T> sum{};
      if (u != 0) sum = every(u) * at.product(l, 0, m, n);
      if (m == 0) {
        sum += every(v) * (at.product(l, 1, 1, n) + at.product(l, -1, -1, n));
      } else if (m == 1) {
        sum += every(v * T(kRootTwo)) * at.product(l, 1, 0, n);
      } else if (m == -1) {
        sum += every(v * T(kRootTwo)) * at.product(l, -1, 0, n);
      } else if (m > 0) {
        sum += every(v) * (at.product(l, 1, m - 1, n) - at.product(l, -1, 1 - m, n));
      } else {
        sum += every(v) * (at.product(l, 1, m + 1, n) + at.product(l, -1, -m - 1, n));
      }
      if (w != 0 && m > 0) sum += every(w) * (at.product(l, 1, m + 1, n) + at.product(l, -1, -m - 1, n));
      if (w != 0 && m < 0) sum += every(w) * (at.product(l, 1, m - 1, n) - at.product(l, -1, 1 - m, n));
      d[entry(l, m, n)] = sum;
    }
}

// The vectors of up to as many edges as there are lanes; lanes beyond the last get (0, 0, 1).
template <typename T>
OARLOCK_ALWAYS_INLINE int load_vectors(const T* vectors, int64_t begin, int64_t end, Lanes<T>* r) {
  const int count = end - begin < kLanesOf<T> ? int(end - begin) : kLanesOf<T>;
  r[0] = r[1] = Lanes<T>{};
  r[2] = every(T(1));
  for (int i = 0; i < count; ++i)
    for (int axis = 0; axis < 3; ++axis) r[axis][i] = vectors[(begin + i) * 3 + axis];
  return count;
}

template <typename T>
OARLOCK_ALWAYS_INLINE Lanes<T> roots(Lanes<T> x) {
  for (int i = 0; i < kLanesOf<T>; ++i) x[i] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(x[i]))) : T(__builtin_sqrt(double(x[i])));
  return x;
}

template <typename T>
void frames(const T* vectors, int degree, T* out, int64_t begin, int64_t end) {
  const int size = frame_size(degree);
  for (int64_t edge = begin; edge < end; edge += kLanesOf<T>) {
    Lanes<T> d[frame_size(kMaxDegree)], r[3];
    const int count = load_vectors(vectors, edge, end, r);
    d[0] = roots<T>(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
    const Lanes<T> x = r[0] / d[0], y = r[1] / d[0], z = r[2] / d[0];
    // Two axes that no direction makes inaccurate: Duff et al., JCGT 6 (2017).
    Lanes<T> sign{};
    for (int i = 0; i < kLanesOf<T>; ++i) sign[i] = z[i] < 0 ? T(-1) : T(1);
    const Lanes<T> a = -every(T(1)) / (sign + z), b = x * y * a;
    // Rows y, z, x; columns y, z, x.
    d[entry(1, 1, 1)] = every(T(1)) + sign * x * x * a;
    d[entry(1, 1, -1)] = sign * b;
    d[entry(1, 1, 0)] = -sign * x;
    d[entry(1, -1, 1)] = b;
    d[entry(1, -1, -1)] = sign + y * y * a;
    d[entry(1, -1, 0)] = -y;
    d[entry(1, 0, 1)] = x;
    d[entry(1, 0, -1)] = y;
    d[entry(1, 0, 0)] = z;
    for (int l = 2; l <= degree; ++l) set_matrix<T>(l, d);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < size; ++k) out[(edge + i) * size + k] = d[k][i];
  }
}

template <typename T>
void rotate(const T* frames, int degree, bool inverse, const T* x, int64_t channels, T* out,
            int64_t begin, int64_t end) {
  const int size = frame_size(degree), rows = components(degree);
  for (int64_t edge = begin; edge < end; ++edge) {
    const T* const d = frames + edge * size;
    const T* const from = x + edge * rows * channels;
    T* const to = out + edge * rows * channels;
    for (int64_t c = 0; c < channels; ++c) to[c] = from[c];
    for (int l = 1; l <= degree; ++l)
      for (int m = -l; m <= l; ++m) {
        T* const sum = to + component(l, m) * channels;
        for (int64_t c = 0; c < channels; ++c) sum[c] = 0;
        for (int n = -l; n <= l; ++n) {
          const T factor = inverse ? d[entry(l, n, m)] : d[entry(l, m, n)];
          const T* const part = from + component(l, n) * channels;
          for (int64_t c = 0; c < channels; ++c) sum[c] += factor * part[c];
        }
      }
  }
}

// A number with its first and second derivatives by x, y, z.
template <typename T, bool kDerivatives>
struct Jet {
  Lanes<T> value{}, slope[kDerivatives ? 3 : 1] = {}, curve[kDerivatives ? 6 : 1] = {};
};

constexpr int kRow[6] = {0, 1, 2, 0, 0, 1}, kColumn[6] = {0, 1, 2, 1, 2, 2};

template <typename T, bool D>
Jet<T, D> operator*(const Jet<T, D>& a, const Jet<T, D>& b) {
  Jet<T, D> c;
  c.value = a.value * b.value;
  if (D) {
    for (int i = 0; i < 3; ++i) c.slope[i] = a.slope[i] * b.value + a.value * b.slope[i];
    for (int k = 0; k < 6; ++k)
      c.curve[k] = a.curve[k] * b.value + a.value * b.curve[k] +
                   a.slope[kRow[k]] * b.slope[kColumn[k]] + a.slope[kColumn[k]] * b.slope[kRow[k]];
  }
  return c;
}

// a s + b t.
template <typename T, bool D>
Jet<T, D> mix(const Jet<T, D>& a, T s, const Jet<T, D>& b, T t) {
  Jet<T, D> c;
  c.value = a.value * every(s) + b.value * every(t);
  if (D) {
    for (int i = 0; i < 3; ++i) c.slope[i] = a.slope[i] * every(s) + b.slope[i] * every(t);
    for (int k = 0; k < 6; ++k) c.curve[k] = a.curve[k] * every(s) + b.curve[k] * every(t);
  }
  return c;
}

// The components of r / |r|.
template <typename T, bool D>
void directions(const Lanes<T>* r, Jet<T, D>* n) {
  const Lanes<T> near = every(T(1)) / roots<T>(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  for (int axis = 0; axis < 3; ++axis) n[axis].value = r[axis] * near;
  if (!D) return;
  const Lanes<T> near2 = near * near;
  for (int axis = 0; axis < 3; ++axis) {
    const Lanes<T> own = n[axis].value;
    for (int i = 0; i < 3; ++i) n[axis].slope[i] = near * (every(T(i == axis)) - own * n[i].value);
    for (int k = 0; k < 6; ++k) {
      const int i = kRow[k], j = kColumn[k];
      n[axis].curve[k] = near2 * (every(T(3)) * own * n[i].value * n[j].value -
                                  every(T(i == axis)) * n[j].value - every(T(j == axis)) * n[i].value -
                                  every(T(i == j)) * own);
    }
  }
}

struct Norms {
  double at[kMaxDegree + 1][kMaxDegree + 1] = {};
  constexpr Norms() {
    for (int l = 0; l <= kMaxDegree; ++l)
      for (int m = 0; m <= l; ++m) {
        double ratio = m == 0 ? 1 : 2;
        for (int k = l - m + 1; k <= l + m; ++k) ratio /= k;
        at[l][m] = square_root_of(ratio);
      }
  }
};
constexpr Norms kNorms;

// Racah's harmonics by recursion over the degree, at each m the real and the imaginary part of (x + iy)^m.
template <typename T, bool D>
void set_harmonics(int degree, const Jet<T, D>* n, Jet<T, D>* y) {
  Jet<T, D> cosine, sine, none;
  cosine.value = every(T(1));
  T first = 1;  // (2m − 1)!!
  for (int m = 0; m <= degree; ++m) {
    Jet<T, D> before, now;
    now.value = every(first);
    for (int l = m; l <= degree; ++l) {
      const Jet<T, D> scaled = mix(now, T(kNorms.at[l][m]), none, T(0));
      y[component(l, m)] = scaled * cosine;
      if (m > 0) y[component(l, -m)] = scaled * sine;
      const T below = T(l + 1 - m);
      const Jet<T, D> next = mix(n[2] * now, T(2 * l + 1) / below, before, -T(l + m) / below);
      before = now;
      now = next;
    }
    const Jet<T, D> turned = mix(n[0] * cosine, T(1), n[1] * sine, T(-1));
    sine = mix(n[0] * sine, T(1), n[1] * cosine, T(1));
    cosine = turned;
    first *= T(2 * m + 1);
  }
}

template <typename T, bool D>
void harmonics_of(const T* vectors, int degree, T* values, T* gradients, T* hessians, int64_t begin,
                  int64_t end) {
  constexpr int kPlace[3][3] = {{0, 3, 4}, {3, 1, 5}, {4, 5, 2}};
  const int rows = components(degree);
  for (int64_t edge = begin; edge < end; edge += kLanesOf<T>) {
    Lanes<T> r[3];
    Jet<T, D> n[3], y[components(kMaxDegree)];
    const int count = load_vectors(vectors, edge, end, r);
    directions<T, D>(r, n);
    set_harmonics<T, D>(degree, n, y);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < rows; ++k) {
        const int64_t at = (edge + i) * rows + k;
        values[at] = y[k].value[i];
        if (!D) continue;
        for (int a = 0; a < 3; ++a) {
          if (gradients != nullptr) gradients[at * 3 + a] = y[k].slope[a][i];
          for (int b = 0; b < 3 && hessians != nullptr; ++b)
            hessians[(at * 3 + a) * 3 + b] = y[k].curve[kPlace[a][b]][i];
        }
      }
  }
}

template <typename T>
void harmonics(const T* vectors, int degree, T* values, T* gradients, T* hessians, int64_t begin,
               int64_t end) {
  if (gradients == nullptr && hessians == nullptr)
    harmonics_of<T, false>(vectors, degree, values, nullptr, nullptr, begin, end);
  else
    harmonics_of<T, true>(vectors, degree, values, gradients, hessians, begin, end);
}

}  // namespace

extern const atoms::SphericalKernels<float> spherical_kernels_float;
const atoms::SphericalKernels<float> spherical_kernels_float = {frames<float>, rotate<float>,
                                                                harmonics<float>};

extern const atoms::SphericalKernels<double> spherical_kernels_double;
const atoms::SphericalKernels<double> spherical_kernels_double = {frames<double>, rotate<double>,
                                                                  harmonics<double>};

}  // namespace oarlock::OARLOCK_PATH

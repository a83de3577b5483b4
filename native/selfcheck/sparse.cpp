// The sparse kernels against scalar code in double precision.

#include <algorithm>

#include "check.h"
#include "sparse/options.h"

extern "C" {
std::int32_t oarlock_sparse_bsr_matmul(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_sparse_options*,
                                       std::int32_t);
std::int32_t oarlock_sparse_bsr_sample(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, std::int32_t);
std::int32_t oarlock_sparse_csr_matmul(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_sparse_options*,
                                       std::int32_t);
std::int32_t oarlock_sparse_csr_sample(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_sparse_options*,
                                       std::int32_t);
}

namespace {

using namespace selfcheck;
using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

constexpr double kTolerance = 2e-5;

// Every entry whose number is no multiple of three.
struct Structure {
  Ints pointers{0}, indices;
  Structure(std::int64_t rows, std::int64_t columns) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column)
        if ((row * columns + column) % 3 != 0) indices.push_back(static_cast<std::int32_t>(column));
      pointers.push_back(static_cast<std::int32_t>(indices.size()));
    }
  }
  std::int64_t size() const { return static_cast<std::int64_t>(indices.size()); }
};

void blocks() {
  constexpr std::int64_t M = 37, k = 18, n = 20, down = 3, across = 5;
  constexpr std::int64_t K = down * k, N = across * n;
  Structure s(down, across);
  Floats x = numbers(M * K, 1), dy = numbers(M * N, 2), w = numbers(s.size() * k * n, 3);
  std::vector<double> dense(K * N);
  for (std::int64_t i = 0; i < down; ++i)
    for (std::int32_t p = s.pointers[i]; p < s.pointers[i + 1]; ++p)
      for (std::int64_t a = 0; a < k; ++a)
        for (std::int64_t b = 0; b < n; ++b)
          dense[(i * k + a) * N + s.indices[p] * n + b] = w[(p * k + a) * n + b];
  const One pointers("pointers", s.pointers.data(), kInt32, {down + 1});
  const One indices("indices", s.indices.data(), kInt32, {s.size()});
  const One values("values", w.data(), oarlock::kFloat32, {s.size(), k, n});
  const One xs("x", x.data(), oarlock::kFloat32, {M, K});
  const One dys("dy", dy.data(), oarlock::kFloat32, {M, N});
  for (std::int32_t threads : {1, 3}) {
    Floats y(M * N), dx(M * K), dw(w.size());
    oarlock_sparse_options plain{}, transposed{};
    transposed.transpose = 1;
    require(oarlock_sparse_bsr_matmul(xs, pointers, indices, values,
                                      One("y", y.data(), oarlock::kFloat32, {M, N}), &plain,
                                      threads) == OARLOCK_OK, "bsr_matmul");
    require(oarlock_sparse_bsr_matmul(dys, pointers, indices, values,
                                      One("dx", dx.data(), oarlock::kFloat32, {M, K}), &transposed,
                                      threads) == OARLOCK_OK, "bsr_matmul, transposed");
    require(oarlock_sparse_bsr_sample(xs, dys, pointers, indices,
                                      One("dw", dw.data(), oarlock::kFloat32, {s.size(), k, n}),
                                      threads) == OARLOCK_OK, "bsr_sample");
    for (std::int64_t m = 0; m < M; ++m) {
      for (std::int64_t c = 0; c < N; ++c) {
        double sum = 0;
        for (std::int64_t r = 0; r < K; ++r) sum += x[m * K + r] * dense[r * N + c];
        close(y[m * N + c], sum, kTolerance, "bsr y");
      }
      for (std::int64_t r = 0; r < K; ++r) {
        double sum = 0;
        for (std::int64_t c = 0; c < N; ++c) sum += dy[m * N + c] * dense[r * N + c];
        close(dx[m * K + r], sum, kTolerance, "bsr dx");
      }
    }
    for (std::int64_t i = 0; i < down; ++i)
      for (std::int32_t p = s.pointers[i]; p < s.pointers[i + 1]; ++p)
        for (std::int64_t a = 0; a < k; ++a)
          for (std::int64_t b = 0; b < n; ++b) {
            double sum = 0;
            for (std::int64_t m = 0; m < M; ++m)
              sum += double{x[m * K + i * k + a]} * dy[m * N + s.indices[p] * n + b];
            close(dw[(p * k + a) * n + b], sum, kTolerance, "bsr dw");
          }
  }
}

void entries() {
  constexpr std::int64_t R = 41, C = 150, N = 133;
  Structure s(R, C);
  Floats values = numbers(s.size(), 1), dense = numbers(C * N, 2), a = numbers(R * N, 3);
  const One pointers("pointers", s.pointers.data(), kInt32, {R + 1});
  const One indices("indices", s.indices.data(), kInt32, {s.size()});
  const One given("values", values.data(), oarlock::kFloat32, {s.size()});
  const One factor("dense", dense.data(), oarlock::kFloat32, {C, N});
  const One left("a", a.data(), oarlock::kFloat32, {R, N});
  for (std::int32_t threads : {1, 3}) {
    Floats y(R * N), found(values.size());
    const oarlock_sparse_options plain{};
    require(oarlock_sparse_csr_matmul(pointers, indices, given, factor,
                                      One("y", y.data(), oarlock::kFloat32, {R, N}), &plain,
                                      threads) == OARLOCK_OK, "csr_matmul");
    require(oarlock_sparse_csr_sample(left, factor, pointers, indices,
                                      One("out", found.data(), oarlock::kFloat32, {s.size()}),
                                      &plain, threads) == OARLOCK_OK, "csr_sample");
    for (std::int64_t r = 0; r < R; ++r) {
      for (std::int64_t c = 0; c < N; ++c) {
        double sum = 0;
        for (std::int32_t p = s.pointers[r]; p < s.pointers[r + 1]; ++p)
          sum += double{values[p]} * dense[s.indices[p] * N + c];
        close(y[r * N + c], sum, kTolerance, "csr y");
      }
      for (std::int32_t p = s.pointers[r]; p < s.pointers[r + 1]; ++p) {
        double sum = 0;
        for (std::int64_t c = 0; c < N; ++c) sum += double{a[r * N + c]} * dense[s.indices[p] * N + c];
        close(found[p], sum, kTolerance, "csr sample");
      }
    }
  }
}

const Register kBlocks("sparse blocks", blocks);
const Register kEntries("sparse entries", entries);

}  // namespace

// Attention against scalar code in double precision, and the same bits for any number of threads.

#include <algorithm>
#include <limits>

#include "attention/options.h"
#include "check.h"

extern "C" {
std::int32_t oarlock_attention_forward(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_attention_options*, std::int32_t);
std::int32_t oarlock_attention_backward(const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_attention_options*, std::int32_t);
}

namespace {

using namespace selfcheck;
using Floats = std::vector<std::vector<float>>;

constexpr double kTolerance = 1e-5;

// One batch, one head: operands, results, and the bounds of a causal mask (rows from bounds[j] on do
// not see key j).
struct Problem {
  std::int64_t rows, keys, dim;
  Floats q, k, v, g, out, lse, q_grad, k_grad, v_grad;
  std::vector<std::int32_t> bounds;

  Problem(std::int64_t n, std::int64_t dim) : rows(n), keys(n), dim(dim) {
    auto seed = static_cast<std::uint32_t>(n + dim);
    for (Floats* one : {&q, &k, &v, &g, &out, &q_grad, &k_grad, &v_grad})
      one->push_back(numbers(n * dim, seed++));
    lse.push_back(std::vector<float>(n));
    for (std::int64_t j = 0; j < n; ++j)
      bounds.push_back(static_cast<std::int32_t>(std::min(n, (j / 100 + 1) * 100)));
  }

  void run(std::int32_t threads) {
    List<float> lists[] = {{"q", q},     {"k", k},           {"v", v},           {"out", out},
                           {"lse", lse}, {"out_grad", g},    {"q_grad", q_grad}, {"k_grad", k_grad},
                           {"v_grad", v_grad}};
    for (List<float>& list : lists) {
      oarlock_tensor& item = list.items()[0];
      const bool sums = &list == &lists[4];
      item.ndim = sums ? 3 : 4;
      const std::int64_t shape[] = {1, sums ? 1 : rows, sums ? rows : 1, dim};
      std::copy_n(shape, item.ndim, item.shape);
    }
    oarlock_tensor item{};
    item.data = bounds.data();
    item.count = keys;
    item.dtype = 0 << 8 | 32;
    item.device = OARLOCK_CPU;
    item.ndim = 4;
    item.flags = OARLOCK_CONTIGUOUS;
    const std::int64_t shape[] = {1, 1, keys, 1};
    std::copy_n(shape, 4, item.shape);
    const oarlock_tensors mask{"bounds", &item, 1};
    const oarlock_attention_options options{0.3, 1};
    require(oarlock_attention_forward(lists[0], lists[1], lists[2], lists[3], lists[4], &mask,
                                      &options, threads) == OARLOCK_OK,
            "attention forward");
    require(oarlock_attention_backward(lists[0], lists[1], lists[2], lists[3], lists[4], lists[5],
                                       lists[6], lists[7], lists[8], &mask, &options,
                                       threads) == OARLOCK_OK,
            "attention backward");
  }

  bool sees(std::int64_t i, std::int64_t j) const { return j <= i && i < bounds[j]; }

  double score(std::int64_t i, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t d = 0; d < dim; ++d) sum += 0.3 * q[0][i * dim + d] * k[0][j * dim + d];
    return sum;
  }

  void check() const {
    const std::int64_t size = rows * dim;
    std::vector<double> dk(size), dv(size);
    for (std::int64_t i = 0; i < rows; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j <= i; ++j) sum += sees(i, j) ? std::exp(score(i, j)) : 0;
      close(lse[0][i], std::log(sum), kTolerance, "attention lse");
      std::vector<double> right(dim), dq(dim);
      for (std::int64_t j = 0; j <= i; ++j)
        for (std::int64_t d = 0; sees(i, j) && d < dim; ++d)
          right[d] += std::exp(score(i, j)) / sum * v[0][j * dim + d];
      double delta = 0;
      for (std::int64_t d = 0; d < dim; ++d) {
        close(out[0][i * dim + d], right[d], kTolerance, "attention out");
        delta += right[d] * g[0][i * dim + d];
      }
      for (std::int64_t j = 0; j <= i; ++j) {
        if (!sees(i, j)) continue;
        const double p = std::exp(score(i, j)) / sum;
        double dp = 0;
        for (std::int64_t d = 0; d < dim; ++d) dp += g[0][i * dim + d] * v[0][j * dim + d];
        for (std::int64_t d = 0; d < dim; ++d) {
          dv[j * dim + d] += p * g[0][i * dim + d];
          dk[j * dim + d] += 0.3 * p * (dp - delta) * q[0][i * dim + d];
          dq[d] += 0.3 * p * (dp - delta) * k[0][j * dim + d];
        }
      }
      for (std::int64_t d = 0; d < dim; ++d)
        close(q_grad[0][i * dim + d], dq[d], kTolerance, "attention q_grad");
    }
    for (std::int64_t i = 0; i < size; ++i) {
      close(k_grad[0][i], dk[i], kTolerance, "attention k_grad");
      close(v_grad[0][i], dv[i], kTolerance, "attention v_grad");
    }
  }
};

void check_attention() {
  for (const std::int64_t rows : {1, 13, 96, 230})
    for (const std::int64_t dim : {3, 16, 40}) {
      Problem one(rows, dim), other(rows, dim);
      one.run(1);
      one.check();
      other.run(3);
      require(one.out == other.out && one.q_grad == other.q_grad && one.k_grad == other.k_grad &&
                  one.v_grad == other.v_grad,
              "attention: other bits on three threads");
    }
}

const Register registered("attention", check_attention);

}  // namespace

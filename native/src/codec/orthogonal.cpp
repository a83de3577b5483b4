#include "codec/orthogonal.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "core/random.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::GramKernels, codec_gram_kernels)

namespace oarlock::codec {
namespace {

constexpr std::int64_t kSquare = std::int64_t{kColumns} * kColumns;
constexpr std::int64_t kLeastRows = 1024, kMostParts = 64;  // of a task; sums that wait

// Below this share of its length a column's remainder has lost digits; then all is done once more.
constexpr double kAccurate = 1e-3;

struct Tall {
  float* a;
  std::int64_t rows;
  int columns;
  std::int32_t threads;

  // Rows of a task: of the sizes only.
  std::int64_t part() const {
    return std::max(kLeastRows, divided_up(divided_up(rows, kMostParts), 64) * 64);
  }
  template <typename Body>
  void for_parts(const Body& body) const {
    parallel_for(divided_up(rows, part()), threads, [&](std::int64_t task) {
      const std::int64_t begin = task * part();
      body(task, a + begin * columns, std::min(part(), rows - begin));
    });
  }
};

std::vector<double> gram_of(const Tall& tall) {
  const GramKernels& kernels = OARLOCK_KERNELS(codec_gram_kernels);
  std::vector<double> sums(divided_up(tall.rows, tall.part()) * kSquare);
  tall.for_parts([&](std::int64_t task, float* a, std::int64_t rows) {
    kernels.gram(a, rows, tall.columns, sums.data() + task * kSquare);
  });
  for (std::int64_t i = kSquare; i < static_cast<std::int64_t>(sums.size()); ++i)
    sums[i % kSquare] += sums[i];
  sums.resize(kSquare);
  return sums;
}

// R^T R = gram, R upper triangular.
struct Triangle {
  std::vector<double> R = std::vector<double>(kSquare), inverse = std::vector<double>(kColumns);
  std::vector<int> dependent;  // columns that have no remainder; their rows of R are 0
  double least = 1;            // share of its length that is left of a column
};

Triangle triangle_of(const std::vector<double>& gram, int columns, double eps) {
  Triangle t;
  for (int j = 0; j < columns; ++j) {
    double* const row = t.R.data() + j * kColumns;
    double rest = gram[j * kColumns + j];
    for (int i = 0; i < j; ++i) rest -= t.R[i * kColumns + j] * t.R[i * kColumns + j];
    const double length = gram[j * kColumns + j];
    if (!(rest > eps * eps * length)) {
      t.dependent.push_back(j);
      continue;
    }
    t.least = std::min(t.least, std::sqrt(rest / length));
    row[j] = std::sqrt(rest);
    t.inverse[j] = 1 / row[j];
    for (int k = j + 1; k < columns; ++k) {
      double product = gram[j * kColumns + k];
      for (int i = 0; i < j; ++i) product -= t.R[i * kColumns + j] * t.R[i * kColumns + k];
      row[k] = product * t.inverse[j];
    }
  }
  return t;
}

bool finite(const std::vector<double>& gram, int columns) {
  for (int j = 0; j < columns; ++j)
    if (!std::isfinite(gram[j * kColumns + j])) return false;
  return true;
}

// In [-1, 1).
float number(std::int64_t row, int column, int attempt) {
  const std::uint64_t key = mix(static_cast<std::uint64_t>(attempt) * kColumns + column);
  const auto bits = static_cast<std::int32_t>(mix(key ^ static_cast<std::uint64_t>(row)) >> 32);
  return static_cast<float>(bits >> 8) * 0x1p-23f;
}

void solve(const Tall& tall, const Triangle& t) {
  const GramKernels& kernels = OARLOCK_KERNELS(codec_gram_kernels);
  tall.for_parts([&](std::int64_t, float* a, std::int64_t rows) {
    kernels.solve(a, rows, tall.columns, t.R.data(), t.inverse.data());
  });
}

}  // namespace

void orthogonalise(float* a, std::int64_t rows, int columns, double eps, std::int32_t threads) {
  constexpr int kAttempts = 16;
  const Tall tall{a, rows, columns, threads};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::vector<double> gram = gram_of(tall);
    if (!finite(gram, columns)) {
      std::fill_n(a, rows * columns, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const Triangle t = triangle_of(gram, columns, eps);
    if (t.dependent.empty()) {
      solve(tall, t);
      if (t.least >= kAccurate) return;
      continue;
    }
    tall.for_parts([&](std::int64_t task, float* part, std::int64_t count) {
      for (std::int64_t row = 0; row < count; ++row)
        for (int column : t.dependent)
          part[row * columns + column] = number(task * tall.part() + row, column, attempt);
    });
  }
  throw std::logic_error("columns stay dependent");
}

}  // namespace oarlock::codec

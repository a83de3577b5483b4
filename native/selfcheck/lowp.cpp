// Products in low precision of numbers that every format holds, so that they are right to float32.

#include <algorithm>

#include "check.h"
#include "lowp/options.h"

extern "C" {
std::int32_t oarlock_lowp_matmul(const oarlock_tensors*, const oarlock_tensors*,
                                 const oarlock_tensors*, const oarlock_tensors*,
                                 const oarlock_tensors*, const oarlock_tensors*,
                                 const oarlock_lowp_matmul_options*, std::int32_t);
std::int32_t oarlock_lowp_hadamard(const oarlock_tensors*, const oarlock_tensors*, std::int64_t,
                                   std::int32_t);
std::int32_t oarlock_lowp_peak(std::int32_t, std::int64_t, double*);
}

namespace {

using namespace selfcheck;
using Matrix = std::vector<std::vector<float>>;

struct Format {
  const char* name;
  float largest;  // 8 for formats without scales
  bool scaled;
};

const Format kFormats[] = {{"fp32", 8, false},       {"bf16", 8, false},
                           {"fp16", 8, false},       {"int8", 127, true},
                           {"int16", 5792, true},    {"fp8_e4m3", 448, true},
                           {"fp8_e5m2", 57344, true}};

// Whole numbers up to 4, and the largest one first in every block of 32 along the reduction.
Matrix whole(std::int64_t rows, std::int64_t columns, bool along_rows, float largest,
             std::uint32_t seed) {
  std::vector<float> x = numbers(rows * columns, seed);
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    const std::int64_t along = along_rows ? i % columns : i / columns;
    x[i] = along % 32 == 0 ? largest : std::floor(x[i] * 4);
  }
  return {x};
}

template <typename L>
L& as_matrix(L& list, std::int64_t rows, std::int64_t columns) {
  oarlock_tensor& item = list.items()[0];
  item.ndim = 2;
  item.shape[0] = rows;
  item.shape[1] = columns;
  return list;
}

void product(int format, bool transpose_a, bool transpose_b, std::int64_t block) {
  const std::int64_t m = 31, k = 203, n = 45;
  const Format& f = kFormats[format];
  Matrix a = whole(transpose_a ? k : m, transpose_a ? m : k, !transpose_a, f.largest, 1);
  Matrix b = whole(transpose_b ? n : k, transpose_b ? k : n, transpose_b, f.largest, 2);
  const oarlock_lowp_format options{format, 0, 0, block, 0};
  for (const std::int32_t threads : {1, 3}) {
    Matrix out{std::vector<float>(m * n)};
    List left("a", a), right("b", b), result("out", out);
    const oarlock_lowp_matmul_options o{options, options, transpose_a, transpose_b, 0, 1};
    require(oarlock_lowp_matmul(as_matrix(left, transpose_a ? k : m, transpose_a ? m : k), nullptr,
                                as_matrix(right, transpose_b ? n : k, transpose_b ? k : n), nullptr,
                                nullptr, as_matrix(result, m, n), &o, threads) == OARLOCK_OK,
            std::string("matmul ") + f.name);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < k; ++l)
          sum += double{a[0][transpose_a ? l * m + i : i * k + l]} *
                 b[0][transpose_b ? j * k + l : l * n + j];
        close(out[0][i * n + j], sum, 1e-6, std::string("matmul ") + f.name);
      }
    same_bits(std::string("matmul ") + f.name + (transpose_a ? " ta" : "") +
                  (transpose_b ? " tb" : "") + (block ? " block" : ""), out);
  }
}

void products() {
  for (int format = 0; format < 7; ++format)
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        product(format, transpose_a, transpose_b, 0);
        if (kFormats[format].scaled) product(format, transpose_a, transpose_b, 32);
      }
}

void hadamard() {
  for (const std::int64_t block : {1, 2, 8, 64}) {
    Matrix x{numbers(5 * 128, 3)}, once{std::vector<float>(5 * 128)}, twice = once;
    List from("x", x), to("out", once), back("out", twice);
    for (List<float>* list : {&from, &to, &back}) as_matrix(*list, 5, 128);
    require(oarlock_lowp_hadamard(from, to, block, 2) == OARLOCK_OK, "hadamard");
    require(oarlock_lowp_hadamard(to, back, block, 1) == OARLOCK_OK, "hadamard");
    for (std::size_t i = 0; i < x[0].size(); ++i) close(twice[0][i], x[0][i], 1e-6, "hadamard");
    same_bits("hadamard " + std::to_string(block), once);
  }
}

void peak() {
  double operations = 0;
  require(oarlock_lowp_peak(3, 10, &operations) == OARLOCK_OK, "peak");
  require(operations > 0, "peak counts operations");
}

const Register kProducts("lowp products", products), kHadamard("lowp hadamard", hadamard),
    kPeak("lowp peak", peak);

}  // namespace

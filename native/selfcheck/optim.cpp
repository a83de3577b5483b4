// The optimisers' kernels against scalar code in double precision.

#include <algorithm>
#include <cstring>
#include <utility>

#include "check.h"
#include "optim/options.h"

extern "C" {
std::int32_t oarlock_optim_adamw(const oarlock_tensors*, const oarlock_tensors*,
                                 const oarlock_tensors*, const oarlock_tensors*,
                                 const oarlock_adamw_options*, std::int32_t);
std::int32_t oarlock_optim_lion(const oarlock_tensors*, const oarlock_tensors*,
                                const oarlock_tensors*, const oarlock_lion_options*, std::int32_t);
std::int32_t oarlock_optim_sgd(const oarlock_tensors*, const oarlock_tensors*,
                               const oarlock_tensors*, const oarlock_sgd_options*, std::int32_t);
std::int32_t oarlock_optim_lamb(const oarlock_tensors*, const oarlock_tensors*,
                                const oarlock_tensors*, const oarlock_tensors*,
                                const oarlock_lamb_options*, double*, std::int32_t);
std::int32_t oarlock_optim_sophia(const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_sophia_options*, std::int32_t);
std::int32_t oarlock_optim_sophia_hessian(const oarlock_tensors*, const oarlock_tensors*,
                                          const oarlock_sophia_hessian_options*, std::int32_t);
std::int32_t oarlock_optim_schedule_free_adamw(const oarlock_tensors*, const oarlock_tensors*,
                                               const oarlock_tensors*, const oarlock_tensors*,
                                               const oarlock_schedule_free_options*, std::int32_t);
std::int32_t oarlock_optim_lars(const oarlock_tensors*, const oarlock_tensors*,
                                const oarlock_tensors*, const oarlock_lars_options*, double*,
                                std::int32_t);
std::int32_t oarlock_optim_mars_adamw(const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_tensors*, const oarlock_mars_options*,
                                      std::int32_t);
std::int32_t oarlock_optim_adafactor(const oarlock_tensors*, const oarlock_tensors*,
                                     const oarlock_tensors*, const oarlock_tensors*,
                                     const oarlock_adafactor_options*, std::int32_t);
std::int32_t oarlock_optim_adam_mini(const oarlock_tensors*, const oarlock_tensors*,
                                     const oarlock_tensors*, const oarlock_tensors*,
                                     const oarlock_adamw_options*, std::int32_t);
std::int32_t oarlock_optim_squared_norm(const oarlock_tensors*, double*, std::int32_t);
std::int32_t oarlock_optim_row_column_mean_squares(const oarlock_tensors*, const oarlock_tensors*,
                                                   const oarlock_tensors*,
                                                   const oarlock_row_column_options*,
                                                   std::int32_t);
}

namespace {

using namespace selfcheck;
using Floats = std::vector<std::vector<float>>;
using Halves = std::vector<std::vector<std::uint16_t>>;

constexpr double kTolerance = 2e-6;
const std::vector<std::int64_t> kSizes = {0, 1, 3, 7, 16, 17, 63, 1000, 32769, 70001};

struct Problem {
  Floats p, g, m, v;
  Problem() {
    for (std::int64_t size : kSizes) {
      const auto seed = static_cast<std::uint32_t>(size);
      p.push_back(numbers(size, seed + 1));
      g.push_back(numbers(size, seed + 2));
      m.push_back(numbers(size, seed + 3));
      v.push_back(numbers(size, seed + 4));
      for (float& x : v.back()) x *= x;
    }
  }
  void same_bits(const std::string& kernel) const {
    selfcheck::same_bits(kernel + " p", p);
    selfcheck::same_bits(kernel + " m", m);
    selfcheck::same_bits(kernel + " v", v);
  }
};

template <typename Body>
void each(const Floats& lists, const Body& body) {
  for (std::size_t t = 0; t < lists.size(); ++t)
    for (std::size_t i = 0; i < lists[t].size(); ++i) body(t, i);
}

std::uint16_t nearest(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float widened(std::uint16_t x) {
  const std::uint32_t bits = std::uint32_t{x} << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

const oarlock_adamw_options kAdamw{0.01, 0.9, 0.99, 1e-8, 0.1, 0.5, 3, {0, 0}};

void adamw() {
  const Problem given;
  for (std::int32_t threads : {1, 2, 3}) {
    Problem x;
    require(oarlock_optim_adamw(List("p", x.p), List("g", x.g), List("m", x.m), List("v", x.v),
                                &kAdamw, threads) == OARLOCK_OK, "adamw");
    each(given.p, [&](std::size_t t, std::size_t i) {
      const double g = 0.5 * given.g[t][i], m = 0.9 * given.m[t][i] + 0.1 * g;
      const double v = 0.99 * given.v[t][i] + 0.01 * g * g;
      const double direction =
          m / (1 - std::pow(0.9, 3)) / (std::sqrt(v / (1 - std::pow(0.99, 3))) + 1e-8);
      close(x.m[t][i], m, kTolerance, "adamw m");
      close(x.v[t][i], v, kTolerance, "adamw v");
      close(x.p[t][i], given.p[t][i] * (1 - 0.01 * 0.1) - 0.01 * direction, kTolerance, "adamw p");
    });
    x.same_bits("adamw");
  }
}

// bfloat16 parameters: the float32 step on the same values, rounded; stochastic: a neighbour.
void adamw_bfloat16() {
  for (const bool stochastic : {false, true}) {
    Problem wide, narrow;
    Halves p, g;
    for (std::size_t t = 0; t < wide.p.size(); ++t) {
      p.emplace_back();
      g.emplace_back();
      for (float& x : wide.p[t]) p[t].push_back(nearest(x)), x = widened(p[t].back());
      for (float& x : wide.g[t]) g[t].push_back(nearest(x)), x = widened(g[t].back());
    }
    oarlock_adamw_options options = kAdamw;
    options.rounding = {42, stochastic};
    require(oarlock_optim_adamw(List("p", p), List("g", g), List("m", narrow.m),
                                List("v", narrow.v), &options, 2) == OARLOCK_OK, "adamw");
    require(oarlock_optim_adamw(List("p", wide.p), List("g", wide.g), List("m", wide.m),
                                List("v", wide.v), &kAdamw, 2) == OARLOCK_OK, "adamw");
    same_bits(stochastic ? "adamw bfloat16 at random" : "adamw bfloat16", p);
    std::int64_t moved = 0;
    each(wide.p, [&](std::size_t t, std::size_t i) {
      std::uint32_t bits;
      std::memcpy(&bits, &wide.p[t][i], 4);
      const bool neighbour = p[t][i] == bits >> 16 || p[t][i] == (bits >> 16) + 1;
      require(stochastic ? neighbour : p[t][i] == nearest(wide.p[t][i]), "bfloat16 p");
      moved += p[t][i] != nearest(wide.p[t][i]);
      require(narrow.m[t][i] == wide.m[t][i] && narrow.v[t][i] == wide.v[t][i], "bfloat16 state");
    });
    require(stochastic == (moved > 1000), "stochastic rounding differs from nearest");
  }
}

void lion() {
  const Problem given;
  Problem x;
  const oarlock_lion_options options{0.01, 0.9, 0.99, 0.1, 0.5, {0, 0}};
  require(oarlock_optim_lion(List("p", x.p), List("g", x.g), List("m", x.m), &options, 2) ==
              OARLOCK_OK, "lion");
  x.same_bits("lion");
  each(given.p, [&](std::size_t t, std::size_t i) {
    const double g = 0.5 * given.g[t][i], c = 0.9 * given.m[t][i] + 0.1 * g;
    close(x.m[t][i], 0.99 * given.m[t][i] + 0.01 * g, kTolerance, "lion m");
    if (std::abs(c) < 1e-6) return;  // the sign is a matter of rounding
    close(x.p[t][i], given.p[t][i] * (1 - 0.001) - 0.01 * (c > 0 ? 1 : -1), kTolerance, "lion p");
  });
}

void sgd() {
  const Problem given;
  for (const bool nesterov : {false, true}) {
    Problem x;
    const oarlock_sgd_options options{0.1, 0.9, 0.2, 0.1, 0.5, nesterov, {0, 0}};
    require(oarlock_optim_sgd(List("p", x.p), List("g", x.g), List("b", x.m), &options, 3) ==
                OARLOCK_OK, "sgd");
    x.same_bits(nesterov ? "sgd nesterov" : "sgd");
    each(given.p, [&](std::size_t t, std::size_t i) {
      const double g = 0.5 * given.g[t][i], b = 0.9 * given.m[t][i] + 0.8 * g;
      const double update = nesterov ? g + 0.9 * b : b;
      close(x.p[t][i], given.p[t][i] * 0.99 - 0.1 * update, kTolerance, "sgd p");
    });
  }
}

void lamb() {
  const Problem given;
  Problem x;
  const oarlock_lamb_options options{0.01, 0.9, 0.99, 1e-8, 0.1, 1.0, 0.0, 3, {0, 0}};
  std::vector<double> ratios(kSizes.size());
  require(oarlock_optim_lamb(List("p", x.p), List("g", x.g), List("m", x.m), List("v", x.v),
                             &options, ratios.data(), 2) == OARLOCK_OK, "lamb");
  x.same_bits("lamb");
  for (std::size_t t = 0; t < kSizes.size(); ++t) {
    double weight = 0, size = 0;
    std::vector<double> directions;
    for (std::size_t i = 0; i < given.p[t].size(); ++i) {
      const double g = given.g[t][i], m = 0.9 * given.m[t][i] + 0.1 * g;
      const double v = 0.99 * given.v[t][i] + 0.01 * g * g, p = given.p[t][i];
      const double direction =
          m / (1 - std::pow(0.9, 3)) / (std::sqrt(v / (1 - std::pow(0.99, 3))) + 1e-8) + 0.1 * p;
      directions.push_back(direction);
      weight += p * p;
      size += direction * direction;
    }
    const double ratio = weight > 0 && size > 0 ? std::sqrt(weight / size) : 1;
    close(ratios[t], ratio, 1e-5, "lamb ratio");
    for (std::size_t i = 0; i < directions.size(); ++i)
      close(x.p[t][i], given.p[t][i] - 0.01 * ratio * directions[i], 1e-5, "lamb p");
  }
}

void squared_norm() {
  Problem x;
  double wanted = 0, first = 0;
  each(x.p, [&](std::size_t t, std::size_t i) { wanted += double{x.p[t][i]} * x.p[t][i]; });
  for (std::int32_t threads : {1, 2, 3}) {
    double found = 0;
    require(oarlock_optim_squared_norm(List("p", x.p), &found, threads) == OARLOCK_OK, "norm");
    close(found, wanted, 1e-12, "squared norm");
    if (threads == 1) first = found;
    require(found == first, "squared norm for any number of threads");
    same_bits("squared norm", std::vector<std::vector<double>>{{found}});
  }
}

void row_column() {
  const std::int64_t height = 300, width = 517;
  Floats g{numbers(height * width, 1)}, rows{numbers(height, 2)}, columns{numbers(width, 3)};
  const Floats before_rows = rows, before_columns = columns;
  List grads("g", g);
  grads.items()[0].ndim = 2;
  grads.items()[0].shape[0] = height;
  grads.items()[0].shape[1] = width;
  const oarlock_row_column_options options{0.9, 1e-3, 0.5};
  require(oarlock_optim_row_column_mean_squares(grads, List("r", rows), List("c", columns),
                                                &options, 3) == OARLOCK_OK, "row_column");
  same_bits("row_column rows", rows);
  same_bits("row_column columns", columns);
  std::vector<double> by_row(height), by_column(width);
  for (std::int64_t i = 0; i < height * width; ++i) {
    const double square = 0.25 * g[0][i] * g[0][i];
    by_row[i / width] += square / width;
    by_column[i % width] += square / height;
  }
  for (std::int64_t i = 0; i < height; ++i)
    close(rows[0][i], 0.9 * before_rows[0][i] + 0.1 * (by_row[i] + 1e-3), kTolerance, "rows");
  for (std::int64_t i = 0; i < width; ++i)
    close(columns[0][i], 0.9 * before_columns[0][i] + 0.1 * (by_column[i] + 1e-3), kTolerance,
          "columns");
}

void sophia() {
  const Problem given;
  Problem x;
  const oarlock_sophia_options options{0.01, 0.9, 0.5, 1e-12, 0.1, 0.5, {0, 0}};
  require(oarlock_optim_sophia(List("p", x.p), List("g", x.g), List("m", x.m), List("h", x.v),
                               &options, 2) == OARLOCK_OK, "sophia");
  x.same_bits("sophia");
  each(given.p, [&](std::size_t t, std::size_t i) {
    const double m = 0.9 * given.m[t][i] + 0.05 * given.g[t][i];
    const double ratio = m / std::max(0.5 * given.v[t][i], 1e-12);
    close(x.m[t][i], m, kTolerance, "sophia m");
    const double clipped = std::min(1.0, std::max(-1.0, ratio));
    close(x.p[t][i], given.p[t][i] * 0.999 - 0.01 * clipped, kTolerance, "sophia p");
  });
  const oarlock_sophia_hessian_options average{0.9, 40.0, 0.5};
  require(oarlock_optim_sophia_hessian(List("g", x.g), List("h", x.v), &average, 3) == OARLOCK_OK,
          "sophia_hessian");
  x.same_bits("sophia_hessian");
  each(given.p, [&](std::size_t t, std::size_t i) {
    const double g = 0.5 * given.g[t][i];
    close(x.v[t][i], 0.9 * given.v[t][i] + 4.0 * g * g, kTolerance, "sophia h");
  });
}

void schedule_free_adamw() {
  const Problem given;
  Problem x;
  const oarlock_schedule_free_options options{0.01, 0.9, 0.99, 1e-8, 0.1, 0.3, 0.5, 3, {0, 0}};
  require(oarlock_optim_schedule_free_adamw(List("p", x.p), List("g", x.g), List("z", x.m),
                                            List("v", x.v), &options, 2) == OARLOCK_OK,
          "schedule_free_adamw");
  x.same_bits("schedule_free_adamw");
  each(given.p, [&](std::size_t t, std::size_t i) {
    const double g = 0.5 * given.g[t][i], v = 0.99 * given.v[t][i] + 0.01 * g * g;
    const double y = given.p[t][i], z = given.m[t][i];
    const double update = g / (std::sqrt(v / (1 - std::pow(0.99, 3))) + 1e-8) + 0.1 * y;
    close(x.p[t][i], y + 0.3 * (z - y) + 0.01 * (0.9 * 0.7 - 1) * update, kTolerance, "y");
    close(x.m[t][i], z - 0.01 * update, kTolerance, "z");
  });
}

void lars() {
  const Problem given;
  Problem x;
  const oarlock_lars_options options{0.1, 0.9, 0.1, 0.5, 1e-8, 0.5, 0, {0, 0}};
  std::vector<double> ratios(kSizes.size());
  require(oarlock_optim_lars(List("p", x.p), List("g", x.g), List("b", x.m), &options,
                             ratios.data(), 2) == OARLOCK_OK, "lars");
  x.same_bits("lars");
  for (std::size_t t = 0; t < kSizes.size(); ++t) {
    double weight = 0, grad = 0;
    for (float p : given.p[t]) weight += double{p} * p;
    for (float g : given.g[t]) grad += 0.25 * g * g;
    weight = std::sqrt(weight), grad = std::sqrt(grad);
    const double ratio =
        weight > 0 && grad > 0 ? 0.5 * weight / (grad + 0.1 * weight + 1e-8) : 1;
    close(ratios[t], ratio, kTolerance, "lars ratio");
    for (std::size_t i = 0; i < given.p[t].size(); ++i) {
      const double step = 0.1 * ratio * (0.5 * given.g[t][i] + 0.1 * given.p[t][i]);
      close(x.p[t][i], given.p[t][i] - (0.9 * given.m[t][i] + step), kTolerance, "lars p");
    }
  }
}

void mars_adamw() {
  const Problem given;
  Problem x;
  Floats previous = given.m;
  const oarlock_mars_options options{0.01, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.5, 2.0, 3, {0, 0}};
  require(oarlock_optim_mars_adamw(List("p", x.p), List("g", x.g), List("g'", previous),
                                   List("m", x.m), List("v", x.v), &options, 2) == OARLOCK_OK,
          "mars_adamw");
  x.same_bits("mars_adamw");
  for (std::size_t t = 0; t < kSizes.size(); ++t) {
    std::vector<double> corrected;
    double norm = 0;
    for (std::size_t i = 0; i < given.p[t].size(); ++i) {
      const double g = 0.5 * given.g[t][i];
      corrected.push_back(g + 0.1 * 0.9 / 0.1 * (g - given.m[t][i]));
      norm += corrected[i] * corrected[i];
      close(previous[t][i], g, kTolerance, "mars previous");
    }
    const double clip = norm > 4.0 ? 2.0 / std::sqrt(norm) : 1.0;
    for (std::size_t i = 0; i < given.p[t].size(); ++i) {
      const double c = clip * corrected[i], m = 0.9 * given.m[t][i] + 0.1 * c;
      const double v = 0.99 * given.v[t][i] + 0.01 * c * c;
      const double direction =
          m / (1 - std::pow(0.9, 3)) / (std::sqrt(v / (1 - std::pow(0.99, 3))) + 1e-8);
      close(x.p[t][i], given.p[t][i] * 0.999 - 0.01 * direction, kTolerance, "mars p");
    }
  }
}

// A matrix whose chunks begin and end inside rows.
void adafactor() {
  const std::int64_t height = 130, width = 517;
  Floats p{numbers(height * width, 1)}, g{numbers(height * width, 2)};
  Floats rows{numbers(height, 3)}, columns{numbers(width, 4)};
  for (float& x : rows[0]) x = x * x + 0.1f;
  for (float& x : columns[0]) x = x * x + 0.1f;
  rows[0][5] = columns[0][7] = 0;
  const Floats before = p;
  List params("p", p), grads("g", g);
  for (List<float>* list : {&params, &grads}) {
    list->items()[0].ndim = 2;
    list->items()[0].shape[0] = height;
    list->items()[0].shape[1] = width;
  }
  const oarlock_adafactor_options options{0.05, 1e-3, 0.1, 0.5, 1.0, 1, {0, 0}};
  require(oarlock_optim_adafactor(params, grads, List("r", rows), List("c", columns), &options,
                                  3) == OARLOCK_OK, "adafactor");
  same_bits("adafactor", p);
  double mean = 0, size = 0, square = 0;
  for (float x : rows[0]) mean += x / static_cast<double>(height);
  std::vector<double> updates(height * width);
  for (std::int64_t i = 0; i < height * width; ++i) {
    const double moment = double{rows[0][i / width]} * columns[0][i % width] / mean;
    updates[i] = moment > 0 ? 0.5 * g[0][i] / std::sqrt(moment) : 0;
    square += updates[i] * updates[i] / static_cast<double>(height * width);
    size += double{before[0][i]} * before[0][i] / static_cast<double>(height * width);
  }
  const double step = 0.05 * std::sqrt(size) / std::max(1.0, std::sqrt(square));
  for (std::int64_t i = 0; i < height * width; ++i)
    close(p[0][i], before[0][i] * (1 - 0.05 * 0.1) - step * updates[i], kTolerance, "adafactor p");
}

// Blocks within a chunk, and longer than one.
void adam_mini() {
  for (const std::int64_t count : {1, 9, 1400}) {
    const std::int64_t size = count == 1400 ? 50 : 70000 / count / 7 * 7;
    Floats p{numbers(count * size, 1)}, g{numbers(count * size, 2)}, m{numbers(count * size, 3)};
    Floats v{numbers(count, 4)};
    for (float& x : v[0]) x *= x;
    const Floats before_p = p, before_m = m, before_v = v;
    require(oarlock_optim_adam_mini(List("p", p), List("g", g), List("m", m), List("v", v), &kAdamw,
                                    3) == OARLOCK_OK, "adam_mini");
    for (const auto& [name, list] : {std::pair{" p", &p}, std::pair{" v", &v}})
      same_bits("adam_mini " + std::to_string(count) + name, *list);
    for (std::int64_t block = 0; block < count; ++block) {
      double mean = 0;
      for (std::int64_t i = block * size; i < (block + 1) * size; ++i)
        mean += 0.25 * g[0][i] * g[0][i] / static_cast<double>(size);
      const double average = 0.99 * before_v[0][block] + 0.01 * mean;
      close(v[0][block], average, kTolerance, "adam_mini v");
      const double denominator = std::sqrt(average / (1 - std::pow(0.99, 3))) + 1e-8;
      for (std::int64_t i = block * size; i < (block + 1) * size; ++i) {
        const double moment = 0.9 * before_m[0][i] + 0.05 * g[0][i];
        const double direction = moment / (1 - std::pow(0.9, 3)) / denominator;
        close(p[0][i], before_p[0][i] * 0.999 - 0.01 * direction, kTolerance, "adam_mini p");
      }
    }
  }
}

const Register kChecks[] = {
    {"adamw", adamw}, {"adamw bfloat16", adamw_bfloat16}, {"lion", lion},
    {"sgd", sgd},     {"lamb", lamb},                     {"squared_norm", squared_norm},
    {"row_column_mean_squares", row_column},
    {"sophia", sophia},
    {"schedule_free_adamw", schedule_free_adamw},
    {"lars", lars},   {"mars_adamw", mars_adamw},         {"adafactor", adafactor},
    {"adam_mini", adam_mini},
};

}  // namespace

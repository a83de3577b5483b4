// Entry points of the kernels whose second moments are shared by rows, columns or blocks.

#include <cmath>

#include "core/error.h"
#include "optim/arguments.h"
#include "optim/entry.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::Kernels, optim_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::optim::FactoredKernels, factored_kernels)

namespace oarlock::optim {
namespace {

// A float32 vector for the rows and one for the columns of every matrix.
void check_factors(const oarlock_tensors& matrices, const oarlock_tensors& rows,
                   const oarlock_tensors& columns, Access access) {
  for (const oarlock_tensors* list : {&rows, &columns}) {
    check_count(*list, matrices);
    check_dtype(*list, {kFloat32});
    check_memory(*list, access);
  }
  for (std::int64_t i = 0; i < matrices.count; ++i) {
    const oarlock_tensor& matrix = matrices.items[i];
    if (matrix.ndim != 2)
      throw BadArgument(item_name(matrices, i) + " has shape " + shape_text(matrix) +
                        "; it must be a matrix [rows, columns], so reshape it");
    for (const int axis : {0, 1}) {
      const oarlock_tensors& list = axis == 0 ? rows : columns;
      const oarlock_tensor& item = list.items[i];
      if (item.ndim == 1 && item.shape[0] == matrix.shape[axis]) continue;
      throw BadArgument(item_name(list, i) + " has shape " + shape_text(item) + ", but " +
                        item_name(matrices, i) + " of shape " + shape_text(matrix) + " needs [" +
                        std::to_string(matrix.shape[axis]) + "]");
    }
  }
}

// A float32 vector of blocks for every tensor, whose elements divide evenly into them.
void check_blocks(const oarlock_tensors& params, const oarlock_tensors& v) {
  check_count(v, params);
  check_dtype(v, {kFloat32});
  check_memory(v, Access::write);
  for (std::int64_t i = 0; i < v.count; ++i) {
    const oarlock_tensor &item = v.items[i], &param = params.items[i];
    if (item.ndim != 1)
      throw BadArgument(item_name(v, i) + " has shape " + shape_text(item) +
                        "; it must be a vector [blocks], so reshape it");
    if (param.count == 0 || (item.count > 0 && param.count % item.count == 0)) continue;
    throw BadArgument(item_name(v, i) + " has " + std::to_string(item.count) + " blocks, but the " +
                      std::to_string(param.count) + " elements of " + item_name(params, i) +
                      " do not divide evenly into them; pass a vector of as many blocks as do");
  }
}

// Factors whose product is 1 / sqrt(rows[i] columns[j] / mean(rows)), or 0 where a moment is 0.
// Each takes the fourth root of the mean: neither leaves the range of float32 then.
void invert_moments(const oarlock_tensor& rows, const oarlock_tensor& columns, double grad_scale,
                    float* row_factors, float* column_factors) {
  const auto* const row = static_cast<const float*>(rows.data);
  const auto* const column = static_cast<const float*>(columns.data);
  double mean = 0;
  for (std::int64_t i = 0; i < rows.count; ++i) mean += row[i];
  mean /= static_cast<double>(rows.count);
  const double root = std::sqrt(std::sqrt(mean));
  const auto invert = [&](double moment, double scale) {
    return moment == 0 ? 0.0f : static_cast<float>(scale * (root / std::sqrt(moment)));
  };
  for (std::int64_t i = 0; i < rows.count; ++i) row_factors[i] = invert(row[i], grad_scale);
  for (std::int64_t i = 0; i < columns.count; ++i) column_factors[i] = invert(column[i], 1.0);
}

// The larger one; NaN if either is.
double maximum(double a, double b) { return std::isnan(a) || a > b ? a : b; }

}  // namespace
}  // namespace oarlock::optim

using namespace oarlock;
using namespace oarlock::optim;

// rows[i] <- decay rows[i] + (1 - decay) (mean over columns of (scale g)^2 + eps), columns alike.
OARLOCK_API std::int32_t oarlock_optim_row_column_mean_squares(
    const oarlock_tensors* grads, const oarlock_tensors* rows, const oarlock_tensors* columns,
    const oarlock_row_column_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_dtype(*grads, {kFloat32, kBfloat16});
    check_memory(*grads, Access::read);
    check_factors(*grads, *rows, *columns, Access::write);
    check_overlap({{*grads, Access::read}, {*rows, Access::write}, {*columns, Access::write}});
    const FactoredKernels& kernels = OARLOCK_KERNELS(factored_kernels);
    const double keep = o->decay, take = 1 - o->decay;
    const auto blend = [&](float* slot, double mean) {
      *slot = static_cast<float>(keep * *slot + take * (mean + o->eps));
    };
    for (std::int64_t i = 0; i < grads->count; ++i) {
      const oarlock_tensor& grad = grads->items[i];
      const std::int64_t height = grad.shape[0], width = grad.shape[1];
      if (grad.count == 0) continue;
      // Blocks of rows, by the shape only; each sums its columns by itself.
      const std::int64_t most = std::min<std::int64_t>(64, (grad.count + kChunk - 1) / kChunk);
      const std::int64_t blocks = std::min(most, height);
      std::vector<double> partial(blocks * width);
      const std::int32_t team = grad.count < kChunk ? 1 : threads;
      parallel_for(blocks, team, [&](std::int64_t block) {
        double* const sums = partial.data() + block * width;
        for (std::int64_t row = height * block / blocks; row < height * (block + 1) / blocks;
             ++row) {
          const char* const data = static_cast<const char*>(grad.data) +
                                   row * width * item_size(grad.dtype);
          const double squares = kernels.row_squares[type_of(grad)](
              data, width, static_cast<float>(o->grad_scale), sums);
          blend(static_cast<float*>(rows->items[i].data) + row, squares / width);
        }
      });
      for (std::int64_t column = 0; column < width; ++column) {
        double sum = 0;
        for (std::int64_t block = 0; block < blocks; ++block)
          sum += partial[block * width + column];
        blend(static_cast<float*>(columns->items[i].data) + column, sum / height);
      }
    }
  });
}

// rows and columns hold the factored second moments of this step.
OARLOCK_API std::int32_t oarlock_optim_adafactor(
    const oarlock_tensors* params, const oarlock_tensors* grads, const oarlock_tensors* rows,
    const oarlock_tensors* columns, const oarlock_adafactor_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {});
    check_factors(*params, *rows, *columns, Access::read);
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*rows, Access::read},
                   {*columns, Access::read}});
    const auto squared_norm = OARLOCK_KERNELS(optim_kernels).squared_norm;
    const FactoredKernels& kernels = OARLOCK_KERNELS(factored_kernels);
    const Plan plan(*params);
    std::vector<std::vector<float>> factors(params->count);  // of rows, then of columns
    for (std::int64_t i = 0; i < params->count; ++i)
      if (params->items[i].count > 0)
        factors[i].resize(rows->items[i].count + columns->items[i].count);
    parallel_for(params->count, plan.threads(threads), [&](std::int64_t i) {
      if (factors[i].empty()) return;
      invert_moments(rows->items[i], columns->items[i], o->grad_scale, factors[i].data(),
                     factors[i].data() + rows->items[i].count);
    });

    // Calls body(first column, columns, factors of rows from the first row on, of columns).
    const auto with_factors = [&](const Chunk& c, const auto& body) {
      const std::int64_t width = params->items[c.tensor].shape[1];
      const float* const row = factors[c.tensor].data();
      return body(c.begin % width, width, row + c.begin / width,
                  row + rows->items[c.tensor].count);
    };
    const bool clips = o->clip_threshold > 0, relative = o->relative != 0;
    std::vector<double> squares(2 * plan.size());  // of the updates, of the parameters
    if (clips || relative)
      for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
        const oarlock_tensor &param = params->items[c.tensor], &grad = grads->items[c.tensor];
        if (clips)
          squares[2 * i] = with_factors(c, [&](auto... shape_and_factors) {
            return kernels.adafactor_squares[type_of(grad)](at(*grads, c), c.count,
                                                            shape_and_factors...);
          });
        if (relative) squares[2 * i + 1] = squared_norm[type_of(param)](at(*params, c), c.count);
      });
    std::vector<AdafactorScalars> scalars(params->count);
    for (std::int64_t tensor = 0; tensor < params->count; ++tensor) {
      const auto count = static_cast<double>(params->items[tensor].count);
      double step = o->lr;
      if (relative)
        step *= maximum(std::sqrt(tensor_sum(plan, tensor, squares.data() + 1, 2) / count),
                        o->eps_scale);
      if (clips)
        step /= maximum(std::sqrt(tensor_sum(plan, tensor, squares.data(), 2) / count) /
                            o->clip_threshold, 1.0);
      scalars[tensor] = {static_cast<float>(1 - o->lr * o->weight_decay), static_cast<float>(step)};
    }
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      with_factors(c, [&](auto... shape_and_factors) {
        kernels.adafactor[types_of(*params, *grads, c.tensor)](
            at(*params, c), at(*grads, c), c.count, shape_and_factors..., scalars[c.tensor],
            rounding(o->rounding, c));
      });
    });
  });
}

// v[i] has one element for each block of consecutive elements of tensor i.
OARLOCK_API std::int32_t oarlock_optim_adam_mini(const oarlock_tensors* params,
                                                 const oarlock_tensors* grads,
                                                 const oarlock_tensors* m, const oarlock_tensors* v,
                                                 const oarlock_adamw_options* o,
                                                 std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m});
    check_blocks(*params, *v);
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    const AdamwScalars s = scalars(*o);
    const FactoredKernels& kernels = OARLOCK_KERNELS(factored_kernels);
    const Plan plan(*params), blocks(*v);
    // Where a tensor's sums and denominators begin. The part of block b in the tensor's k-th chunk
    // is number b + k: from one part to the next b or k grows, or both.
    std::vector<std::int64_t> first_sum(v->count), first_block(v->count);
    std::int64_t sums = 0, all = 0;
    for (std::int64_t i = 0; i < v->count; ++i) {
      first_sum[i] = sums, first_block[i] = all;
      sums += v->items[i].count + plan.first(i + 1) - plan.first(i);
      all += v->items[i].count;
    }
    std::vector<double> parts(sums);
    std::vector<float> denominators(all);
    const auto size_of = [&](std::int64_t i) { return params->items[i].count / v->items[i].count; };

    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      const std::int64_t size = size_of(c.tensor), block = c.begin / size;
      kernels.block_squares[type_of(grads->items[c.tensor])](
          at(*grads, c), c.count, c.begin % size, size,
          parts.data() + first_sum[c.tensor] + block + (i - plan.first(c.tensor)));
    });
    const double keep = o->beta2, take = (1 - o->beta2) * o->grad_scale * o->grad_scale;
    for_chunks(blocks, threads, [&](const Chunk& c, std::int64_t) {
      const std::int64_t size = size_of(c.tensor);
      if (size == 0) return;
      float* const average = at<float>(*v, c);
      for (std::int64_t i = 0; i < c.count; ++i) {
        const std::int64_t block = c.begin + i, last = ((block + 1) * size - 1) / kChunk;
        double sum = 0;
        for (std::int64_t k = block * size / kChunk; k <= last; ++k)
          sum += parts[first_sum[c.tensor] + block + k];
        average[i] = static_cast<float>(keep * average[i] + take * (sum / size));
        denominators[first_block[c.tensor] + block] = std::sqrt(average[i]) * s.v_scale + s.eps;
      }
    });
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      const std::int64_t size = size_of(c.tensor);
      kernels.adam_mini[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), c.count, c.begin % size, size,
          denominators.data() + first_block[c.tensor] + c.begin / size, s,
          rounding(o->rounding, c));
    });
  });
}

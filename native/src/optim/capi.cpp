// Entry points of the optimisers' kernels.

#include <cmath>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/tensors.h"
#include "optim/arguments.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::Kernels, optim_kernels)

namespace oarlock::optim {
namespace {

template <typename T = void>
T* at(const oarlock_tensors& list, const Chunk& chunk) {
  const oarlock_tensor& item = list.items[chunk.tensor];
  return reinterpret_cast<T*>(static_cast<char*>(item.data) +
                              chunk.begin * item_size(item.dtype));
}

int type_of(const oarlock_tensor& item) { return item.dtype == kFloat32 ? 0 : 1; }

// Calls body(chunk) for all chunks of the list's tensors.
template <typename Body>
void for_chunks(const Plan& plan, std::int32_t threads, const Body& body) {
  parallel_for(plan.size(), plan.threads(threads), [&](std::int64_t i) { body(plan[i], i); });
}

}  // namespace
}  // namespace oarlock::optim

using namespace oarlock;
using namespace oarlock::optim;

OARLOCK_API std::int32_t oarlock_optim_adamw(const oarlock_tensors* params,
                                             const oarlock_tensors* grads,
                                             const oarlock_tensors* m, const oarlock_tensors* v,
                                             const oarlock_adamw_options* o,
                                             std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    const AdamwScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.adamw[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_lion(const oarlock_tensors* params,
                                            const oarlock_tensors* grads,
                                            const oarlock_tensors* m,
                                            const oarlock_lion_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write}});
    const LionScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.lion[types_of(*params, *grads, c.tensor)](at(*params, c), at(*grads, c),
                                                        at<float>(*m, c), c.count, s,
                                                        rounding(o->rounding, c));
    });
  });
}

// `buffers` may be null: plain gradient descent.
OARLOCK_API std::int32_t oarlock_optim_sgd(const oarlock_tensors* params,
                                           const oarlock_tensors* grads,
                                           const oarlock_tensors* buffers,
                                           const oarlock_sgd_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensors none{"momentum_buffers", nullptr, 0};
    if (buffers == nullptr) {
      check_step(*params, *grads, {});
      buffers = &none;
    } else {
      check_step(*params, *grads, {buffers});
    }
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*buffers, Access::write}});
    const SgdScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.sgd[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), buffers->items ? at<float>(*buffers, c) : nullptr, c.count,
          s, rounding(o->rounding, c));
    });
  });
}

// ratios[i] gets the trust ratio of tensor i.
OARLOCK_API std::int32_t oarlock_optim_lamb(const oarlock_tensors* params,
                                            const oarlock_tensors* grads,
                                            const oarlock_tensors* m, const oarlock_tensors* v,
                                            const oarlock_lamb_options* o, double* ratios,
                                            std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    const LambScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    const Plan plan(*params);
    std::vector<double> norms(2 * plan.size());
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      kernels.lamb_moments[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          norms.data() + 2 * i);
    });
    for (std::int64_t tensor = 0; tensor < params->count; ++tensor) {
      double weight = 0, direction = 0;
      for (std::int64_t i = plan.first(tensor); i < plan.first(tensor + 1); ++i) {
        weight += norms[2 * i];
        direction += norms[2 * i + 1];
      }
      double ratio = weight > 0 && direction > 0 ? std::sqrt(weight / direction) : 1.0;
      if (std::isnan(weight) || std::isnan(direction)) ratio = weight + direction;
      if (o->max_trust_ratio > 0 && ratio > o->max_trust_ratio) ratio = o->max_trust_ratio;
      ratios[tensor] = ratio;
    }
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      kernels.lamb_apply[types_of(*params, *grads, c.tensor)](
          at(*params, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          static_cast<float>(o->lr * ratios[c.tensor]), rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_squared_norm(const oarlock_tensors* tensors, double* sum,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_dtype(*tensors, {kFloat32, kBfloat16});
    check_memory(*tensors, Access::read);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    const Plan plan(*tensors);
    std::vector<double> parts(plan.size());
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      parts[i] = kernels.squared_norm[type_of(tensors->items[c.tensor])](at(*tensors, c), c.count);
    });
    double total = 0;
    for (double part : parts) total += part;
    *sum = total;
  });
}

// rows[i] <- decay rows[i] + (1 - decay) (mean over columns of (scale g)^2 + eps), columns alike.
OARLOCK_API std::int32_t oarlock_optim_row_column_mean_squares(
    const oarlock_tensors* grads, const oarlock_tensors* rows, const oarlock_tensors* columns,
    const oarlock_row_column_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_dtype(*grads, {kFloat32, kBfloat16});
    check_memory(*grads, Access::read);
    for (const oarlock_tensors* list : {rows, columns}) {
      if (list->count != grads->count)
        throw BadArgument(std::string(list->name) + " has " + std::to_string(list->count) +
                          " tensors, but " + grads->name + " has " + std::to_string(grads->count) +
                          "; there must be one for each");
      check_dtype(*list, {kFloat32});
      check_memory(*list, Access::write);
    }
    for (std::int64_t i = 0; i < grads->count; ++i) {
      const oarlock_tensor& grad = grads->items[i];
      if (grad.ndim != 2)
        throw BadArgument(item_name(*grads, i) + " has shape " + shape_text(grad) +
                          "; it must be a matrix [rows, columns], so reshape it");
      for (const int axis : {0, 1}) {
        const oarlock_tensors& list = axis == 0 ? *rows : *columns;
        const oarlock_tensor& item = list.items[i];
        if (item.ndim == 1 && item.shape[0] == grad.shape[axis]) continue;
        throw BadArgument(item_name(list, i) + " has shape " + shape_text(item) + ", but " +
                          item_name(*grads, i) + " of shape " + shape_text(grad) + " needs [" +
                          std::to_string(grad.shape[axis]) + "]");
      }
    }
    check_overlap({{*grads, Access::read}, {*rows, Access::write}, {*columns, Access::write}});
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
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
        for (std::int64_t block = 0; block < blocks; ++block) sum += partial[block * width + column];
        blend(static_cast<float*>(columns->items[i].data) + column, sum / height);
      }
    }
  });
}

// Entry points of the kernels whose second moments are shared by rows, columns or blocks.

#include "core/error.h"
#include "optim/arguments.h"
#include "optim/entry.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::FactoredKernels, factored_kernels)

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
        for (std::int64_t block = 0; block < blocks; ++block) sum += partial[block * width + column];
        blend(static_cast<float*>(columns->items[i].data) + column, sum / height);
      }
    }
  });
}

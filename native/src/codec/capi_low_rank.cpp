// Entry points of low rank: a gradient joins what is left and is projected, in one pass; and back.

#include <vector>

#include "codec/arguments.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::LowRankKernels, codec_low_rank_kernels)

using namespace oarlock;
using namespace oarlock::codec;

namespace {

struct Shape {
  std::int64_t rows, columns;
};

Shape shape_of(const oarlock_tensors& list, Access access) {
  const oarlock_tensor& a = flat(list, {kFloat32}, access);
  if (a.ndim != 2)
    throw BadArgument(item_name(list, 0) + " has shape " + shape_text(a) +
                      ", but must have 2 axes; reshape it");
  return {a.shape[0], a.shape[1]};
}

// A thin matrix of so many rows; its columns.
int columns_of(const oarlock_tensors& list, Access access, std::int64_t rows,
               const std::string& because) {
  const Shape shape = shape_of(list, access);
  if (shape.rows != rows)
    throw BadArgument(item_name(list, 0) + " has " + std::to_string(shape.rows) + " rows, but " +
                      because + " need " + std::to_string(rows));
  if (shape.columns > kColumns)
    throw BadArgument(item_name(list, 0) + " has " + std::to_string(shape.columns) +
                      " columns, but may have at most " + std::to_string(kColumns));
  return static_cast<int>(shape.columns);
}

void check_columns(const oarlock_tensors& list, int columns, const oarlock_tensors& like, int other) {
  if (columns != other)
    throw BadArgument(item_name(list, 0) + " has " + std::to_string(columns) + " columns, but " +
                      item_name(like, 0) + " has " + std::to_string(other) +
                      "; they must be equal");
}

std::string axis_of(const oarlock_tensors& list, const char* axis) {
  return std::string("the ") + axis + " of " + item_name(list, 0);
}

// A thin matrix in panels, as `LowRank::right` has it.
std::vector<float> panelled(const oarlock_tensor& a, std::int64_t rows, int columns) {
  std::vector<float> found(divided_up(rows, kPanel) * kPanel * columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const to = found.data() + row / kPanel * kPanel * columns + row % kPanel;
    for (int column = 0; column < columns; ++column)
      to[column * kPanel] = data<float>(a)[row * columns + column];
  }
  return found;
}

// A thin matrix with zeros behind each row, as `LowRank::onto` has it.
std::vector<float> padded(const oarlock_tensor& a, std::int64_t rows, int columns) {
  const std::int64_t pitch = pitch_of(columns);
  std::vector<float> found(rows * pitch);
  for (std::int64_t row = 0; row < rows; ++row)
    std::copy_n(data<float>(a) + row * columns, columns, found.data() + row * pitch);
  return found;
}

// Parts of a matrix's rows, of which several are worked on at once.
template <typename Body>
void for_rows(std::int64_t rows, std::int64_t columns, std::int32_t threads, const Body& body) {
  constexpr std::int64_t kTogether = 24;  // whole groups of 4, 6 and 8 rows, as paths have them
  for_parts(Parts(divided_up(rows, kTogether), kTogether * columns), threads,
            [&](std::int64_t, std::int64_t begin, std::int64_t end) {
              body(begin * kTogether, std::min(rows, end * kTogether));
            });
}

}  // namespace

// acc = acc - left right^T + gradient, out = acc onto; `gradient`, and `left` with `right`, may be empty.
OARLOCK_API std::int32_t oarlock_codec_low_rank_take(
    const oarlock_tensors* acc, const oarlock_tensors* gradient, const oarlock_tensors* left,
    const oarlock_tensors* right, const oarlock_tensors* onto, const oarlock_tensors* out,
    const oarlock_codec_options*, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Shape shape = shape_of(*acc, Access::write);
    const float* add = nullptr;
    if (gradient->count > 0)
      add = data<float>(flat(*gradient, {kFloat32}, Access::read, shape.rows * shape.columns,
                             elements_of(*acc)));
    LowRank m{shape.columns, 0, 0, nullptr, nullptr};
    std::vector<float> across, away;
    const float* sent = nullptr;
    if (left->count + right->count > 0) {
      m.sent = columns_of(*left, Access::read, shape.rows, axis_of(*acc, "rows"));
      check_columns(*right, columns_of(*right, Access::read, shape.columns, axis_of(*acc, "columns")),
                    *left, m.sent);
      away = panelled(right->items[0], shape.columns, m.sent);
      m.right = away.data();
      sent = data<float>(left->items[0]);
    }
    if (onto->count + out->count > 0) {
      m.rank = columns_of(*onto, Access::read, shape.columns, axis_of(*acc, "columns"));
      check_columns(*out, columns_of(*out, Access::write, shape.rows, axis_of(*acc, "rows")), *onto,
                    m.rank);
      across = padded(onto->items[0], shape.columns, m.rank);
      m.onto = across.data();
    }
    check_overlap({{*acc, Access::write}, {*gradient, Access::read}, {*left, Access::read},
                   {*right, Access::read}, {*onto, Access::read}, {*out, Access::write}});
    const auto kernel = OARLOCK_KERNELS(codec_low_rank_kernels).take;
    float* const x = data<float>(acc->items[0]);
    float* const to = m.rank > 0 ? data<float>(out->items[0]) : nullptr;
    for_rows(shape.rows, shape.columns, threads, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * shape.columns;
      kernel(x + first, add == nullptr ? nullptr : add + first, end - begin, m,
             sent + begin * m.sent, to + begin * m.rank);
    });
  });
}

// out = acc^T left
OARLOCK_API std::int32_t oarlock_codec_low_rank_back(const oarlock_tensors* acc,
                                                     const oarlock_tensors* left,
                                                     const oarlock_tensors* out,
                                                     const oarlock_codec_options*,
                                                     std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Shape shape = shape_of(*acc, Access::read);
    const int rank = columns_of(*left, Access::read, shape.rows, axis_of(*acc, "rows"));
    check_columns(*out, columns_of(*out, Access::write, shape.columns, axis_of(*acc, "columns")),
                  *left, rank);
    check_overlap({{*acc, Access::read}, {*left, Access::read}, {*out, Access::write}});
    const auto kernel = OARLOCK_KERNELS(codec_low_rank_kernels).across;
    const LowRank m{shape.columns, 0, rank, nullptr, nullptr};
    std::vector<float> found(shape.columns * rank);
    constexpr std::int64_t kStripe = 1024;  // columns, a multiple of any register
    const Parts stripes(divided_up(shape.columns, kStripe), kPart);
    for_parts(stripes, threads, [&](std::int64_t, std::int64_t first, std::int64_t end) {
      kernel(data<float>(acc->items[0]), shape.rows, m, data<float>(left->items[0]),
             first * kStripe, std::min(shape.columns, end * kStripe), found.data());
    });
    float* const to = data<float>(out->items[0]);
    for (std::int64_t column = 0; column < shape.columns; ++column)
      for (int k = 0; k < rank; ++k) to[column * rank + k] = found[k * shape.columns + column];
  });
}

// out = left right^T
OARLOCK_API std::int32_t oarlock_codec_low_rank_product(const oarlock_tensors* left,
                                                        const oarlock_tensors* right,
                                                        const oarlock_tensors* out,
                                                        const oarlock_codec_options*,
                                                        std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Shape shape = shape_of(*out, Access::write);
    const int rank = columns_of(*left, Access::read, shape.rows, axis_of(*out, "rows"));
    check_columns(*right, columns_of(*right, Access::read, shape.columns, axis_of(*out, "columns")),
                  *left, rank);
    check_overlap({{*left, Access::read}, {*right, Access::read}, {*out, Access::write}});
    const std::vector<float> across = panelled(right->items[0], shape.columns, rank);
    const LowRank m{shape.columns, rank, 0, across.data(), nullptr};
    const auto kernel = OARLOCK_KERNELS(codec_low_rank_kernels).product;
    for_rows(shape.rows, shape.columns, threads, [&](std::int64_t begin, std::int64_t end) {
      kernel(data<float>(left->items[0]) + begin * rank, end - begin, m,
             data<float>(out->items[0]) + begin * shape.columns);
    });
  });
}

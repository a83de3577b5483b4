// Entry points of products.

#include "core/error.h"
#include "lowp/arguments.h"
#include "lowp/product.h"

using namespace oarlock;
using namespace oarlock::lowp;

// out = activation(op(a) op(b) + bias). Lists of one tensor each; `bias` may be null. Where
// `a_scales` is not null, a holds codes of its format, and the scales are [blocks, rows of op(a)].
OARLOCK_API std::int32_t oarlock_lowp_matmul(
    const oarlock_tensors* a, const oarlock_tensors* a_scales, const oarlock_tensors* b,
    const oarlock_tensors* b_scales, const oarlock_tensors* bias, const oarlock_tensors* out,
    const oarlock_lowp_matmul_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Factor left = factor(*a, a_scales, o->a, o->transpose_a == 0);
    const Factor right = factor(*b, b_scales, o->b, o->transpose_b != 0);
    check_product(left, right, *o, bias, *out);
    const Arithmetic arithmetic = arithmetic_of(left.format, right.format, o->base != 0);
    const Depth depth(left.depth, arithmetic.unit, o->a.block);
    check_scales(left, depth);
    check_scales(right, depth);
    Operand x(a->items[0], left.codes, left.scale_data, left.along_rows, o->a, 0, depth,
              arithmetic.unit);
    Operand y(b->items[0], right.codes, right.scale_data, right.along_rows, o->b, 1, depth,
              arithmetic.unit);
    const oarlock_tensor& target = out->items[0];
    const Result result{target.data, target.dtype,
                        bias ? static_cast<const float*>(bias->items[0].data) : nullptr,
                        static_cast<Activation>(o->activation)};
    multiply(x, y, depth, arithmetic, result, threads);
  });
}

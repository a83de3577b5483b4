#include "attention/arguments.h"

#include <cmath>
#include <limits>

#include "attention/kernels.h"
#include "core/error.h"

namespace oarlock::attention {
namespace {

constexpr std::int32_t kInt32 = 0 << 8 | 32;

const oarlock_tensor& only(const oarlock_tensors& list) {
  if (list.count == 1) return list.items[0];
  throw BadArgument(std::string(list.name) + " must be one tensor, not " +
                    std::to_string(list.count));
}

std::string list_text(std::initializer_list<std::int64_t> sizes) {
  std::string text;
  for (std::int64_t size : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text + "]";
}

void check_shape(const oarlock_tensors& list, std::initializer_list<std::int64_t> wanted,
                 const char* meaning) {
  const oarlock_tensor& item = only(list);
  bool same = item.ndim == static_cast<int>(wanted.size());
  int axis = 0;
  for (std::int64_t size : wanted) same = same && item.shape[axis++] == size;
  if (!same)
    throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must have " +
                      list_text(wanted) + ", " + meaning);
}

}  // namespace

Shape check_operands(const oarlock_tensors& q, const oarlock_tensors& k, const oarlock_tensors& v,
                     const oarlock_attention_options& options, Device device) {
  for (const oarlock_tensors* list : {&q, &k, &v}) {
    const oarlock_tensor& item = only(*list);
    check_dtype(*list, {kFloat32, kBfloat16});
    check_memory(*list, Access::read, device);
    if (item.ndim != 4)
      throw BadArgument(item_name(*list, 0) + " has shape " + shape_text(item) +
                        "; it must have four axes [batch, sequence, heads, dim], so reshape it");
    if (item.dtype != q.items[0].dtype)
      throw BadArgument(item_name(*list, 0) + " is " + dtype_text(item.dtype) + ", but " +
                        item_name(q, 0) + " is " + dtype_text(q.items[0].dtype) +
                        "; cast one of them");
  }
  const std::int64_t *const a = q.items[0].shape, *const b = k.items[0].shape;
  const Shape shape{a[0], a[1], b[1], a[2], b[2], a[3]};
  check_shape(k, {shape.batch, shape.keys, shape.kv_heads, shape.dim},
              "with the batch and dim of q");
  check_shape(v, {shape.batch, shape.keys, shape.kv_heads, shape.dim}, "like k");
  if (shape.dim < 1 || shape.dim > kMaxDim)
    throw BadArgument("q has heads of dim " + std::to_string(shape.dim) + "; it must be from 1 to " +
                      std::to_string(kMaxDim));
  if (shape.kv_heads < 1 || shape.heads % shape.kv_heads != 0)
    throw BadArgument("q has " + std::to_string(shape.heads) + " heads and k " +
                      std::to_string(shape.kv_heads) +
                      "; each head of k serves as many heads of q, so the one must divide the other");
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - kTileRows;
  if (shape.rows > most || shape.keys > most)
    throw BadArgument("sequences must be shorter than " + std::to_string(most));
  if (!std::isfinite(options.scale))
    throw BadArgument("scale must be finite, not " + std::to_string(options.scale));
  return shape;
}

void check_like(const oarlock_tensors& tensor, const oarlock_tensors& like, Access access,
                Device device) {
  check_shapes(tensor, like);
  check_dtype(tensor, {like.items[0].dtype});
  check_memory(tensor, access, device);
}

void check_log_sums(const oarlock_tensors& lse, const Shape& shape, Access access, Device device) {
  check_shape(lse, {shape.batch, shape.heads, shape.rows}, "[batch, heads, rows]");
  check_dtype(lse, {kFloat32});
  check_memory(lse, access, device);
}

void check_bounds(const oarlock_tensors* bounds, const Shape& shape, bool causal, Device device) {
  if (bounds == nullptr) return;
  const oarlock_tensor& item = only(*bounds);
  check_dtype(*bounds, {kInt32});
  check_memory(*bounds, Access::read, device);
  const std::int64_t* const s = item.shape;
  const bool fits = item.ndim == 4 && (s[0] == 1 || s[0] == shape.batch) &&
                    (s[1] == 1 || s[1] == shape.kv_heads) && s[2] == shape.keys &&
                    (causal ? s[3] == 1 || s[3] == 2 : s[3] == 2 || s[3] == 4);
  if (!fits)
    throw BadArgument(item_name(*bounds, 0) + " has shape " + shape_text(item) +
                      ", but must have [1 or " + std::to_string(shape.batch) + ", 1 or " +
                      std::to_string(shape.kv_heads) + ", " + std::to_string(shape.keys) + ", " +
                      (causal ? "1 or 2" : "2 or 4") + "]: [batch, heads of k, keys, bounds]" +
                      (causal ? " under a causal mask" : " where the mask is not causal"));
  if (device.type != OARLOCK_CPU) return;
  const auto* const numbers = static_cast<const std::int32_t*>(item.data);
  const bool pairs = s[3] == 4 || (causal && s[3] == 2);
  for (std::int64_t i = 0; i < item.count; ++i) {
    const auto where = [&] { return item_name(*bounds, 0) + " has " + std::to_string(numbers[i]); };
    if (numbers[i] < 0 || numbers[i] > shape.rows)
      throw BadArgument(where() + " for key " + std::to_string(i / s[3] % s[2]) +
                        "; bounds are numbers of rows, from 0 to " + std::to_string(shape.rows));
    if (pairs && i % 2 == 1 && numbers[i] < numbers[i - 1])
      throw BadArgument(where() + " as the end of masked rows that begin at " +
                        std::to_string(numbers[i - 1]) + ", for key " +
                        std::to_string(i / s[3] % s[2]) + "; an end must not be before its begin");
  }
}

}  // namespace oarlock::attention

#include "atoms/arguments.h"

#include "core/error.h"

namespace oarlock::atoms {

std::string text(std::int64_t number) { return std::to_string(number); }

const oarlock_tensor& tensor(const oarlock_tensors& list, std::int32_t dtype,
                             const std::vector<std::int64_t>& shape, Access access) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " + text(list.count));
  check_dtype(list, {dtype});
  check_memory(list, access);
  const oarlock_tensor& item = list.items[0];
  bool fits = item.ndim == static_cast<std::int64_t>(shape.size());
  for (std::size_t axis = 0; fits && axis < shape.size(); ++axis)
    fits = shape[axis] < 0 || item.shape[axis] == shape[axis];
  if (fits) return item;
  std::string wanted;
  for (const std::int64_t extent : shape)
    wanted += (wanted.empty() ? "" : ", ") + (extent < 0 ? std::string("any") : text(extent));
  throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must have [" +
                    wanted + "]");
}

const std::int64_t* index(const oarlock_tensors& list, std::int64_t count, std::int64_t below) {
  const oarlock_tensor& item = tensor(list, kInt64, {count}, Access::read);
  const std::int64_t* const items = data<std::int64_t>(item);
  std::uint64_t most = 0;  // negative numbers are large as unsigned ones
  for (std::int64_t i = 0; i < item.count; ++i) {
    const auto one = static_cast<std::uint64_t>(items[i]);
    most = one > most ? one : most;
  }
  if (item.count > 0 && most >= static_cast<std::uint64_t>(below)) {
    std::int64_t at = 0;
    while (static_cast<std::uint64_t>(items[at]) < static_cast<std::uint64_t>(below)) ++at;
    throw BadArgument(item_name(list, 0) + " holds " + text(items[at]) + " at " + text(at) +
                      ", but must be in [0, " + text(below) + ")");
  }
  return items;
}

std::int32_t floating(const oarlock_tensors& list) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " + text(list.count));
  check_dtype(list, {kFloat32, kFloat64});
  return list.items[0].dtype;
}

}  // namespace oarlock::atoms

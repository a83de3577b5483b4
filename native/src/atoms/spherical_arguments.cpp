#include "atoms/spherical_arguments.h"

namespace oarlock::atoms {

FeatureShape feature_shape(const oarlock_tensors& list, Access access, std::int32_t dtype) {
  check_memory(list, access);
  check_dtype(list, {dtype});
  if (list.count < 1 || list.count > kMaxFeatureDegree + 1)
    throw BadArgument(std::string(list.name) + " has " + std::to_string(list.count) +
                      " tensors; there must be one for each degree, 0 to at most " +
                      std::to_string(kMaxFeatureDegree));
  const oarlock_tensor& first = list.items[0];
  FeatureShape shape{static_cast<int>(list.count) - 1, first.shape[0], first.shape[2]};
  for (std::int64_t l = 0; l < list.count; ++l) {
    const oarlock_tensor& item = list.items[l];
    if (item.ndim != 3 || item.shape[0] != shape.rows || item.shape[1] != 2 * l + 1 ||
        item.shape[2] != shape.channels)
      throw BadArgument(item_name(list, l) + " has shape " + shape_text(item) + ", but must be [atoms, " +
                        std::to_string(2 * l + 1) + ", channels] with as many atoms and channels as " +
                        item_name(list, 0));
  }
  if (shape.channels % 16 != 0 || shape.channels == 0)
    throw BadArgument(std::string(list.name) + " has " + std::to_string(shape.channels) +
                      " channels; there must be a multiple of 16");
  return shape;
}

void check_features(const oarlock_tensors& list, Access access, std::int32_t dtype, FeatureShape shape) {
  const FeatureShape own = feature_shape(list, access, dtype);
  if (own.degree != shape.degree || own.rows != shape.rows || own.channels != shape.channels)
    throw BadArgument(std::string(list.name) + " goes to degree " + std::to_string(own.degree) +
                      " for " + std::to_string(own.rows) + " atoms and " + std::to_string(own.channels) +
                      " channels, but must go to degree " + std::to_string(shape.degree) + " for " +
                      std::to_string(shape.rows) + " atoms and " + std::to_string(shape.channels) +
                      " channels");
}

const oarlock_tensor& tensor(const oarlock_tensors& list, Access access, std::int32_t dtype,
                             const std::vector<std::int64_t>& shape) {
  check_memory(list, access);
  check_dtype(list, {dtype});
  if (list.count != 1) throw BadArgument(std::string(list.name) + " must be one tensor");
  const oarlock_tensor& item = list.items[0];
  bool fits = item.ndim == static_cast<int>(shape.size());
  std::string wanted;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    fits = fits && (shape[axis] < 0 || item.shape[axis] == shape[axis]);
    wanted += (axis ? ", " : "") + (shape[axis] < 0 ? "any" : std::to_string(shape[axis]));
  }
  if (!fits)
    throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must have [" + wanted +
                      "]");
  return item;
}

std::int32_t real_dtype(const oarlock_tensors& list) {
  if (list.count < 1) throw BadArgument(std::string(list.name) + " is empty; give a tensor");
  check_dtype(list, {kFloat32, kFloat64});
  return list.items[0].dtype;
}

}  // namespace oarlock::atoms

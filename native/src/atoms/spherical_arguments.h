// Arguments of the entry points for features of degrees, checked.
#pragma once

#include <string>
#include <vector>

#include "atoms/convolution_kernels.h"
#include "core/error.h"
#include "core/tensors.h"

namespace oarlock::atoms {

// [rows, 2l + 1, channels] for l = 0 … degree.
struct FeatureShape {
  int degree;
  std::int64_t rows, channels;
};

// The shape of a list of features, whose memory and dtype are checked.
FeatureShape feature_shape(const oarlock_tensors& list, Access access, std::int32_t dtype);

// ... and refuses it unless it is this one.
void check_features(const oarlock_tensors& list, Access access, std::int32_t dtype, FeatureShape shape);

// A list of one tensor of this shape; −1 for any length.
const oarlock_tensor& tensor(const oarlock_tensors& list, Access access, std::int32_t dtype,
                             const std::vector<std::int64_t>& shape);

// The dtype of the first item: float32 or float64.
std::int32_t real_dtype(const oarlock_tensors& list);

template <typename T, typename Pointer>
void set_pointers(const oarlock_tensors& list, Pointer* to) {
  for (std::int64_t l = 0; l < list.count; ++l) to[l] = static_cast<T*>(list.items[l].data);
}

template <typename Body>
void with_dtype(std::int32_t dtype, const Body& body) {
  if (dtype == kFloat32) body(float{});
  else body(double{});
}

}  // namespace oarlock::atoms

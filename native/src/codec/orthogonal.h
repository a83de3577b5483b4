// Gram-Schmidt by way of the products of columns.
#pragma once

#include <cstdint>

namespace oarlock::codec {

// The columns of a [rows][columns], row-major, become orthonormal; columns <= kColumns, <= rows. What
// depends on earlier columns, or is 0, is first replaced by numbers of a hash. NaN or Inf: all NaN.
void orthogonalise(float* a, std::int64_t rows, int columns, double eps, std::int32_t threads);

}  // namespace oarlock::codec

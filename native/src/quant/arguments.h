// Checks of matrices and packed weights.
#pragma once

#include <cstdint>

#include "core/tensors.h"
#include "quant/options.h"
#include "quant/product.h"

namespace oarlock::quant {

// The one matrix of a list, of one of these types; sizes below 0 are not looked at.
const oarlock_tensor& matrix(const oarlock_tensors& list, Access access,
                             std::initializer_list<std::int32_t> types, std::int64_t rows,
                             std::int64_t columns, Device device = {});

// As above, of one axis.
const oarlock_tensor& vector(const oarlock_tensors& list, Access access,
                             std::initializer_list<std::int32_t> types, std::int64_t count,
                             Device device = {});

Format format_of(std::int32_t given);

// Bytes that a weight takes.
std::int64_t packed_bytes(const oarlock_quant_matrix& given);

// A weight of these sizes in packed memory, which starts at a line of the cache.
Matrix packed(const oarlock_tensors& list, const oarlock_quant_matrix& given, Access access);

}  // namespace oarlock::quant

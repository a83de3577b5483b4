// Tables of cosine transforms, made once for each size.
#pragma once

#include <cstdint>

#include "codec/kernels.h"

namespace oarlock::codec {

// For 1 <= size <= kLargestTransform. They live as long as the process.
const CosineTables& cosine_tables(std::int64_t size, bool inverse);

}  // namespace oarlock::codec

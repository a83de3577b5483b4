// Starting the kernels of attention.
#pragma once

#include "decoder/cache.h"
#include "decoder/pages.cuh"
#include "decoder/store.cuh"

namespace oarlock::cuda::decoder {

using oarlock::decoder::CacheFormat;

void store_rows(CacheFormat format, const Attention& p, const Rotation& rotation);

// `least` and `most` rows of a sequence, `length` positions of the longest.
void attend(CacheFormat format, const Attention& p, std::int64_t least, std::int64_t most,
            std::int64_t length);

}  // namespace oarlock::cuda::decoder

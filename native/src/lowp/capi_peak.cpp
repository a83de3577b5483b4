// What the inner loop of products does at most, for benchmarks.

#include <algorithm>

#include "core/error.h"
#include "lowp/arguments.h"
#include "core/buffer.h"
#include "lowp/product.h"

using namespace oarlock;
using namespace oarlock::lowp;

// Runs the inner loop of a format's products `times` times on panels that stay in the first cache,
// and tells how many multiplications and additions that were.
OARLOCK_API std::int32_t oarlock_lowp_peak(std::int32_t format, std::int64_t times,
                                           double* operations) {
  return guarded([&] {
    const Format known = check_format("peak", {format, 0, 0, 0, 0});
    const Arithmetic arithmetic = arithmetic_of(known, known, false);
    constexpr std::int64_t kGroups = 64;
    const std::int64_t rows = arithmetic.tile_rows, width = arithmetic.panel_width;
    const Buffer<std::uint32_t> a(rows * kGroups), b(width * kGroups), c(rows * width);
    for (const Buffer<std::uint32_t>* buffer : {&a, &b, &c})
      std::fill_n(buffer->data(), buffer->size(), 0u);
    Fetch fetch{};
    fetch.next = b.data();
    for (std::int64_t i = 0; i < times; ++i)
      arithmetic.tile[rows - 1](a.data(), b.data(), kGroups, nullptr, c.data(), fetch);
    const std::int64_t products = times * rows * width * kGroups * per_group(arithmetic.unit);
    *operations = 2.0 * static_cast<double>(products);
  });
}

// Entry points of ranks.

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "ranks/shared.h"
#include "ranks/tcp.h"

using namespace oarlock;
using namespace oarlock::ranks;

OARLOCK_API std::int64_t oarlock_ranks_shared_bytes(std::int32_t count, std::int64_t slot_bytes) {
  return SharedRanks::bytes(count, slot_bytes);
}

// `watched` [watches, 2]: ranks and descriptors of connections that end with them.
OARLOCK_API std::int32_t oarlock_ranks_shared(std::int32_t descriptor, std::int32_t rank,
                                              std::int32_t count, std::int64_t slot_bytes,
                                              double timeout_s, const std::int32_t* watched,
                                              std::int64_t watches, void** out) {
  return guarded([&] {
    std::vector<Watched> all;
    for (std::int64_t i = 0; i < watches; ++i) all.push_back({watched[2 * i], watched[2 * i + 1]});
    *out = static_cast<Ranks*>(std::make_unique<SharedRanks>(descriptor, rank, count, slot_bytes,
                                                             timeout_s, std::move(all))
                                   .release());
  });
}

// `sockets` [count], which stay the caller's.
OARLOCK_API std::int32_t oarlock_ranks_tcp(const std::int32_t* sockets, std::int32_t rank,
                                           std::int32_t count, std::int64_t slot_bytes,
                                           double timeout_s, void** out) {
  return guarded([&] {
    *out = static_cast<Ranks*>(
        std::make_unique<TcpRanks>(sockets, rank, count, slot_bytes, timeout_s).release());
  });
}

OARLOCK_API void oarlock_ranks_destroy(void* ranks) { delete static_cast<Ranks*>(ranks); }

// out += the parts of all ranks in their order; both [rows, width].
OARLOCK_API std::int32_t oarlock_ranks_sum(void* ranks, const float* part, std::int64_t rows,
                                           std::int64_t width, float* out) {
  return guarded([&] {
    Ranks& all = *static_cast<Ranks*>(ranks);
    if (rows < 1 || width < 1 || width * std::int64_t{sizeof(float)} > all.slot_bytes())
      throw BadArgument("a row must have between 1 and " +
                        std::to_string(all.slot_bytes() / std::int64_t{sizeof(float)}) +
                        " numbers, not " + std::to_string(width));
    sum(
        all, rows, width,
        [&](std::int64_t first, std::int64_t count, float* given) {
          std::memcpy(given, part + first * width, count * width * sizeof(float));
        },
        [&](std::int64_t first, std::int64_t count, const float* const* parts) {
          for (std::int32_t r = 0; r < all.count(); ++r)
            for (std::int64_t i = 0; i < count * width; ++i) out[first * width + i] += parts[r][i];
        });
  });
}

// out [3]: exchanges, bytes of this rank's parts, nanoseconds of waiting.
OARLOCK_API void oarlock_ranks_stats(const void* ranks, std::int64_t* out) {
  const Stats& stats = static_cast<const Ranks*>(ranks)->stats();
  out[0] = stats.exchanges;
  out[1] = stats.bytes;
  out[2] = stats.waited_ns;
}

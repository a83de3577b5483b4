// Entry points of decoders.

#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/tensors.h"
#include "decoder/decoder.h"

using namespace oarlock;
using namespace oarlock::decoder;

namespace {

CacheFormat cache_format(std::int32_t given) {
  if (given < 0 || given >= kCacheFormats)
    throw BadArgument("the cache's format is unknown: " + std::to_string(given));
  return static_cast<CacheFormat>(given);
}

}  // namespace

// The weights must live as long as the decoder, and so must `ranks`, which may be null.
OARLOCK_API std::int32_t oarlock_decoder_create(const oarlock_decoder_model* model,
                                                std::int64_t most_rows, void* ranks, void** out) {
  return guarded([&] {
    *out = std::make_unique<Decoder>(*model, most_rows, static_cast<ranks::Ranks*>(ranks)).release();
  });
}

OARLOCK_API void oarlock_decoder_destroy(void* decoder) { delete static_cast<Decoder*>(decoder); }

OARLOCK_API std::int64_t oarlock_decoder_page_bytes(const void* decoder, std::int32_t format) {
  std::int64_t bytes = -1;
  guarded([&] {
    bytes = page_bytes(static_cast<const Decoder*>(decoder)->model(), cache_format(format));
  });
  return bytes;
}

// The adapter's matrices must live until it is unloaded.
OARLOCK_API std::int32_t oarlock_decoder_load_adapter(void* decoder,
                                                      const oarlock_decoder_adapter* adapter,
                                                      std::int32_t* number) {
  return guarded([&] { *number = static_cast<Decoder*>(decoder)->load(*adapter); });
}

OARLOCK_API std::int32_t oarlock_decoder_unload_adapter(void* decoder, std::int32_t number) {
  return guarded([&] { static_cast<Decoder*>(decoder)->unload(number); });
}

OARLOCK_API std::int32_t oarlock_decoder_forward(void* decoder, const oarlock_decoder_cache* cache,
                                                 const oarlock_decoder_batch* batch,
                                                 std::int32_t base, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    static_cast<Decoder*>(decoder)->forward(*cache, *batch, base != 0, threads);
  });
}

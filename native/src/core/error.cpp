// The last error of a thread, and the version of the ABI: every kernel library has both.

#include "core/error.h"

#include <cstdio>

namespace oarlock {
namespace {

thread_local char last_error[1024] = "";

}  // namespace

void set_last_error(const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
}

}  // namespace oarlock

OARLOCK_API std::int32_t oarlock_abi_version() { return OARLOCK_ABI_VERSION; }

OARLOCK_API const char* oarlock_last_error() { return oarlock::last_error; }

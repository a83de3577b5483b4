// Errors inside the library are exceptions; `guarded` turns them into a status at the C ABI.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "core/abi.h"

namespace oarlock {

// A fault of the caller: becomes ValueError in Python.
struct BadArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Another process that is needed is gone: becomes ConnectionError in Python.
struct Disconnected : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void set_last_error(const char* text) noexcept;

template <typename Body>
std::int32_t guarded(const Body& body) noexcept {
  try {
    body();
    return OARLOCK_OK;
  } catch (const BadArgument& error) {
    set_last_error(error.what());
    return OARLOCK_BAD_ARGUMENT;
  } catch (const Disconnected& error) {
    set_last_error(error.what());
    return OARLOCK_DISCONNECTED;
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return OARLOCK_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
  } catch (...) {
    set_last_error("unknown C++ exception");
  }
  return OARLOCK_INTERNAL;
}

}  // namespace oarlock

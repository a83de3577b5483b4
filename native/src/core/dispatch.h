// The table of a family's kernels for the path of this thread.
//
// A family declares its table with OARLOCK_DECLARE_KERNELS(Type, name) at namespace scope and takes
// it with OARLOCK_KERNELS(name).
#pragma once

#include "core/cpu.h"

#if defined(__x86_64__)
#define OARLOCK_DECLARE_KERNELS(Type, name)                   \
  namespace oarlock::portable { extern const Type name; }     \
  namespace oarlock::avx2 { extern const Type name; }         \
  namespace oarlock::avx512 { extern const Type name; }
#define OARLOCK_KERNELS(name)                                           \
  (::oarlock::active_path() == ::oarlock::Path::avx512 ? ::oarlock::avx512::name \
   : ::oarlock::active_path() == ::oarlock::Path::avx2 ? ::oarlock::avx2::name   \
                                                       : ::oarlock::portable::name)
#elif defined(__aarch64__)
#define OARLOCK_DECLARE_KERNELS(Type, name)                   \
  namespace oarlock::portable { extern const Type name; }     \
  namespace oarlock::neon { extern const Type name; }
#define OARLOCK_KERNELS(name)                                                  \
  (::oarlock::active_path() == ::oarlock::Path::neon ? ::oarlock::neon::name   \
                                                     : ::oarlock::portable::name)
#else
#define OARLOCK_DECLARE_KERNELS(Type, name) \
  namespace oarlock::portable { extern const Type name; }
#define OARLOCK_KERNELS(name) (::oarlock::portable::name)
#endif

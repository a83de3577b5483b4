// Checks of the tensors of a code, which are read flat; most are lists of one.
#pragma once

#include <initializer_list>

#include "codec/options.h"
#include "core/error.h"
#include "core/tensors.h"

namespace oarlock::codec {

constexpr std::int32_t kUint8 = 1 << 8 | 8, kUint16 = 1 << 8 | 16, kUint32 = 1 << 8 | 32;

// One tensor of one of these types, contiguous on the CPU.
const oarlock_tensor& flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                           Access access);

// ... and of so many elements; `because` says what needs them.
const oarlock_tensor& flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                           Access access, std::int64_t count, const std::string& because);

// The same of every tensor of a list, which has at least one.
void check_flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                Access access, std::int64_t count, const std::string& because);

template <typename T = void>
T* data(const oarlock_tensor& item) {
  return static_cast<T*>(item.data);
}

// "the 100 elements of acc"
std::string elements_of(const oarlock_tensors& list);

// Positions are uint32: refuses tensors that have more.
void check_positions(const oarlock_tensors& list);

// For those who write to a tensor while it is encoded.
BadArgument changed_meanwhile(const oarlock_tensors& list);

inline std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace oarlock::codec

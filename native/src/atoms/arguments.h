// Checks of the tensors that the kernels of atoms and edges take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensors.h"

namespace oarlock::atoms {

constexpr std::int32_t kInt32 = 0 << 8 | 32, kInt64 = 0 << 8 | 64;

// One tensor given as a list of one, of this type and shape; −1 stands for any extent.
const oarlock_tensor& tensor(const oarlock_tensors& list, std::int32_t dtype,
                             const std::vector<std::int64_t>& shape, Access access);

template <typename T>
T* data(const oarlock_tensor& item) {
  return static_cast<T*>(item.data);
}

// An int64 vector of `count` (−1: any) whose items are all in [0, below).
const std::int64_t* index(const oarlock_tensors& list, std::int64_t count, std::int64_t below);

// The type of a floating-point tensor: float32 or float64.
std::int32_t floating(const oarlock_tensors& list);

std::string text(std::int64_t number);

}  // namespace oarlock::atoms

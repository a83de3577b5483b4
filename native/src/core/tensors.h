// Checks of list arguments, with messages that name the argument, the index and the remedy.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "core/abi.h"

namespace oarlock {

enum class Access { read, write };

struct Device {
  std::int32_t type = OARLOCK_CPU, id = 0;  // of the CPU the id is not looked at
};

struct Argument {
  const oarlock_tensors& list;
  Access access;
};

// "params[3]"
std::string item_name(const oarlock_tensors& list, std::int64_t index);
std::string shape_text(const oarlock_tensor& tensor);
std::string dtype_text(std::int32_t dtype);
std::int64_t item_size(std::int32_t dtype);

// On the device, contiguous, aligned, writable where written.
void check_memory(const oarlock_tensors& list, Access access, Device device = {});

// `list` is as long as `like`.
void check_count(const oarlock_tensors& list, const oarlock_tensors& like);

// ... and has the same shapes.
void check_shapes(const oarlock_tensors& list, const oarlock_tensors& like);

// Every item is of one of these types.
void check_dtype(const oarlock_tensors& list, std::initializer_list<std::int32_t> allowed);

// Memory that is written is used by one item only. Lists with null items are left out.
void check_overlap(std::initializer_list<Argument> arguments);

void check_threads(std::int32_t threads);

}  // namespace oarlock

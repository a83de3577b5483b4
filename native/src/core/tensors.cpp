#include "core/tensors.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"

namespace oarlock {

std::string item_name(const oarlock_tensors& list, std::int64_t index) {
  return std::string(list.name) + "[" + std::to_string(index) + "]";
}

std::string shape_text(const oarlock_tensor& tensor) {
  std::string text = "[";
  for (int axis = 0; axis < tensor.ndim; ++axis)
    text += (axis ? ", " : "") + std::to_string(tensor.shape[axis]);
  return text + "]";
}

std::string dtype_text(std::int32_t dtype) {
  static constexpr const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex",
                                          "bool"};
  const int code = dtype >> 8, bits = dtype & 0xff;
  if (code == 6) return "bool";
  if (code < 0 || code > 6) return "a type of DLPack code " + std::to_string(code);
  return kinds[code] + std::to_string(bits);
}

std::int64_t item_size(std::int32_t dtype) { return ((dtype & 0xff) + 7) / 8; }

namespace {

std::string device_text(Device device) {
  switch (device.type) {
    case OARLOCK_CPU: return "the CPU";
    case OARLOCK_CUDA: return "GPU " + std::to_string(device.id);
    default: return "a device of DLPack type " + std::to_string(device.type);
  }
}

}  // namespace

void check_memory(const oarlock_tensors& list, Access access, Device device) {
  for (std::int64_t i = 0; i < list.count; ++i) {
    const oarlock_tensor& item = list.items[i];
    if (item.device != device.type || (device.type != OARLOCK_CPU && item.device_id != device.id))
      throw BadArgument(item_name(list, i) + " is on " + device_text({item.device, item.device_id}) +
                        ", but must be on " + device_text(device) + " like all the others; move it");
    if (item.count == 0) continue;
    if (!(item.flags & OARLOCK_CONTIGUOUS))
      throw BadArgument(item_name(list, i) + " of shape " + shape_text(item) +
                        " is not contiguous; pass its base, or a contiguous copy");
    if (access == Access::write && (item.flags & OARLOCK_READ_ONLY))
      throw BadArgument(item_name(list, i) + " is read-only, but is updated in place; pass a "
                        "writable array, for example its copy()");
    if (access == Access::write && (item.flags & OARLOCK_COPIED))
      throw BadArgument(item_name(list, i) + " exports a copy of its memory through __dlpack__, "
                        "but is updated in place; pass a tensor that shares its memory");
    if (reinterpret_cast<std::uintptr_t>(item.data) % item_size(item.dtype) != 0)
      throw BadArgument(item_name(list, i) + " is not aligned to its elements; pass a copy");
  }
}

void check_count(const oarlock_tensors& list, const oarlock_tensors& like) {
  if (list.count != like.count)
    throw BadArgument(std::string(list.name) + " has " + std::to_string(list.count) +
                      " tensors, but " + like.name + " has " + std::to_string(like.count) +
                      "; there must be one for each");
}

void check_shapes(const oarlock_tensors& list, const oarlock_tensors& like) {
  check_count(list, like);
  for (std::int64_t i = 0; i < list.count; ++i) {
    const oarlock_tensor &item = list.items[i], &other = like.items[i];
    if (item.ndim == other.ndim &&
        std::memcmp(item.shape, other.shape, sizeof(std::int64_t) * item.ndim) == 0)
      continue;
    throw BadArgument(item_name(list, i) + " has shape " + shape_text(item) + ", but " +
                      item_name(like, i) + " has " + shape_text(other) + "; they must be equal");
  }
}

void check_dtype(const oarlock_tensors& list, std::initializer_list<std::int32_t> allowed) {
  for (std::int64_t i = 0; i < list.count; ++i) {
    const std::int32_t dtype = list.items[i].dtype;
    if (std::find(allowed.begin(), allowed.end(), dtype) != allowed.end()) continue;
    std::string text;
    for (std::int32_t one : allowed) text += (text.empty() ? "" : " or ") + dtype_text(one);
    throw BadArgument(item_name(list, i) + " is " + dtype_text(dtype) + ", but must be " + text +
                      "; cast it");
  }
}

void check_overlap(std::initializer_list<Argument> arguments) {
  struct Range {
    std::uintptr_t begin, end;
    const oarlock_tensors* list;
    std::int64_t index;
    bool written;
  };
  std::vector<Range> ranges;
  for (const Argument& argument : arguments) {
    if (argument.list.items == nullptr) continue;
    for (std::int64_t i = 0; i < argument.list.count; ++i) {
      const oarlock_tensor& item = argument.list.items[i];
      if (item.count == 0) continue;
      const auto begin = reinterpret_cast<std::uintptr_t>(item.data);
      ranges.push_back({begin, begin + item.count * item_size(item.dtype), &argument.list, i,
                        argument.access == Access::write});
    }
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  // The range that reaches farthest so far, among all and among the written ones.
  const Range *any = nullptr, *written = nullptr;
  for (const Range& range : ranges) {
    const Range* other = range.written ? any : written;
    if (other != nullptr && range.begin < other->end)
      throw BadArgument(item_name(*range.list, range.index) + " shares memory with " +
                        item_name(*other->list, other->index) +
                        "; a tensor that is updated in place needs memory of its own, so pass a "
                        "copy of one");
    if (any == nullptr || range.end > any->end) any = &range;
    if (range.written && (written == nullptr || range.end > written->end)) written = &range;
  }
}

void check_threads(std::int32_t threads) {
  if (threads < 1 || threads > kMaxThreads)
    throw BadArgument("threads must be between 1 and " + std::to_string(kMaxThreads) + ", not " +
                      std::to_string(threads));
}

}  // namespace oarlock

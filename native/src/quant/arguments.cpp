#include "quant/arguments.h"

#include "core/error.h"

namespace oarlock::quant {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 31;
constexpr std::int64_t kLine = 64;

const oarlock_tensor& one(const oarlock_tensors& list, Access access,
                          std::initializer_list<std::int32_t> types, Device device) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " +
                      std::to_string(list.count));
  check_dtype(list, types);
  check_memory(list, access, device);
  return list.items[0];
}

std::string size_text(std::int64_t size) { return size < 0 ? "any" : std::to_string(size); }

}  // namespace

const oarlock_tensor& matrix(const oarlock_tensors& list, Access access,
                             std::initializer_list<std::int32_t> types, std::int64_t rows,
                             std::int64_t columns, Device device) {
  const oarlock_tensor& item = one(list, access, types, device);
  if (item.ndim == 2 && (rows < 0 || item.shape[0] == rows) &&
      (columns < 0 || item.shape[1] == columns))
    return item;
  throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must be [" +
                    size_text(rows) + ", " + size_text(columns) + "]");
}

const oarlock_tensor& vector(const oarlock_tensors& list, Access access,
                             std::initializer_list<std::int32_t> types, std::int64_t count,
                             Device device) {
  const oarlock_tensor& item = one(list, access, types, device);
  if (item.ndim == 1 && (count < 0 || item.shape[0] == count)) return item;
  throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must be [" +
                    size_text(count) + "]");
}

Format format_of(std::int32_t given) {
  if (given < 0 || given >= kFormats)
    throw BadArgument("format is unknown: " + std::to_string(given));
  return static_cast<Format>(given);
}

std::int64_t packed_bytes(const oarlock_quant_matrix& given) {
  if (given.inputs < 1 || given.outputs < 1 || given.inputs > kMost || given.outputs > kMost)
    throw BadArgument("a weight must have between 1 and 2^31 inputs and outputs, not " +
                      std::to_string(given.inputs) + " and " + std::to_string(given.outputs));
  return panels_of(given.outputs) * panel_bytes(format_of(given.format), given.inputs);
}

Matrix packed(const oarlock_tensors& list, const oarlock_quant_matrix& given, Access access) {
  const std::int64_t bytes = packed_bytes(given);
  const oarlock_tensor& item = vector(list, access, {1 << 8 | 8}, bytes);
  if (reinterpret_cast<std::uintptr_t>(item.data) % kLine != 0)
    throw BadArgument(item_name(list, 0) + " must begin at a multiple of 64 bytes");
  return {static_cast<const std::uint8_t*>(item.data), given.inputs, given.outputs,
          format_of(given.format)};
}

}  // namespace oarlock::quant

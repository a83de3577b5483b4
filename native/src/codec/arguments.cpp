#include "codec/arguments.h"

namespace oarlock::codec {

const oarlock_tensor& flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                           Access access) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " +
                      std::to_string(list.count));
  check_dtype(list, dtypes);
  check_memory(list, access);
  return list.items[0];
}

const oarlock_tensor& flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                           Access access, std::int64_t count, const std::string& because) {
  const oarlock_tensor& item = flat(list, dtypes, access);
  check_flat(list, dtypes, access, count, because);
  return item;
}

void check_flat(const oarlock_tensors& list, std::initializer_list<std::int32_t> dtypes,
                Access access, std::int64_t count, const std::string& because) {
  if (list.count == 0) throw BadArgument(std::string(list.name) + " must have at least one tensor");
  check_dtype(list, dtypes);
  check_memory(list, access);
  for (std::int64_t i = 0; i < list.count; ++i)
    if (list.items[i].count != count)
      throw BadArgument(item_name(list, i) + " has " + std::to_string(list.items[i].count) +
                        " elements, but " + because + " need " + std::to_string(count));
}

std::string elements_of(const oarlock_tensors& list) {
  return "the " + std::to_string(list.items[0].count) + " elements of " + item_name(list, 0);
}

void check_positions(const oarlock_tensors& list) {
  constexpr std::int64_t kMost = UINT32_MAX;
  if (list.items[0].count > kMost)
    throw BadArgument(item_name(list, 0) + " has " + std::to_string(list.items[0].count) +
                      " elements, but positions are 32 bits, for at most " + std::to_string(kMost) +
                      "; pass it in parts");
}

BadArgument changed_meanwhile(const oarlock_tensors& list) {
  return BadArgument(item_name(list, 0) + " changed while its entries were taken; leave it alone "
                     "during the call");
}

}  // namespace oarlock::codec

#include "codec/row.h"

#include <algorithm>
#include <cstring>

#include "codec/kernels.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::ValueKernels, codec_value_kernels)

namespace oarlock::codec {

Row::Row(const oarlock_tensors& list, Access access) : list_(list), ends_{0} {
  check_dtype(list, {kFloat32, kBfloat16});
  check_memory(list, access);
  for (std::int64_t i = 0; i < list.count; ++i) ends_.push_back(ends_.back() + list.items[i].count);
}

void Row::check_elements(std::int64_t count, const std::string& because) const {
  if (this->count() != count)
    throw BadArgument(std::string(list_.name) + " have " + std::to_string(this->count()) +
                      " elements in all, but " + because + " need " + std::to_string(count));
}

template <typename Body>
void Row::within(std::int64_t begin, std::int64_t n, const Body& body) const {
  const std::int64_t end = begin + n;
  auto i = std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin() - 1;
  for (std::int64_t here = begin; here < end; ++i) {
    const std::int64_t stop = std::min(end, ends_[i + 1]);
    if (stop > here) body(list_.items[i], here - ends_[i], here - begin, stop - here);
    here = stop;
  }
}

void Row::add_to(float* x, std::int64_t begin, std::int64_t n) const {
  if (empty()) return;
  const auto& accumulate = OARLOCK_KERNELS(codec_value_kernels).accumulate;
  within(begin, n, [&](const oarlock_tensor& item, std::int64_t first, std::int64_t at,
                       std::int64_t count) {
    const char* const from = data<char>(item) + first * item_size(item.dtype);
    accumulate[item.dtype == kBfloat16](x + at, from, count, 1.0f, 1.0f);
  });
}

float* Row::place(std::int64_t begin, std::int64_t n) const {
  const auto i = std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin() - 1;
  if (i == list_.count || ends_[i + 1] < begin + n || list_.items[i].dtype != kFloat32) return nullptr;
  return data<float>(list_.items[i]) + (begin - ends_[i]);
}

void Row::write(float* x, std::int64_t begin, std::int64_t n) const {
  const auto round = OARLOCK_KERNELS(codec_value_kernels).bf16_encode[0];
  within(begin, n, [&](const oarlock_tensor& item, std::int64_t first, std::int64_t at,
                       std::int64_t count) {
    if (item.dtype == kFloat32)
      std::memcpy(data<float>(item) + first, x + at, count * sizeof(float));
    else
      round(x + at, count, data<std::uint16_t>(item) + first);
  });
}

}  // namespace oarlock::codec

// Tensors that lie flat one behind the other, as the gradients of a bucket do.
#pragma once

#include <string>
#include <vector>

#include "codec/arguments.h"

namespace oarlock::codec {

class Row {
 public:
  // Checks them: float32 or bfloat16, contiguous on the CPU.
  Row(const oarlock_tensors& list, Access access);

  bool empty() const { return list_.count == 0; }
  std::int64_t count() const { return ends_.back(); }  // elements in all

  // There are so many elements; `because` says what needs them.
  void check_elements(std::int64_t count, const std::string& because) const;

  // x += the elements from `begin` on
  void add_to(float* x, std::int64_t begin, std::int64_t n) const;
  // Where they are, if one float32 tensor has all of them; null otherwise.
  float* place(std::int64_t begin, std::int64_t n) const;
  // ... = x
  void write(float* x, std::int64_t begin, std::int64_t n) const;

 private:
  // Calls body(item, first, at, n) for every item in [begin, begin + n): it has n of these elements, from
  // its element `first` on, and they are `at` behind `begin`.
  template <typename Body>
  void within(std::int64_t begin, std::int64_t n, const Body& body) const;

  const oarlock_tensors& list_;
  std::vector<std::int64_t> ends_;  // behind a 0
};

}  // namespace oarlock::codec

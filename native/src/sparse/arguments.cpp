#include "sparse/arguments.h"

#include "core/error.h"

namespace oarlock::sparse {
namespace {

std::string text(std::int64_t number) { return std::to_string(number); }

const oarlock_tensor& only(const oarlock_tensors& list, std::int32_t dtype, int ndim,
                           Access access) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " + text(list.count));
  check_dtype(list, {dtype});
  check_memory(list, access);
  const oarlock_tensor& item = list.items[0];
  if (item.ndim != ndim)
    throw BadArgument(item_name(list, 0) + " has shape " + shape_text(item) + ", but must have " +
                      text(ndim) + (ndim == 1 ? " axis" : " axes") + "; reshape it");
  return item;
}

constexpr std::int32_t kInt32 = 0 << 8 | 32;

const std::int32_t* int32_vector(const oarlock_tensors& list) {
  return static_cast<const std::int32_t*>(only(list, kInt32, 1, Access::read).data);
}

}  // namespace

View matrix(const oarlock_tensors& list, Access access) {
  const oarlock_tensor& item = only(list, kFloat32, 2, access);
  return {static_cast<float*>(item.data), item.shape[0], item.shape[1]};
}

View matrix(const oarlock_tensors& list, Access access, std::int64_t rows, std::int64_t columns,
            const char* because) {
  const View view = matrix(list, access);
  if (view.rows == rows && view.columns == columns) return view;
  throw BadArgument(item_name(list, 0) + " has shape " + shape_text(list.items[0]) + ", but " +
                    because + " needs [" + text(rows) + ", " + text(columns) + "]");
}

Structure structure(const oarlock_tensors& pointers, const oarlock_tensors& indices,
                    std::int64_t columns) {
  Structure s;
  s.pointers = int32_vector(pointers);
  s.indices = int32_vector(indices);
  s.rows = pointers.items[0].count - 1;
  s.entries = indices.items[0].count;
  if (s.rows < 0)
    throw BadArgument(item_name(pointers, 0) + " is empty, but must begin with 0; for a matrix "
                      "without rows it is [0]");
  if (s.pointers[0] != 0 || s.pointers[s.rows] != s.entries)
    throw BadArgument(item_name(pointers, 0) + " goes from " + text(s.pointers[0]) + " to " +
                      text(s.pointers[s.rows]) + ", but must go from 0 to the " +
                      text(s.entries) + " of " + item_name(indices, 0));
  for (std::int64_t row = 0; row < s.rows; ++row)
    if (s.pointers[row] > s.pointers[row + 1])
      throw BadArgument(item_name(pointers, 0) + " falls from " + text(s.pointers[row]) + " to " +
                        text(s.pointers[row + 1]) + " after row " + text(row) +
                        "; it must never fall");
  for (std::int64_t row = 0; row < s.rows; ++row) {
    std::int64_t last = -1;
    for (std::int64_t i = s.pointers[row]; i < s.pointers[row + 1]; ++i) {
      const std::int64_t index = s.indices[i];
      if (index <= last || index >= columns)
        throw BadArgument(
            item_name(indices, 0) + " has " + text(index) + " in row " + text(row) + ", " +
            (index < 0 || index >= columns
                 ? "but must be in [0, " + text(columns) + ")"
                 : "after " + text(last) + "; they must rise within a row, so sort them and add "
                   "up duplicates"));
      last = index;
    }
  }
  return s;
}

float* entry_values(const oarlock_tensors& values, Access access, const Structure& s) {
  const oarlock_tensor& item = only(values, kFloat32, 1, access);
  if (item.count != s.entries)
    throw BadArgument(item_name(values, 0) + " has " + text(item.count) +
                      " elements, but there are " + text(s.entries) + " indices; there must be "
                      "one for each");
  return static_cast<float*>(item.data);
}

std::int32_t* whole_numbers(const oarlock_tensors& list, std::int64_t count) {
  const oarlock_tensor& item = only(list, kInt32, 1, Access::write);
  if (item.count != count)
    throw BadArgument(item_name(list, 0) + " has " + text(item.count) + " elements, but needs " +
                      text(count));
  return static_cast<std::int32_t*>(item.data);
}

Transposed transposed(const Structure& s, std::int64_t columns) {
  Transposed t;
  t.pointers.assign(columns + 1, 0);
  t.indices.resize(s.entries);
  t.entries.resize(s.entries);
  for (std::int64_t i = 0; i < s.entries; ++i) ++t.pointers[s.indices[i] + 1];
  for (std::int64_t column = 0; column < columns; ++column)
    t.pointers[column + 1] += t.pointers[column];
  std::vector<std::int32_t> next(t.pointers.begin(), t.pointers.end() - 1);
  for (std::int64_t row = 0; row < s.rows; ++row)
    for (std::int32_t i = s.pointers[row]; i < s.pointers[row + 1]; ++i) {
      const std::int32_t place = next[s.indices[i]]++;
      t.indices[place] = static_cast<std::int32_t>(row);
      t.entries[place] = i;
    }
  return t;
}

}  // namespace oarlock::sparse

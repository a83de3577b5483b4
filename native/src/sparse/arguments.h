// Checks of matrices and of the structures of sparse ones.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensors.h"
#include "sparse/pack.h"

namespace oarlock::sparse {

// A float32 matrix given as a list of one.
View matrix(const oarlock_tensors& list, Access access);

// As above, and of these sizes; `because` says whose sizes they are.
View matrix(const oarlock_tensors& list, Access access, std::int64_t rows, std::int64_t columns,
            const char* because);

// The rows of a compressed matrix and where their entries (or blocks) stand.
struct Structure {
  const std::int32_t* pointers;
  const std::int32_t* indices;
  std::int64_t rows, entries;
};

// int32 vectors; pointers rise from 0 to the number of indices, which rise within each row and are
// in [0, columns).
Structure structure(const oarlock_tensors& pointers, const oarlock_tensors& indices,
                    std::int64_t columns);

// A float32 vector of as many values as there are entries.
float* entry_values(const oarlock_tensors& values, Access access, const Structure& s);

// int32 vector that is written.
std::int32_t* whole_numbers(const oarlock_tensors& list, std::int64_t count);

// The structure of the transpose, and which entry of the matrix each of its entries is.
struct Transposed {
  std::vector<std::int32_t> pointers, indices, entries;
};
Transposed transposed(const Structure& s, std::int64_t columns);

}  // namespace oarlock::sparse

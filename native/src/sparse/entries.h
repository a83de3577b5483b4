// Products with sparse matrices of single entries, of matrices that were checked before.
#pragma once

#include <cstdint>
#include <vector>

#include "sparse/arguments.h"
#include "sparse/workspaces.h"

namespace oarlock::sparse {

// A CSR matrix whose values may be held elsewhere.
struct Entries {
  Structure at;
  const float* values;
};

// out = S dense; `dense` and `out` are given as their transposes where the flags say so.
void multiply(const Entries& s, const View& dense, bool transpose_dense, const View& out,
              bool transpose_out, std::int32_t threads);

// out[entry (r, c)] = a[r] . b[c], or with `transpose` of columns r and c.
void sample(const View& a, const View& b, bool transpose, const Structure& s, float* out,
            std::int32_t threads);

// values[entries[i]] for all i.
Memory gathered(const float* values, const std::vector<std::int32_t>& entries);

}  // namespace oarlock::sparse

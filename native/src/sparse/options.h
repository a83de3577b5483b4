// Options of the sparse entry points; mirrored in oarlock/native/_sparse_abi.py.
#pragma once

#include <cstdint>

struct oarlock_sparse_options {
  std::int32_t transpose;         // use the sparse matrix transposed
  std::int32_t transpose_dense;   // the dense operand is given as its transpose
  std::int32_t transpose_out;     // the result is wanted as its transpose
  std::int32_t group;             // N:M: the M, entries of a group
  std::int32_t above;             // from_dense: keep what is above `least`, less it
  float least;
};

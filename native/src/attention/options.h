// Options of the entry points, mirrored in oarlock/native/_attention_abi.py.
#pragma once

#include <cstdint>

extern "C" {

struct oarlock_attention_options {
  double scale;         // of the products of queries and keys
  std::int32_t causal;  // row i sees keys up to i + keys - rows
};

}  // extern "C"

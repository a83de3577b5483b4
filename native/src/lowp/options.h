// Options of the entry points, mirrored in oarlock/native/_lowp_abi.py.
#pragma once

#include <cstdint>

extern "C" {

struct oarlock_lowp_format {
  std::int32_t format;      // oarlock::lowp::Format
  std::int32_t stochastic;  // round at random, by a hash of seed and element
  std::int32_t codes;       // the operand holds codes of the format already
  std::int64_t block;       // elements along the reduction that share a scale; 0 for all of them
  std::uint64_t seed;
};

struct oarlock_lowp_matmul_options {
  oarlock_lowp_format a, b;
  std::int32_t transpose_a, transpose_b;
  std::int32_t activation;  // oarlock::lowp::Activation
  std::int32_t base;        // leave out instructions that not every processor of the path has
};

}  // extern "C"

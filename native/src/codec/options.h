// Options of the codec entry points; mirrored in oarlock/native/_codec_abi.py.
#pragma once

#include <cstdint>

struct oarlock_codec_options {
  std::int64_t block;       // elements that share a scale, or of a chunk
  std::int64_t k;           // entries of a chunk, or the rank of a magnitude
  std::int64_t most;        // entries to take at most; < 0: no such limit
  std::uint64_t seed;
  double eps;
  std::int32_t bits;        // of a code
  std::int32_t stochastic;  // round at random, by `seed`
  std::int32_t keep;        // leave in the accumulator what was not sent
  std::int32_t inverse;
  float weight;             // of what is added
  float decay;              // of what is there
  float threshold;
};

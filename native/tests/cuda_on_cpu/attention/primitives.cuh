// In place of native/cuda/attention/primitives.cuh: the same instructions as PTX's manual describes them.
#pragma once

#include "lowp/primitives.cuh"

namespace oarlock::cuda::attention {

inline void load_transposed(const char* row, std::uint32_t (&out)[4]) {
  std::uint32_t lines[4];
  lowp::load_matrices(row, lines);
  // Lane 4 i + j has numbers 2 j and 2 j + 1 of line i.
  const auto found = cuda_on_cpu::together<lowp::Registers>(
      lowp::Registers{{lines[0], lines[1], lines[2], lines[3]}},
      [](const lowp::Registers (&all)[32], lowp::Registers (&results)[32]) {
        for (int lane = 0; lane < 32; ++lane)
          for (int matrix = 0; matrix < 4; ++matrix) {
            std::uint32_t word = 0;
            for (int half = 0; half < 2; ++half) {
              const int line = lane % 4 * 2 + half, column = lane / 4;
              const std::uint32_t two = all[line * 4 + column / 2].word[matrix];
              word |= (two >> 16 * (column % 2) & 0xffffu) << 16 * half;
            }
            results[lane].word[matrix] = word;
          }
      });
  std::memcpy(out, found.word, sizeof found.word);
}

inline float power_of_two(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }

}  // namespace oarlock::cuda::attention

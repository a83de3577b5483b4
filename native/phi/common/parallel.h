// Loops over Paddle's own threads.
//
// Compiled with -fopenmp and linked with the OpenMP runtime that Paddle has loaded (libiomp5, which
// also answers to GCC's entry points), so there is one pool of threads and one setting of their
// number in the process: the one Paddle's operators use.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace oarlock {

// Calls body(begin, end) for disjoint ranges that cover [0, count), each of at least `grain`
// (but for the last), on as many threads as Paddle is set to.
template <typename Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, const Body& body) {
  const std::int64_t most = std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, grain));
  const int threads = static_cast<int>(std::min<std::int64_t>(omp_get_max_threads(), most));
  if (threads <= 1 || omp_in_parallel()) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const std::int64_t begin = count * me / team, end = count * (me + 1) / team;
    if (begin < end) body(begin, end);
  }
}

}  // namespace oarlock

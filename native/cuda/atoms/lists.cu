#include "atoms/lists.cuh"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/launch.cuh"

namespace oarlock::cuda::atoms {
namespace {

constexpr int kScan = 1024;
constexpr unsigned long long kNone = ~0ull;

unsigned blocks_of(std::int64_t count, std::int64_t of_block) {
  return static_cast<unsigned>((count + of_block - 1) / of_block);
}

__device__ std::int64_t own_atom() {
  return std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
}

// Edges that end at each atom; the first atom with a neighbour that is none.
__global__ void count_back(Rows rows, unsigned long long* fault, std::int32_t* counts) {
  const std::int64_t atom = own_atom();
  if (atom >= rows.owned) return;
  for (std::int64_t e = rows.offsets[atom] + threadIdx.x % kWarp; e < rows.offsets[atom + 1];
       e += kWarp) {
    const std::int32_t other = rows.neighbours[e];
    if (other < 0 || other >= rows.atoms)
      atomicMin(fault, static_cast<unsigned long long>(atom));
    else
      atomicAdd(&counts[other], 1);
  }
}

// begins[i] = counts before i, and counts = 0. One block.
__global__ void begin_at(std::int32_t* counts, std::int64_t count, std::int32_t* begins) {
  __shared__ std::int32_t sums[kScan];
  const std::int64_t part = (count + kScan - 1) / kScan;
  const std::int64_t begin = min(count, part * threadIdx.x), end = min(count, begin + part);
  std::int32_t sum = 0;
  for (std::int64_t i = begin; i < end; ++i) sum += counts[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int32_t before = 0;
    for (int i = 0; i < kScan; ++i) {
      const std::int32_t own = sums[i];
      sums[i] = before;
      before += own;
    }
    begins[count] = before;
  }
  __syncthreads();
  std::int32_t before = sums[threadIdx.x];
  for (std::int64_t i = begin; i < end; ++i) {
    begins[i] = before;
    before += counts[i];
    counts[i] = 0;
  }
}

__global__ void collect_back(Rows rows, const std::int32_t* begins, std::int32_t* counts,
                             std::int32_t* back) {
  const std::int64_t atom = own_atom();
  if (atom >= rows.owned) return;
  for (std::int64_t e = rows.offsets[atom] + threadIdx.x % kWarp; e < rows.offsets[atom + 1];
       e += kWarp) {
    const std::int32_t other = rows.neighbours[e];
    back[begins[other] + atomicAdd(&counts[other], 1)] = static_cast<std::int32_t>(e);
  }
}

// Whichever came first: each atom's in rising order.
__global__ void sort_back(std::int64_t atoms, const std::int32_t* begins, const std::int32_t* back,
                          std::int32_t* sorted) {
  const std::int64_t atom = own_atom();
  if (atom >= atoms) return;
  const std::int32_t begin = begins[atom], end = begins[atom + 1];
  for (std::int32_t i = begin + static_cast<std::int32_t>(threadIdx.x % kWarp); i < end; i += kWarp) {
    const std::int32_t own = back[i];
    std::int32_t rank = 0;
    for (std::int32_t j = begin; j < end; ++j) rank += back[j] < own;
    sorted[begin + rank] = own;
  }
}

}  // namespace

Lists::Lists(const oarlock_atoms_structure& given)
    : atoms_(given.atoms), owned_(given.owned),
      edges_(given.owned > 0 ? given.offsets[given.owned] : 0), has_shifts_(given.shifts != nullptr) {
  if (edges_ > INT32_MAX)
    throw BadArgument("offsets has " + std::to_string(edges_) +
                      " edges, more than 2^31: share the atoms out among GPUs");
  species_.upload(given.species, atoms_);
  offsets_.upload(given.offsets, owned_ + 1);
  neighbours_.upload(given.neighbours, edges_);
  if (has_shifts_) shifts_.upload(given.shifts, 3 * edges_);
  back_.reserve(edges_);
  back_begins_.reserve(atoms_ + 1);
  Array<std::int32_t> counts(atoms_ + 1), unsorted(edges_);
  Array<unsigned long long> fault(1);
  counts.fill_bytes(0, atoms_ + 1);
  fault.fill_bytes(0xff, 1);
  const unsigned blocks = blocks_of(owned_, kWarps);
  if (owned_ > 0)
    launch("deep potential count_back", count_back, dim3(blocks), kWarps * kWarp, 0, rows(),
           fault.data(), counts.data());
  unsigned long long first = kNone;
  fault.download(&first, 1);
  check(cudaStreamSynchronize(stream()), "lists");
  if (first != kNone)
    throw BadArgument("a neighbour of atom " + std::to_string(first) + " is not among the " +
                      std::to_string(atoms_) + " atoms");
  launch("deep potential begin_at", begin_at, dim3(1), kScan, 0, counts.data(), atoms_,
         back_begins_.data());
  if (owned_ == 0) return;
  launch("deep potential collect_back", collect_back, dim3(blocks), kWarps * kWarp, 0, rows(),
         back_begins_.data(), counts.data(), unsorted.data());
  launch("deep potential sort_back", sort_back, dim3(blocks_of(atoms_, kWarps)), kWarps * kWarp, 0,
         atoms_, back_begins_.data(), unsorted.data(), back_.data());
}

}  // namespace oarlock::cuda::atoms

// Rounding to codes and scales with the CPU's bits, reading codes, and arranging them.

#include "lowp/codes.cuh"

#include "core/error.h"
#include "core/launch.cuh"
#include "lowp/codecs.h"
#include "lowp/layout.h"
#include "lowp/random.h"

namespace oarlock::cuda::lowp {
namespace {

using oarlock::lowp::Random;
using oarlock::lowp::divided_up;

constexpr int kCodeThreads = 256;

// A matrix of values in memory, and the blocks of its reduction.
struct Values {
  const void* data;
  std::int64_t rows, columns, block;
  bool narrow, along_rows;

  __device__ float at(std::int64_t row, std::int64_t column) const {
    const std::int64_t i = row * columns + column;
    return narrow ? path::load(static_cast<const path::bfloat16*>(data), i)
                  : path::load(static_cast<const float*>(data), i);
  }
  __device__ std::uint32_t magnitude(std::int64_t row, std::int64_t column) const {
    return path::to_bits(at(row, column)) & 0x7fffffffu;
  }
  // The place of an element's scale in [blocks, vectors]; rows and columns are below 2^31.
  __device__ std::int64_t scale_of(std::int64_t row, std::int64_t column) const {
    const auto k = static_cast<std::uint32_t>(along_rows ? column : row);
    const std::int64_t index = k / static_cast<std::uint32_t>(block);
    return along_rows ? index * rows + row : index * columns + column;
  }
};

// Largest magnitudes along rows: `width` lanes, or the whole block of threads, for one of a block of
// a row.
__global__ void __launch_bounds__(kCodeThreads)
    most_along(const Values x, std::int64_t blocks, int width, std::uint32_t* most) {
  const int lane = threadIdx.x % width;
  const std::int64_t index =
      static_cast<std::int64_t>(blockIdx.x) * (kCodeThreads / width) + threadIdx.x / width;
  std::uint32_t found = 0;
  const std::int64_t row = index / blocks, block = index % blocks;
  if (row < x.rows) {
    const std::int64_t end = min((block + 1) * x.block, x.columns);
    for (std::int64_t k = block * x.block + lane; k < end; k += width)
      found = max(found, x.magnitude(row, k));
  }
  for (int step = min(width, kLanes) / 2; step > 0; step /= 2)
    found = max(found, __shfl_xor_sync(0xffffffffu, found, step));
  if (width > kLanes) {
    __shared__ std::uint32_t of_warps[kCodeThreads / kLanes];
    if (threadIdx.x % kLanes == 0) of_warps[threadIdx.x / kLanes] = found;
    __syncthreads();
    for (int warp = 0; warp < kCodeThreads / kLanes; ++warp) found = max(found, of_warps[warp]);
  }
  if (lane == 0 && row < x.rows) most[block * x.rows + row] = found;
}

// Across rows: a block of threads has 32 columns and `slab` rows of a block; most was zero.
constexpr int kSlab = 256, kRowsOfSlab = kCodeThreads / kLanes;

__global__ void __launch_bounds__(kCodeThreads)
    most_across(const Values x, std::int64_t slabs, std::uint32_t* most) {
  __shared__ std::uint32_t of_rows[kRowsOfSlab][kLanes];
  const int lane = threadIdx.x % kLanes, share = threadIdx.x / kLanes;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kLanes + lane;
  const std::int64_t block = blockIdx.y / slabs, slab = blockIdx.y % slabs;
  const std::int64_t begin = block * x.block + slab * kSlab;
  const std::int64_t end = min(min(begin + kSlab, (block + 1) * x.block), x.rows);
  std::uint32_t found = 0;
  if (column < x.columns)
    for (std::int64_t row = begin + share; row < end; row += kRowsOfSlab)
      found = max(found, x.magnitude(row, column));
  of_rows[share][lane] = found;
  __syncthreads();
  if (share > 0 || column >= x.columns) return;
  for (int i = 1; i < kRowsOfSlab; ++i) found = max(found, of_rows[i][lane]);
  atomicMax(most + block * x.columns + column, found);  // of integers: any order is right
}

// Magnitudes become inverses, in place.
__global__ void __launch_bounds__(kCodeThreads)
    scales_of(Format format, std::int64_t count, std::uint32_t* most, float* scales) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kCodeThreads + threadIdx.x;
  if (i >= count) return;
  float inverse;
  scales[i] = oarlock::lowp::scale_of(format, most[i], &inverse);
  most[i] = path::to_bits(inverse);
}

// Four neighbours of a row for each thread, rows gridDim.y apart. Rows of codes are `pitch` bytes.
template <typename Codec>
__global__ void __launch_bounds__(kCodeThreads)
    encode_rows(const Values x, const float* inverses, bool stochastic, std::uint64_t key,
                char* codes, std::int64_t pitch) {
  using Code = typename Codec::Code;
  struct alignas(4 * sizeof(Code)) Four {
    Code code[4];
  };
  const std::int64_t first =
      (static_cast<std::int64_t>(blockIdx.x) * kCodeThreads + threadIdx.x) * 4;
  const std::int64_t width = pitch / sizeof(Code);
  if (first >= width) return;
  for (std::int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    const Random random = oarlock::lowp::random_of_row(key, row, first);
    Four four;
    for (int i = 0; i < 4; ++i) {
      const std::int64_t column = first + i;
      four.code[i] = Code(0);
      if (column >= x.columns) continue;
      const float inverse = inverses ? inverses[x.scale_of(row, column)] : 1.0f;
      const float y = x.at(row, column) * inverse;
      if (stochastic)
        four.code[i] = Codec::template code<true>(
            y, path::random_bits(random.first + i, random.key0, random.key1));
      else
        four.code[i] = Codec::template code<false>(y, 0u);
    }
    char* const out = codes + row * pitch + first * sizeof(Code);
    if (first + 4 <= width && reinterpret_cast<std::uintptr_t>(out) % sizeof(Four) == 0)
      *reinterpret_cast<Four*>(out) = four;
    else
      for (int i = 0; i < 4 && first + i < width; ++i)
        reinterpret_cast<Code*>(out)[i] = four.code[i];
  }
}

template <typename Codec>
__global__ void __launch_bounds__(kCodeThreads)
    decode_rows(const Values codes, const float* scales, float* out) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kCodeThreads + threadIdx.x;
  if (column >= codes.columns) return;
  for (std::int64_t row = blockIdx.y; row < codes.rows; row += gridDim.y) {
    const std::int64_t i = row * codes.columns + column;
    const float x = Codec::decode(static_cast<const typename Codec::Code*>(codes.data)[i]);
    out[i] = scales ? x * scales[codes.scale_of(row, column)] : x;
  }
}

// What a product takes of a code: To(code), at `place` of a vector.
template <typename T>
struct Same {
  using From = T;
  static __device__ void put(char* vector, std::int64_t k, From code) {
    reinterpret_cast<T*>(vector)[k] = code;
  }
};
struct Digits {
  using From = std::int16_t;
  static __device__ void put(char* vector, std::int64_t k, From code) {
    vector[place_of_low(k)] = static_cast<char>(low_digit(code));
    vector[place_of_high(k)] = static_cast<char>(high_digit(code));
  }
};
template <typename Codec>
struct Half {
  using From = typename Codec::Code;
  static __device__ void put(char* vector, std::int64_t k, From code) {
    reinterpret_cast<std::uint16_t*>(vector)[k] =
        path::Fp16::code<false>(Codec::decode(code), 0u);
  }
};
template <typename Codec>
struct Float {
  using From = typename Codec::Code;
  static __device__ void put(char* vector, std::int64_t k, From code) {
    reinterpret_cast<float*>(vector)[k] = Codec::decode(code);
  }
};

// A square of 32 rows and columns through shared memory, as the reduction may run across rows.
// Vectors are `width` elements, with zeros at the end.
template <typename To>
__global__ void __launch_bounds__(kCodeThreads)
    arrange_square(const typename To::From* codes, std::int64_t rows, std::int64_t columns,
                   bool along_rows, std::int64_t width, char* packed, std::int64_t pitch) {
  using From = typename To::From;
  __shared__ From square[kLanes][kLanes + 1];  // [vector][k] along rows, else [k][vector]
  const int lane = threadIdx.x % kLanes, share = threadIdx.x / kLanes;
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * kLanes;
  const std::int64_t vectors = along_rows ? rows : columns;
  for (std::int64_t v = static_cast<std::int64_t>(blockIdx.y) * kLanes; v < vectors;
       v += static_cast<std::int64_t>(gridDim.y) * kLanes) {
    for (int i = share; i < kLanes; i += kCodeThreads / kLanes) {
      const std::int64_t row = (along_rows ? v : k) + i, column = (along_rows ? k : v) + lane;
      square[i][lane] = row < rows && column < columns ? codes[row * columns + column] : From(0);
    }
    __syncthreads();
    for (int i = share; i < kLanes; i += kCodeThreads / kLanes)
      if (v + i < vectors && k + lane < width)
        To::put(packed + (v + i) * pitch, k + lane, along_rows ? square[i][lane] : square[lane][i]);
    __syncthreads();
  }
}

unsigned rows_of_grid(std::int64_t rows) {
  return static_cast<unsigned>(rows < 65535 ? rows : 65535);
}

unsigned blocks_for(const char* what, std::int64_t blocks) {
  if (blocks >> 31)
    throw BadArgument(std::string(what) + " is too large for a GPU; split it");
  return static_cast<unsigned>(blocks);
}

void check_size(std::int64_t rows, std::int64_t columns) {
  if (rows >> 31 || columns >> 31)
    throw BadArgument("a matrix of shape [" + std::to_string(rows) + ", " +
                      std::to_string(columns) + "] is too large for a GPU; split it");
}

// Calls body(a codec of the format).
template <typename Body>
void with_codec(Format format, const Body& body) {
  switch (format) {
    case Format::fp32: return body(path::Fp32{});
    case Format::bf16: return body(path::Bf16{});
    case Format::fp16: return body(path::Fp16{});
    case Format::int8: return body(path::Int8{});
    case Format::int16: return body(path::Int16{});
    case Format::fp8_e4m3: return body(path::Fp8E4m3{});
    case Format::fp8_e5m2: return body(path::Fp8E5m2{});
  }
}

// `most` was zero; where there are no elements it stays so.
void find_most(const Values& x, const Depth& depth, std::uint32_t* most) {
  if (x.rows == 0 || x.columns == 0) return;
  if (x.along_rows) {
    const int width = depth.block <= 256 ? 8 : depth.block <= 2048 ? kLanes : kCodeThreads;
    const std::int64_t count = x.rows * depth.blocks;
    launch("lowp most_along", most_along,
           dim3(blocks_for("x", divided_up(count, kCodeThreads / width))), kCodeThreads, 0, x,
           depth.blocks, width, most);
    return;
  }
  const std::int64_t slabs = divided_up(depth.block, kSlab), high = depth.blocks * slabs;
  if (high > 65535) throw BadArgument("x has too many blocks of rows for a GPU; take larger ones");
  launch("lowp most_across", most_across,
         dim3(blocks_for("x", divided_up(x.columns, kLanes)), static_cast<unsigned>(high)),
         kCodeThreads, 0, x, slabs, most);
}

}  // namespace

std::int64_t code_size(Format format) {
  switch (format) {
    case Format::fp32: return 4;
    case Format::int8:
    case Format::fp8_e4m3:
    case Format::fp8_e5m2: return 1;
    default: return 2;
  }
}

int size_of(Element element) {
  return element == Element::bytes ? 1 : element == Element::floats ? 4 : 2;
}

void encode(const Rounding& r, float* scales, void* codes, std::int64_t pitch) {
  const oarlock_tensor& item = r.x;
  const auto format = static_cast<Format>(r.format.format);
  check_size(item.shape[0], item.shape[1]);
  const Depth depth(item.shape[r.along_rows ? 1 : 0], oarlock::lowp::Unit::floats, r.format.block);
  const Values x{item.data, item.shape[0], item.shape[1], depth.block, item.dtype == kBfloat16,
                 r.along_rows};
  const std::int64_t count = scales ? depth.blocks * (r.along_rows ? x.rows : x.columns) : 0;
  const Memory most(sizeof(std::uint32_t) * count);
  if (count > 0) {
    check(cudaMemsetAsync(most.as<void>(), 0, sizeof(std::uint32_t) * count, stream()),
          "cudaMemsetAsync");
    find_most(x, depth, most.as<std::uint32_t>());
    launch("lowp scales_of", scales_of, dim3(blocks_for("x", divided_up(count, kCodeThreads))),
           kCodeThreads, 0, format, count, most.as<std::uint32_t>(), scales);
  }
  const std::int64_t width = pitch / code_size(format);
  if (x.rows == 0 || width == 0) return;
  const std::uint64_t key = mix(mix(r.format.seed) ^ r.operand);
  with_codec(format, [&](auto codec) {
    launch("lowp encode", encode_rows<decltype(codec)>,
           dim3(blocks_for("x", divided_up(width, 4 * kCodeThreads)), rows_of_grid(x.rows)),
           kCodeThreads, 0, x, most.as<float>(), r.format.stochastic != 0, key,
           static_cast<char*>(codes), pitch);
  });
}

void decode(const void* codes, Format format, std::int64_t rows, std::int64_t columns,
            bool along_rows, const Depth& depth, const float* scales, float* out) {
  check_size(rows, columns);
  if (rows == 0 || columns == 0) return;
  const Values x{codes, rows, columns, depth.block, false, along_rows};
  with_codec(format, [&](auto codec) {
    launch("lowp decode", decode_rows<decltype(codec)>,
           dim3(blocks_for("x", divided_up(columns, kCodeThreads)), rows_of_grid(rows)),
           kCodeThreads, 0, x, scales, out);
  });
}

void arrange(const void* codes, Format format, std::int64_t rows, std::int64_t columns,
             bool along_rows, Element element, void* packed, std::int64_t pitch) {
  check_size(rows, columns);
  const std::int64_t vectors = along_rows ? rows : columns, width = pitch / size_of(element);
  if (vectors == 0 || width == 0) return;
  const auto run = [&](auto to) {
    using To = decltype(to);
    launch("lowp arrange", arrange_square<To>,
           dim3(blocks_for("an operand", divided_up(width, kLanes)),
                rows_of_grid(divided_up(vectors, kLanes))),
           kCodeThreads, 0, static_cast<const typename To::From*>(codes), rows, columns, along_rows,
           width, static_cast<char*>(packed), pitch);
  };
  switch (element) {
    case Element::bytes: return run(Same<std::uint8_t>{});
    case Element::halves: return run(Same<std::uint16_t>{});
    case Element::digits: return run(Digits{});
    case Element::fp16:
      return format == Format::fp8_e4m3 ? run(Half<path::Fp8E4m3>{}) : run(Half<path::Fp8E5m2>{});
    case Element::floats:
      if (format == Format::bf16) return run(Float<path::Bf16>{});
      if (format == Format::fp16) return run(Float<path::Fp16>{});
      return run(Same<float>{});
  }
}

}  // namespace oarlock::cuda::lowp

#include "common/matrix.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

#include "common/onednn_c.h"

namespace oarlock {
namespace {

using Dims = std::vector<std::int64_t>;

void check(int status, const char* call) {
  if (status != dnnl_success)
    throw std::runtime_error(std::string("oarlock: oneDNN's ") + call + " failed with status " +
                             std::to_string(status));
}

template <typename T, int (*Destroy)(T*)>
struct Destroyer {
  void operator()(T* object) const { Destroy(object); }
};
template <typename T, int (*Destroy)(T*)>
using Owned = std::unique_ptr<T, Destroyer<T, Destroy>>;

using MemoryDesc = Owned<dnnl_memory_desc, dnnl_memory_desc_destroy>;
using Memory = Owned<dnnl_memory, dnnl_memory_destroy>;
using PrimitiveDesc = Owned<dnnl_primitive_desc, dnnl_primitive_desc_destroy>;
using Primitive = Owned<dnnl_primitive, dnnl_primitive_destroy>;
using Stream = Owned<dnnl_stream, dnnl_stream_destroy>;

// Never destroyed: it may be needed until the last thread ends.
dnnl_engine* engine() {
  static dnnl_engine* const made = [] {
    const int major = dnnl_version()->major;
    if (major != 3)
      throw std::runtime_error("oarlock: needs oneDNN 3, not " + std::to_string(major));
    dnnl_engine* result = nullptr;
    check(dnnl_engine_create(&result, dnnl_cpu, 0), "engine_create");
    return result;
  }();
  return made;
}

dnnl_stream* stream() {
  thread_local const Stream made = [] {
    dnnl_stream* result = nullptr;
    check(dnnl_stream_create(&result, engine(), dnnl_stream_in_order), "stream_create");
    return Stream(result);
  }();
  return made.get();
}

// One operand of the product as oneDNN takes it.
struct Operand {
  Dims dims, strides;
  dnnl_data_type type;
  void* data;

  Operand(const Dims& batch, const Matrices& m, dnnl_data_type type, void* data)
      : dims(batch), type(type), data(data) {
    dims.push_back(m.rows);
    dims.push_back(m.cols);
    strides.resize(dims.size());
    std::int64_t step = m.rows * m.cols;
    for (std::size_t i = batch.size(); i-- > 0;) {
      strides[i] = step;
      step *= batch[i];
    }
    strides[batch.size()] = m.row_stride;
    strides[batch.size() + 1] = m.col_stride;
  }

  MemoryDesc desc() const {
    dnnl_memory_desc* result = nullptr;
    check(dnnl_memory_desc_create_with_strides(&result, static_cast<int>(dims.size()),
                                               dims.data(), type, strides.data()),
          "memory_desc_create");
    return MemoryDesc(result);
  }
};

Memory memory(const MemoryDesc& desc, void* data) {
  dnnl_memory* result = nullptr;
  check(dnnl_memory_create(&result, desc.get(), engine(), data), "memory_create");
  return Memory(result);
}

// oneDNN keeps what it made for a shape, so that asking again costs a few microseconds.
void run(const Operand& a, const Operand& b, const Operand& out, const Operand* bias) {
  const MemoryDesc a_desc = a.desc(), b_desc = b.desc(), out_desc = out.desc();
  const MemoryDesc bias_desc = bias != nullptr ? bias->desc() : nullptr;
  dnnl_primitive_desc* made_desc = nullptr;
  check(dnnl_matmul_primitive_desc_create(&made_desc, engine(), a_desc.get(), b_desc.get(),
                                          bias_desc.get(), out_desc.get(), nullptr),
        "matmul_primitive_desc_create");
  const PrimitiveDesc desc(made_desc);
  dnnl_primitive* made = nullptr;
  check(dnnl_primitive_create(&made, desc.get()), "primitive_create");
  const Primitive primitive(made);
  const Memory a_memory = memory(a_desc, a.data), b_memory = memory(b_desc, b.data),
               out_memory = memory(out_desc, out.data),
               bias_memory = bias != nullptr ? memory(bias_desc, bias->data) : nullptr;
  const dnnl_exec_arg args[] = {{dnnl_arg_src, a_memory.get()},
                                {dnnl_arg_weights, b_memory.get()},
                                {dnnl_arg_dst, out_memory.get()},
                                {dnnl_arg_bias, bias_memory.get()}};
  check(dnnl_primitive_execute(primitive.get(), stream(), bias != nullptr ? 4 : 3, args),
        "primitive_execute");
  check(dnnl_stream_wait(stream()), "stream_wait");
}

std::int64_t product(const Dims& dims) {
  std::int64_t result = 1;
  for (const auto size : dims) result *= size;
  return result;
}

void* writable(const void* data) { return const_cast<void*>(data); }  // oneDNN's C interface

std::unique_ptr<float[]> buffer(std::int64_t count) {
  return std::unique_ptr<float[]>(new float[count]);
}

std::unique_ptr<float[]> widened(const Matrices& m) {
  auto result = buffer(m.count());
  widen_all(m.data, result.get(), m.count());
  return result;
}

// Fewer, larger dimensions: equal batches become one, and where `b` is one matrix for all of
// `a`'s the rows of `a` become the rows of one large matrix.
void fuse_batches(Matrices* a, Matrices* b) {
  if (product(b->batch) == 1 && a->col_stride == 1 && a->row_stride == a->cols) {
    a->rows *= product(a->batch);
    a->batch.clear();
    b->batch.clear();
  } else if (a->batch == b->batch) {
    a->batch = b->batch = {product(a->batch)};
  }
}

bool has_all(int isa) { return (dnnl_get_effective_cpu_isa() & isa) == isa; }

}  // namespace

Matrices Matrices::of(const Bf16* data, const std::vector<std::int64_t>& dims) {
  const std::int64_t rows = dims[dims.size() - 2], cols = dims[dims.size() - 1];
  return {data, Dims(dims.begin(), dims.end() - 2), rows, cols, cols, 1};
}

Matrices Matrices::transposed() const {
  // A row and a column are the same memory; oneDNN misreads the strides of a transposed one.
  if (rows == 1 || cols == 1) return {data, batch, cols, rows, rows, 1};
  return {data, batch, cols, rows, col_stride, row_stride};
}

std::int64_t Matrices::count() const { return product(batch) * rows * cols; }

Path best_path() {
  return has_all(dnnl_isa_avx512_core_bf16) ? Path::native : Path::float32;
}

bool has_native() { return has_all(dnnl_isa_avx512_core); }

std::vector<std::int64_t> broadcast_batch(const Matrices& a, const Matrices& b) {
  const std::size_t rank = std::max(a.batch.size(), b.batch.size());
  Dims result(rank, 1);
  for (const Dims* batch : {&a.batch, &b.batch})
    for (std::size_t i = 0; i < batch->size(); ++i)
      if ((*batch)[i] != 1) result[rank - batch->size() + i] = (*batch)[i];
  return result;
}

template <typename Out>
void multiply(const Matrices& a_given, const Matrices& b_given, Out* out, Path path,
              const Bf16* bias) {
  Matrices a = a_given, b = b_given;
  const std::int64_t count = product(broadcast_batch(a, b)) * a.rows * b.cols;
  if (count == 0) return;
  if (a.cols == 0) {
    for (std::int64_t i = 0; i < count; ++i)
      out[i] = bias == nullptr                  ? Out(0)
               : sizeof(Out) == sizeof(float) ? Out(widen(bias[i % b.cols]))
                                                : Out(bias[i % b.cols]);
    return;
  }
  const std::size_t rank = std::max(a.batch.size(), b.batch.size());
  a.batch.insert(a.batch.begin(), rank - a.batch.size(), 1);
  b.batch.insert(b.batch.begin(), rank - b.batch.size(), 1);
  fuse_batches(&a, &b);
  const Dims batch = broadcast_batch(a, b), ones(batch.size(), 1);
  const Matrices shape{nullptr, batch, a.rows, b.cols, b.cols, 1};
  const Matrices row{bias, ones, 1, b.cols, b.cols, 1};
  const dnnl_data_type out_type = sizeof(Out) == sizeof(float) ? dnnl_f32 : dnnl_bf16;
  if (path == Path::native) {
    const Operand addend(ones, row, dnnl_bf16, writable(bias));
    run({a.batch, a, dnnl_bf16, writable(a.data)}, {b.batch, b, dnnl_bf16, writable(b.data)},
        {batch, shape, out_type, out}, bias != nullptr ? &addend : nullptr);
    return;
  }
  const auto wide_a = widened(a), wide_b = widened(b);
  const auto wide_bias = bias != nullptr ? widened(row) : nullptr;
  const Operand left{a.batch, a, dnnl_f32, wide_a.get()}, right{b.batch, b, dnnl_f32, wide_b.get()};
  const Operand addend(ones, row, dnnl_f32, wide_bias.get());
  const Operand* const added = bias != nullptr ? &addend : nullptr;
  if constexpr (sizeof(Out) == sizeof(float)) {
    run(left, right, {batch, shape, dnnl_f32, out}, added);
  } else {
    const auto wide_out = buffer(count);
    run(left, right, {batch, shape, dnnl_f32, wide_out.get()}, added);
    narrow_all(wide_out.get(), out, count);
  }
}

template void multiply<Bf16>(const Matrices&, const Matrices&, Bf16*, Path, const Bf16*);
template void multiply<float>(const Matrices&, const Matrices&, float*, Path, const Bf16*);

}  // namespace oarlock

// The part of oneDNN's C interface that the kernels here call.
//
// Paddle ships libdnnl.so.3 (and has it loaded) but not its headers: paddle/include holds only
// forwarding ones. The names, types and values below are those of oneDNN's stable C ABI, version
// 3; `multiply` checks the major version before the first call.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

enum { dnnl_success = 0 };
enum { dnnl_cpu = 1 };
enum { dnnl_stream_in_order = 1 };
enum dnnl_data_type { dnnl_bf16 = 2, dnnl_f32 = 3 };
enum { dnnl_arg_src = 1, dnnl_arg_weights = 33, dnnl_arg_bias = 41, dnnl_arg_dst = 17 };
// Sets of bits; better processors add more.
enum { dnnl_isa_avx512_core = 0x27, dnnl_isa_avx512_core_bf16 = 0xe7 };

struct dnnl_engine;
struct dnnl_stream;
struct dnnl_memory;
struct dnnl_memory_desc;
struct dnnl_primitive_desc;
struct dnnl_primitive;
struct dnnl_primitive_attr;

struct dnnl_exec_arg {
  int arg;
  dnnl_memory* memory;
};

struct dnnl_version_info {
  int major, minor, patch;
  const char* hash;
  unsigned cpu_runtime, gpu_runtime;
};

const dnnl_version_info* dnnl_version();
int dnnl_get_effective_cpu_isa();
int dnnl_engine_create(dnnl_engine**, int kind, std::size_t index);
int dnnl_stream_create(dnnl_stream**, dnnl_engine*, unsigned flags);
int dnnl_stream_wait(dnnl_stream*);
int dnnl_stream_destroy(dnnl_stream*);
int dnnl_memory_desc_create_with_strides(dnnl_memory_desc**, int rank, const std::int64_t* dims,
                                         int data_type, const std::int64_t* strides);
int dnnl_memory_desc_destroy(dnnl_memory_desc*);
int dnnl_memory_create(dnnl_memory**, const dnnl_memory_desc*, dnnl_engine*, void* data);
int dnnl_memory_destroy(dnnl_memory*);
int dnnl_matmul_primitive_desc_create(dnnl_primitive_desc**, dnnl_engine*,
                                      const dnnl_memory_desc* src, const dnnl_memory_desc* weights,
                                      const dnnl_memory_desc* bias, const dnnl_memory_desc* dst,
                                      const dnnl_primitive_attr*);
int dnnl_primitive_desc_destroy(dnnl_primitive_desc*);
int dnnl_primitive_create(dnnl_primitive**, const dnnl_primitive_desc*);
int dnnl_primitive_destroy(dnnl_primitive*);
int dnnl_primitive_execute(const dnnl_primitive*, dnnl_stream*, int count, const dnnl_exec_arg*);

}  // extern "C"

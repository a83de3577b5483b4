// Entry points of attention for tensors on a GPU: the same names and arguments as on the CPU, the same
// numbers up to rounding. `bounds` stay in the memory of the host, and `threads` is not used.

#include "attention/kernels.cuh"
#include "core/device.cuh"
#include "core/error.h"
#include "core/memory.cuh"

namespace oarlock::cuda {
namespace {

using oarlock::attention::Shape;

// The mask on the device, from bounds on the host.
class DeviceBounds {
 public:
  DeviceBounds(const Shape& shape, const oarlock_tensors* bounds, bool causal)
      : memory_(bounds == nullptr ? 0 : sizeof(std::int32_t) * bounds->items[0].count),
        view_{nullptr, 1, 1, shape.keys, shape.rows, 0, causal} {
    if (bounds == nullptr) return;
    const oarlock_tensor& item = bounds->items[0];
    check(cudaMemcpyAsync(memory_.as<void>(), item.data, sizeof(std::int32_t) * item.count,
                          cudaMemcpyHostToDevice, stream()),
          "cudaMemcpyAsync");
    view_ = {memory_.as<std::int32_t>(), item.shape[0], item.shape[1], shape.keys,
             shape.rows, static_cast<int>(item.shape[3]), causal};
  }
  const Bounds& view() const { return view_; }

 private:
  Memory memory_;
  Bounds view_;
};

AttentionShape on_device(const Shape& s, const oarlock_attention_options& o) {
  return {s.batch, s.rows, s.keys, s.heads, s.kv_heads, s.dim, static_cast<float>(o.scale)};
}

// Blocks over tiles of a sequence, heads and batches.
dim3 grid(std::int64_t length, std::int64_t heads, std::int64_t batch) {
  constexpr std::int64_t most = 65535;
  if (heads > most || batch > most)
    throw BadArgument("q has " + std::to_string(heads) + " heads and a batch of " +
                      std::to_string(batch) + "; a GPU takes at most " + std::to_string(most));
  return dim3(static_cast<unsigned>((length + kTile - 1) / kTile), static_cast<unsigned>(heads),
              static_cast<unsigned>(batch));
}

// Launches a kernel with `tiles` tiles of rows and `squares` tiles of scores in shared memory.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const char* name, dim3 blocks, std::int64_t dim,
            int tiles, int squares, Arguments... arguments) {
  const std::size_t bytes = sizeof(float) * (tiles * kTile * (dim + 1) + squares * kTile * (kTile + 1));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        name);
  kernel<<<blocks, kBlock, bytes, stream()>>>(arguments...);
  check(cudaGetLastError(), name);
}

template <typename T>
const T* read(const oarlock_tensors& list) {
  return static_cast<const T*>(list.items[0].data);
}
template <typename T>
T* write(const oarlock_tensors& list) {
  return static_cast<T*>(list.items[0].data);
}

// Calls body(a number of the type of storage).
template <typename Body>
void with_type(const oarlock_tensors& q, const Body& body) {
  if (q.items[0].dtype == kFloat32)
    body(float{});
  else
    body(path::bfloat16{});
}

}  // namespace
}  // namespace oarlock::cuda

using namespace oarlock;
using namespace oarlock::attention;

OARLOCK_API std::int32_t oarlock_attention_forward(
    const oarlock_tensors* q, const oarlock_tensors* k, const oarlock_tensors* v,
    const oarlock_tensors* out, const oarlock_tensors* lse, const oarlock_tensors* bounds,
    const oarlock_attention_options* o, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*q);
    const Shape shape = check_operands(*q, *k, *v, *o, use.device());
    check_like(*out, *q, Access::write, use.device());
    check_log_sums(*lse, shape, Access::write, use.device());
    check_bounds(bounds, shape, o->causal != 0);
    check_overlap({{*q, Access::read}, {*k, Access::read}, {*v, Access::read},
                   {*out, Access::write}, {*lse, Access::write}});
    if (q->items[0].count == 0) return;
    const cuda::DeviceBounds mask(shape, bounds, o->causal != 0);
    const auto s = cuda::on_device(shape, *o);
    cuda::with_type(*q, [&](auto one) {
      using T = decltype(one);
      cuda::launch(cuda::attention_forward<T>, "attention forward",
                   cuda::grid(s.rows, s.heads, s.batch), s.dim, 3, 1, cuda::read<T>(*q),
                   cuda::read<T>(*k), cuda::read<T>(*v), cuda::write<T>(*out),
                   cuda::write<float>(*lse), s, mask.view());
    });
  });
}

OARLOCK_API std::int32_t oarlock_attention_backward(
    const oarlock_tensors* q, const oarlock_tensors* k, const oarlock_tensors* v,
    const oarlock_tensors* out, const oarlock_tensors* lse, const oarlock_tensors* out_grad,
    const oarlock_tensors* q_grad, const oarlock_tensors* k_grad, const oarlock_tensors* v_grad,
    const oarlock_tensors* bounds, const oarlock_attention_options* o, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*q);
    const Device device = use.device();
    const Shape shape = check_operands(*q, *k, *v, *o, device);
    check_like(*out, *q, Access::read, device);
    check_log_sums(*lse, shape, Access::read, device);
    check_like(*out_grad, *q, Access::read, device);
    check_like(*q_grad, *q, Access::write, device);
    check_like(*k_grad, *k, Access::write, device);
    check_like(*v_grad, *v, Access::write, device);
    check_bounds(bounds, shape, o->causal != 0);
    check_overlap({{*q, Access::read}, {*k, Access::read}, {*v, Access::read},
                   {*out, Access::read}, {*lse, Access::read}, {*out_grad, Access::read},
                   {*q_grad, Access::write}, {*k_grad, Access::write}, {*v_grad, Access::write}});
    const cuda::DeviceBounds mask(shape, bounds, o->causal != 0);
    const auto s = cuda::on_device(shape, *o);
    const cuda::Memory deltas(sizeof(float) * s.batch * s.heads * s.rows);
    const dim3 row_blocks = cuda::grid(s.rows, s.heads, s.batch);
    cuda::with_type(*q, [&](auto one) {
      using T = decltype(one);
      const T *const qs = cuda::read<T>(*q), *const ks = cuda::read<T>(*k);
      const T *const vs = cuda::read<T>(*v), *const gs = cuda::read<T>(*out_grad);
      const float* const sums = cuda::read<float>(*lse);
      if (q->items[0].count > 0) {
        cuda::launch(cuda::attention_deltas<T>, "attention deltas", row_blocks, s.dim, 0, 0,
                     cuda::read<T>(*out), gs, deltas.as<float>(), s);
        cuda::launch(cuda::attention_query_grads<T>, "attention query_grads", row_blocks, s.dim, 4,
                     1, qs, ks, vs, gs, sums, deltas.as<float>(), cuda::write<T>(*q_grad), s,
                     mask.view());
      }
      if (k->items[0].count > 0)
        cuda::launch(cuda::attention_key_grads<T>, "attention key_grads",
                     cuda::grid(s.keys, s.kv_heads, s.batch), s.dim, 4, 2, qs, ks, vs, gs, sums,
                     deltas.as<float>(), cuda::write<T>(*k_grad), cuda::write<T>(*v_grad), s,
                     mask.view());
    });
  });
}

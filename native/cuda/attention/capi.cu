// Entry points of attention for tensors on a GPU: the same names and arguments as on the CPU, the same
// numbers up to rounding. `bounds` stay in the memory of the host, and `threads` is not used. bfloat16 goes to tensor
// cores where they take it.

#include "attention/kernels.cuh"
#include "attention/tensor_cores.cuh"
#include "core/device.cuh"
#include "core/error.h"
#include "core/launch.cuh"
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

// Bytes of `tiles` tiles of rows and `squares` tiles of scores in shared memory.
std::size_t bytes_of(std::int64_t dim, int tiles, int squares) {
  return sizeof(float) * (tiles * kTile * (dim + 1) + squares * kTile * (kTile + 1));
}

template <typename T>
const T* read(const oarlock_tensors& list) {
  return static_cast<const T*>(list.items[0].data);
}
template <typename T>
T* write(const oarlock_tensors& list) {
  return static_cast<T*>(list.items[0].data);
}

template <typename T>
void plain_forward(const AttentionShape& s, const Bounds& mask, const T* q, const T* k, const T* v, T* out,
                   float* lse) {
  launch("attention plain forward", attention_forward<T>, grid(s.rows, s.heads, s.batch), kBlock,
         bytes_of(s.dim, 3, 1), q, k, v, out, lse, s, mask);
}

template <typename T>
void plain_backward(const AttentionShape& s, const Bounds& mask, const T* q, const T* k, const T* v,
                    const T* out, const float* lse, const T* out_grad, T* q_grad, T* k_grad, T* v_grad) {
  const Memory memory(sizeof(float) * s.batch * s.heads * s.rows);
  float* const deltas = memory.as<float>();
  if (s.rows > 0 && s.batch > 0 && s.heads > 0) {
    const dim3 blocks = grid(s.rows, s.heads, s.batch);
    launch("attention plain deltas", attention_deltas<T>, blocks, kBlock, 0, out, out_grad, deltas, s);
    launch("attention plain query_grads", attention_query_grads<T>, blocks, kBlock, bytes_of(s.dim, 4, 1), q,
           k, v, out_grad, lse, deltas, q_grad, s, mask);
  }
  if (s.keys > 0 && s.batch > 0 && s.kv_heads > 0)
    launch("attention plain key_grads", attention_key_grads<T>, grid(s.keys, s.kv_heads, s.batch), kBlock,
           bytes_of(s.dim, 4, 2), q, k, v, out_grad, lse, deltas, k_grad, v_grad, s, mask);
}

}  // namespace
}  // namespace oarlock::cuda

using namespace oarlock;
using namespace oarlock::attention;
using Bits = cuda::attention::bfloat16;

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
    using cuda::read, cuda::write, path::bfloat16;
    if (q->items[0].dtype == kFloat32) {
      cuda::plain_forward(s, mask.view(), read<float>(*q), read<float>(*k), read<float>(*v),
                          write<float>(*out), write<float>(*lse));
    } else if (cuda::attention::fits(s, {q, k, v, out})) {
      const cuda::attention::MaskOnDevice all(mask.view());
      cuda::attention::run_forward({s, all.view(), read<Bits>(*q), read<Bits>(*k), read<Bits>(*v)},
                                   write<Bits>(*out), write<float>(*lse));
    } else {
      cuda::plain_forward(s, mask.view(), read<bfloat16>(*q), read<bfloat16>(*k), read<bfloat16>(*v),
                          write<bfloat16>(*out), write<float>(*lse));
    }
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
    if (shape.batch == 0) return;
    const cuda::DeviceBounds mask(shape, bounds, o->causal != 0);
    const auto s = cuda::on_device(shape, *o);
    using cuda::read, cuda::write, path::bfloat16;
    if (q->items[0].dtype == kFloat32) {
      cuda::plain_backward(s, mask.view(), read<float>(*q), read<float>(*k), read<float>(*v),
                           read<float>(*out), read<float>(*lse), read<float>(*out_grad),
                           write<float>(*q_grad), write<float>(*k_grad), write<float>(*v_grad));
    } else if (cuda::attention::fits(s, {q, k, v, out, out_grad, q_grad, k_grad, v_grad})) {
      const cuda::attention::MaskOnDevice all(mask.view());
      cuda::attention::run_backward({s, all.view(), read<Bits>(*q), read<Bits>(*k), read<Bits>(*v)},
                                    read<Bits>(*out), read<float>(*lse), read<Bits>(*out_grad),
                                    write<Bits>(*q_grad), write<Bits>(*k_grad), write<Bits>(*v_grad));
    } else {
      cuda::plain_backward(s, mask.view(), read<bfloat16>(*q), read<bfloat16>(*k), read<bfloat16>(*v),
                           read<bfloat16>(*out), read<float>(*lse), read<bfloat16>(*out_grad),
                           write<bfloat16>(*q_grad), write<bfloat16>(*k_grad), write<bfloat16>(*v_grad));
    }
  });
}

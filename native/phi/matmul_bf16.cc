// Paddle's `matmul`, `bmm`, `linear_v2` and their gradients for bfloat16 on the CPU.
//
// A vector on the left is a row, on the right a column, and is never transposed; other operands
// are batches of matrices whose batch dimensions broadcast.

#include <algorithm>
#include <atomic>
#include <memory>

#include "common/broadcast.h"
#include "common/matrix.h"
#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"

namespace oarlock {
namespace {

std::atomic<Path> chosen_path{best_path()};

Dims matrix_dims(const phi::DenseTensor& tensor, bool left) {
  Dims dims = dims_of(tensor);
  if (dims.size() == 1) dims.insert(left ? dims.begin() : dims.end(), 1);
  return dims;
}

Matrices operand(const phi::DenseTensor& tensor, bool left, bool transpose) {
  const auto stored = Matrices::of(bits(tensor), matrix_dims(tensor, left));
  return transpose && tensor.dims().size() > 1 ? stored.transposed() : stored;
}

// to = a @ b, summed over the batch dimensions in which `to` (a gradient) was broadcast.
void multiply_and_sum(Matrices a, Matrices b, Bf16* to, Dims to_dims) {
  const Path path = chosen_path;
  Dims dims = broadcast_batch(a, b);
  const Dims batch(to_dims.begin(), to_dims.end() - 2);
  dims.push_back(a.rows);
  dims.push_back(b.cols);
  Dims padded(dims.size() - to_dims.size(), 1);
  padded.insert(padded.end(), to_dims.begin(), to_dims.end());
  if (padded == dims) {
    multiply(a, b, to, path);
    return;
  }
  std::int64_t count = 1;
  for (const auto size : dims) count *= size;
  if (count == 0) {
    std::int64_t to_count = 1;
    for (const auto size : to_dims) to_count *= size;
    std::fill(to, to + to_count, Bf16{0});
    return;
  }
  const std::unique_ptr<float[]> all(new float[count]);
  multiply(a, b, all.get(), path);
  sum_to(all.get(), dims, to, to_dims);
}

// All rows of a batch as one matrix.
Matrices flat(const Matrices& m) {
  Matrices result = m;
  result.rows = m.cols == 0 ? 0 : m.count() / m.cols;
  result.batch.clear();
  return result;
}

void check_shapes(const phi::DenseTensor& x, const phi::DenseTensor& y, const Matrices& a,
                  const Matrices& b) {
  bool match = a.cols == b.rows;
  const std::size_t common = std::min(a.batch.size(), b.batch.size());
  for (std::size_t i = 1; i <= common; ++i) {
    const auto p = a.batch[a.batch.size() - i], q = b.batch[b.batch.size() - i];
    match = match && (p == q || p == 1 || q == 1);
  }
  PADDLE_ENFORCE_EQ(match, true,
                    common::errors::InvalidArgument(
                        "matmul: x of shape [%s] and y of shape [%s] do not fit: after their "
                        "transposes x has %d columns and y %d rows; batches must be equal or 1.",
                        x.dims(), y.dims(), a.cols, b.rows));
}

bool is_row_major(const Matrices& m) { return m.col_stride == 1 && m.row_stride == m.cols; }

}  // namespace

template <typename T, typename Context>
void Matmul(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
            bool transpose_x, bool transpose_y, phi::DenseTensor* out) {
  const Matrices a = operand(x, true, transpose_x), b = operand(y, false, transpose_y);
  check_shapes(x, y, a, b);
  // Paddle sets the shape of `out` beforehand, but without y's batch where x has more dimensions.
  Dims dims = broadcast_batch(a, b);
  if (x.dims().size() > 1) dims.push_back(a.rows);
  if (y.dims().size() > 1) dims.push_back(b.cols);
  out->Resize(common::make_ddim(dims));
  multiply(a, b, allocate<T>(context, out), chosen_path);
}

template <typename T, typename Context>
void MatmulGrad(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
                const phi::DenseTensor& dout, bool transpose_x, bool transpose_y,
                phi::DenseTensor* dx, phi::DenseTensor* dy) {
  const Matrices a = operand(x, true, transpose_x), b = operand(y, false, transpose_y);
  check_shapes(x, y, a, b);
  Dims out_dims = broadcast_batch(a, b);
  out_dims.push_back(a.rows);
  out_dims.push_back(b.cols);
  const Matrices d = Matrices::of(bits(dout), out_dims);
  PADDLE_ENFORCE_EQ(dout.numel(), d.count(),
                    common::errors::InvalidArgument(
                        "matmul_grad: the gradient of the result has %d elements, not the %d of "
                        "the result.",
                        dout.numel(), d.count()));
  // With A = op(x), B = op(y): dA = D B^T and dB = A^T D; where op transposes, the gradient of
  // the operand is the transpose of that.
  if (dx != nullptr) {
    Bf16* to = allocate<T>(context, dx);
    const bool swap = transpose_x && x.dims().size() > 1;
    multiply_and_sum(swap ? b : d, swap ? d.transposed() : b.transposed(), to,
                     matrix_dims(x, true));
  }
  if (dy != nullptr) {
    Bf16* to = allocate<T>(context, dy);
    const bool swap = transpose_y && y.dims().size() > 1;
    // One weight for a whole batch: sum over the batch within the product.
    const bool fuse = b.batch.empty() && is_row_major(a);
    const Matrices left = fuse ? flat(a) : a, right = fuse ? flat(d) : d;
    multiply_and_sum(swap ? right.transposed() : left.transposed(), swap ? left : right, to,
                     matrix_dims(y, false));
  }
}

template <typename T, typename Context>
void Bmm(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
         phi::DenseTensor* out) {
  Matmul<T>(context, x, y, false, false, out);
}

template <typename T, typename Context>
void BmmGrad(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
             const phi::DenseTensor& dout, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  MatmulGrad<T>(context, x, y, dout, false, false, dx, dy);
}

// out = x @ weight + bias
template <typename T, typename Context>
void Linear(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& weight,
            const phi::DenseTensor& bias, bool transpose_weight, phi::DenseTensor* out) {
  const Matrices a = operand(x, true, false), b = operand(weight, false, transpose_weight);
  check_shapes(x, weight, a, b);
  PADDLE_ENFORCE_EQ(bias.numel() == 0 || bias.numel() == b.cols, true,
                    common::errors::InvalidArgument(
                        "linear_v2: a bias of shape [%s] does not fit a weight of shape [%s].",
                        bias.dims(), weight.dims()));
  multiply(a, b, allocate<T>(context, out), chosen_path,
           bias.numel() == 0 ? nullptr : bits(bias));
}

template <typename T, typename Context>
void LinearGrad(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& weight,
                const phi::DenseTensor& bias, const phi::DenseTensor& dout, bool transpose_weight,
                phi::DenseTensor* dx, phi::DenseTensor* dweight, phi::DenseTensor* dbias) {
  MatmulGrad<T>(context, x, weight, dout, false, transpose_weight, dx, dweight);
  if (dbias == nullptr) return;
  Bf16* to = allocate<T>(context, dbias);
  const std::int64_t cols = dbias->numel();
  if (dout.numel() == 0) {
    std::fill(to, to + cols, Bf16{0});
  } else {
    sum_to(bits(dout), {dout.numel() / cols, cols}, to, {cols});
  }
}

}  // namespace oarlock

// For tests: 1 computes by widening to float32, 2 in bfloat16 even if that is emulated, 0 as is
// best here. Returns 0 where there is no such path.
extern "C" int oarlock_phi_force(int path) {
  using oarlock::Path;
  if (path == 2 && !oarlock::has_native()) return 0;
  oarlock::chosen_path =
      path == 0 ? oarlock::best_path() : path == 1 ? Path::float32 : Path::native;
  return 1;
}

extern "C" int oarlock_phi_native_bf16() {
  return oarlock::chosen_path == oarlock::Path::native ? 1 : 0;
}

PD_REGISTER_KERNEL(matmul, CPU, ALL_LAYOUT, oarlock::Matmul, phi::bfloat16) {}
PD_REGISTER_KERNEL(matmul_grad, CPU, ALL_LAYOUT, oarlock::MatmulGrad, phi::bfloat16) {}
PD_REGISTER_KERNEL(bmm, CPU, ALL_LAYOUT, oarlock::Bmm, phi::bfloat16) {}
PD_REGISTER_KERNEL(bmm_grad, CPU, ALL_LAYOUT, oarlock::BmmGrad, phi::bfloat16) {}
PD_REGISTER_KERNEL(linear_v2, CPU, ALL_LAYOUT, oarlock::Linear, phi::bfloat16) {}
PD_REGISTER_KERNEL(linear_v2_grad, CPU, ALL_LAYOUT, oarlock::LinearGrad, phi::bfloat16) {}

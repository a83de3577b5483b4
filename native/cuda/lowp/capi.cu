// Entry point of products on a GPU: the CPU's name and arguments; of int8 and int16 its bits.
// `threads` is not used, and `base` leaves out tensor cores for fp8.

#include <optional>

#include "core/error.h"
#include "lowp/arguments.h"
#include "lowp/codes.cuh"
#include "lowp/multiply.cuh"

namespace oarlock::cuda::lowp {
namespace {

using oarlock::lowp::Factor;

constexpr std::int64_t kMostUnits = 65535;  // the height of a grid

bool aligned(const void* data, std::int64_t pitch) {
  return reinterpret_cast<std::uintptr_t>(data) % kVectorBytes == 0 && pitch % kVectorBytes == 0;
}

// An operand as codes in memory, which are either given or rounded here, and then as it is packed.
class Operand {
 public:
  Operand(const Factor& f, const oarlock_lowp_format& options, std::uint64_t index,
          const Depth& depth)
      : format_(f.format), along_(f.along_rows), rows_(f.list.items[0].shape[0]),
        columns_(f.list.items[0].shape[1]), scales_(f.scale_data) {
    const oarlock_tensor& item = f.list.items[0];
    data_ = static_cast<const char*>(item.data);
    pitch_ = columns_ * code_size(format_);
    if (f.codes) return;
    if (along_) pitch_ = packed_pitch(pitch_);
    codes_.emplace(rows_ * pitch_);
    if (oarlock::lowp::has_scales(format_)) {
      own_scales_.emplace(sizeof(float) * depth.blocks * f.length);
      scales_ = own_scales_->as<float>();
    }
    encode({item, options, along_, index}, own_scales_ ? own_scales_->as<float>() : nullptr,
           codes_->as<void>(), pitch_);
    data_ = codes_->as<char>();
  }

  // With the reduction contiguous, and rows that begin at multiples of 16 bytes and end in zeros.
  void pack(Element element) {
    const bool stored = element == own_element() && element != Element::digits;
    if (along_ && stored && aligned(data_, pitch_)) return;
    if (along_) columns_ = pitch_ / code_size(format_);  // with the zeros of rows rounded here
    const std::int64_t pitch = packed_pitch((along_ ? columns_ : rows_) * size_of(element));
    packed_.emplace((along_ ? rows_ : columns_) * pitch);
    arrange(data_, format_, rows_, columns_, along_, element, packed_->as<void>(), pitch);
    data_ = packed_->as<char>();
    pitch_ = pitch;
    along_ = true;
  }

  // What a product takes that has numbers of this format.
  Element own_element() const {
    switch (format_) {
      case Format::fp32: return Element::floats;
      case Format::int8:
      case Format::fp8_e4m3:
      case Format::fp8_e5m2: return Element::bytes;
      case Format::int16: return Element::digits;
      default: return Element::halves;
    }
  }
  bool across() const { return !along_ && aligned(data_, pitch_); }
  Format format() const { return format_; }
  const char* data() const { return data_; }
  std::int64_t pitch() const { return pitch_; }
  const float* scales() const { return scales_; }

 private:
  Format format_;
  bool along_;
  std::int64_t rows_, columns_;
  const float* scales_;
  const char* data_;
  std::int64_t pitch_;
  std::optional<Memory> codes_, own_scales_, packed_;
};

// What a product takes of an operand.
Element element_for(Numbers numbers, const Operand& x) {
  if (numbers == Numbers::floats) return Element::floats;
  const bool fp8 = x.format() == Format::fp8_e4m3 || x.format() == Format::fp8_e5m2;
  return fp8 && numbers == Numbers::fp16 ? Element::fp16 : x.own_element();
}

std::optional<Weights> weights_of(Numbers numbers, Format b) {
  switch (b) {
    case Format::int8: return Weights::int8;
    case Format::fp8_e4m3: return Weights::e4m3;
    case Format::fp8_e5m2: return Weights::e5m2;
    case Format::bf16:
      if (numbers == Numbers::bf16) return Weights::bf16;
      return {};
    case Format::fp16:
      if (numbers == Numbers::fp16) return Weights::fp16;
      return {};
    default: return {};
  }
}

// Products that a sum of tensor cores takes before it is added up in float32; 0 for any number. Of
// fp8 they keep about 14 bits (DeepSeek-V3, 2412.19437).
std::int64_t most_summed(Numbers numbers) {
  switch (numbers) {
    case Numbers::int8: return oarlock::lowp::kInt8Sums;
    case Numbers::int16: return oarlock::lowp::kInt16Sums;
    case Numbers::bf16:
    case Numbers::fp16:
    case Numbers::floats: return 0;
    default: return 128;
  }
}

void multiply_operands(Operand& a, Operand& b, const Depth& depth, Numbers numbers,
                       const Finish& finish) {
  const auto weights = weights_of(numbers, b.format());
  const std::int64_t few_interval =
      depth.interval(weights == Weights::int8 ? oarlock::lowp::kInt8Sums : 0);
  const std::int64_t unit = unit_of(few_interval, depth.elements);
  const std::int64_t units = oarlock::lowp::divided_up(depth.elements, unit);
  if (finish.rows <= kMostFewRows && weights && units <= kMostUnits) {
    const bool of_fp8 = is_fp8(*weights), across = b.across();
    a.pack(of_fp8 ? Element::fp16 : a.own_element());
    if (!across) b.pack(b.own_element());
    const Memory parts(sizeof(float) * units * finish.rows * finish.columns);
    multiply_few(*weights, across,
                 {a.data(), b.data(), a.pitch(), b.pitch(), finish.rows, finish.columns,
                  depth.elements, unit, parts.as<void>()},
                 few_interval, oarlock::lowp::divided_up(depth.block, few_interval), finish);
    return;
  }
  a.pack(element_for(numbers, a));
  b.pack(element_for(numbers, b));
  const std::int64_t interval = depth.interval(most_summed(numbers)), per = per_step(numbers);
  multiply(numbers, {a.data(), b.data(), a.pitch(), b.pitch(),
                     oarlock::lowp::divided_up(depth.elements, per),
                     oarlock::lowp::divided_up(interval, per),
                     oarlock::lowp::divided_up(depth.block, interval), finish});
}

}  // namespace
}  // namespace oarlock::cuda::lowp

using namespace oarlock;
using namespace oarlock::lowp;

OARLOCK_API std::int32_t oarlock_lowp_matmul(
    const oarlock_tensors* a, const oarlock_tensors* a_scales, const oarlock_tensors* b,
    const oarlock_tensors* b_scales, const oarlock_tensors* bias, const oarlock_tensors* out,
    const oarlock_lowp_matmul_options* o, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*a);
    const Factor left = factor(*a, a_scales, o->a, o->transpose_a == 0, use.device());
    const Factor right = factor(*b, b_scales, o->b, o->transpose_b != 0, use.device());
    check_product(left, right, *o, bias, *out, use.device());
    const Depth depth(left.depth, Unit::floats, o->a.block);
    check_scales(left, depth);
    check_scales(right, depth);
    if (left.length == 0 || right.length == 0) return;
    const cuda::lowp::Numbers numbers =
        cuda::lowp::numbers_of(left.format, right.format, o->base != 0);
    cuda::lowp::Operand x(left, o->a, 0, depth), y(right, o->b, 1, depth);
    const oarlock_tensor& target = out->items[0];
    const bool narrow = target.dtype == kBfloat16;
    const cuda::lowp::Finish finish{
        x.scales(), y.scales(), bias ? static_cast<const float*>(bias->items[0].data) : nullptr,
        static_cast<Activation>(o->activation), left.length, right.length, target.data, narrow,
        right.length % 2 == 0 &&
            reinterpret_cast<std::uintptr_t>(target.data) % (narrow ? 4 : 8) == 0};
    cuda::lowp::multiply_operands(x, y, depth, numbers, finish);
  });
}

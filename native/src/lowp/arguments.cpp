#include "lowp/arguments.h"

#include "core/error.h"

namespace oarlock::lowp {
namespace {

constexpr std::int64_t kBlockUnit = 32;

void check_matrix(const oarlock_tensors& list) {
  if (list.count != 1)
    throw BadArgument(std::string(list.name) + " must be one tensor, not " +
                      std::to_string(list.count));
  const oarlock_tensor& item = list.items[0];
  if (item.ndim != 2)
    throw BadArgument(std::string(list.name) + " has shape " + shape_text(item) +
                      "; it must be a matrix, so reshape it");
}

std::string name_and_shape(const Factor& f) {
  return std::string(f.list.name) + " of shape " + shape_text(f.list.items[0]);
}

}  // namespace

const char* format_name(Format format) {
  constexpr const char* names[] = {"fp32", "bf16", "fp16", "int8", "int16", "fp8_e4m3", "fp8_e5m2"};
  return names[static_cast<int>(format)];
}

std::int32_t code_type(Format format) {
  constexpr std::int32_t kInt = 0, kUnsigned = 1 << 8;
  switch (format) {
    case Format::fp32: return kFloat32;
    case Format::bf16: return kBfloat16;
    case Format::fp16: return 2 << 8 | 16;
    case Format::int8: return kInt | 8;
    case Format::int16: return kInt | 16;
    case Format::fp8_e4m3:
    case Format::fp8_e5m2: return kUnsigned | 8;
  }
  return -1;
}

Format check_format(const char* name, const oarlock_lowp_format& given) {
  if (given.format < 0 || given.format >= kFormats)
    throw BadArgument("the format of " + std::string(name) + " is unknown: " +
                      std::to_string(given.format));
  const auto format = static_cast<Format>(given.format);
  if (given.block < 0 || given.block % kBlockUnit != 0)
    throw BadArgument("block must be a positive multiple of " + std::to_string(kBlockUnit) +
                      ", not " + std::to_string(given.block));
  if (given.block > 0 && !has_scales(format))
    throw BadArgument("block is the number of elements that share a scale, but " +
                      std::string(format_name(format)) + " has none; leave it out");
  return format;
}

Factor factor(const oarlock_tensors& list, const oarlock_tensors* scales,
              const oarlock_lowp_format& given, bool along_rows, Device device) {
  check_matrix(list);
  const Format format = check_format(list.name, given);
  const oarlock_tensor& item = list.items[0];
  if (given.codes)
    check_dtype(list, {code_type(format)});
  else
    check_dtype(list, {kFloat32, kBfloat16});
  check_memory(list, Access::read, device);
  const float* data = nullptr;
  if (scales != nullptr) {
    check_matrix(*scales);
    check_dtype(*scales, {kFloat32});
    check_memory(*scales, Access::read, device);
    data = static_cast<const float*>(scales->items[0].data);
  }
  return {list, scales, format, given.codes != 0, along_rows, item.shape[along_rows ? 0 : 1],
          item.shape[along_rows ? 1 : 0], data};
}

void check_product(const Factor& a, const Factor& b, const oarlock_lowp_matmul_options& o,
                   const oarlock_tensors* bias, const oarlock_tensors& out, Device device) {
  const auto integers = [](Format f) { return f == Format::int8 || f == Format::int16; };
  if ((integers(a.format) || integers(b.format)) && a.format != b.format)
    throw BadArgument(std::string("format must be of one kind of arithmetic, not ") +
                      format_name(a.format) + " with " + format_name(b.format));
  if (has_scales(a.format) != has_scales(b.format) || o.a.block != o.b.block)
    throw BadArgument("a and b must both have scales, for blocks of the same size; quantise both "
                      "with the same block, and give it to matmul");
  if (a.depth != b.depth)
    throw BadArgument(name_and_shape(a) + " and " + name_and_shape(b) + " do not fit: the product "
                      "sums over " + std::to_string(a.depth) + " and " + std::to_string(b.depth) +
                      " elements; transpose one");
  check_matrix(out);
  check_dtype(out, {kFloat32, kBfloat16});
  check_memory(out, Access::write, device);
  const oarlock_tensor& target = out.items[0];
  if (target.shape[0] != a.length || target.shape[1] != b.length)
    throw BadArgument("out has shape " + shape_text(target) + ", but the product has [" +
                      std::to_string(a.length) + ", " + std::to_string(b.length) + "]");
  if (o.activation < 0 || o.activation >= kActivations)
    throw BadArgument("activation is unknown: " + std::to_string(o.activation));
  const oarlock_tensors none{"bias", nullptr, 0};
  if (bias != nullptr) {
    check_dtype(*bias, {kFloat32});
    check_memory(*bias, Access::read, device);
    const oarlock_tensor& item = bias->items[0];
    if (bias->count != 1 || item.ndim != 1 || item.shape[0] != b.length)
      throw BadArgument("bias has shape " + shape_text(item) + ", but must be [" +
                        std::to_string(b.length) + "], one for each column of out");
  }
  check_overlap({{a.list, Access::read}, {b.list, Access::read},
                 {bias ? *bias : none, Access::read}, {a.scales ? *a.scales : none, Access::read},
                 {b.scales ? *b.scales : none, Access::read}, {out, Access::write}});
}

void check_scale_shape(const oarlock_tensors& scales, std::int64_t blocks, std::int64_t length) {
  const oarlock_tensor& item = scales.items[0];
  if (item.shape[0] == blocks && item.shape[1] == length) return;
  throw BadArgument(std::string(scales.name) + " has shape " + shape_text(item) +
                    ", but must be [" + std::to_string(blocks) + ", " + std::to_string(length) +
                    "]: one for each block and vector of the reduction");
}

void check_scales(const Factor& f, const Depth& depth) {
  if (!f.codes || !has_scales(f.format)) return;
  if (f.scales == nullptr)
    throw BadArgument(std::string(f.list.name) + " holds codes without scales");
  check_scale_shape(*f.scales, depth.blocks, f.length);
}

void check_rounding(const oarlock_tensors& x, const oarlock_tensors& y,
                    const oarlock_tensors* scales, const oarlock_lowp_format& given,
                    bool along_rows, bool needs_scales, Access access, Device device) {
  check_matrix(x);
  check_matrix(y);
  const Format format = check_format(x.name, given);
  check_memory(x, Access::read, device);
  check_memory(y, Access::write, device);
  check_shapes(y, x);
  if (scales != nullptr && !has_scales(format))
    throw BadArgument(std::string(format_name(format)) + " has no scales; leave them out");
  if (scales == nullptr && needs_scales && has_scales(format))
    throw BadArgument(std::string(format_name(format)) + " needs scales");
  const oarlock_tensors none{"scales", nullptr, 0};
  if (scales != nullptr) {
    check_matrix(*scales);
    check_dtype(*scales, {kFloat32});
    check_memory(*scales, access, device);
    const oarlock_tensor& item = x.items[0];
    const Depth depth(item.shape[along_rows ? 1 : 0], Unit::floats, given.block);
    check_scale_shape(*scales, depth.blocks, item.shape[along_rows ? 0 : 1]);
  }
  check_overlap({{x, Access::read}, {y, Access::write}, {scales ? *scales : none, access}});
}

void check_hadamard(const oarlock_tensors& x, const oarlock_tensors& out, std::int64_t block,
                    Device device) {
  for (const oarlock_tensors* list : {&x, &out}) {
    check_dtype(*list, {kFloat32, kBfloat16});
    check_memory(*list, list == &out ? Access::write : Access::read, device);
  }
  check_shapes(out, x);
  check_overlap({{x, Access::read}, {out, Access::write}});
  const oarlock_tensor& item = x.items[0];
  const std::int64_t width = item.ndim > 0 ? item.shape[item.ndim - 1] : 1;
  if (block < 1 || (block & (block - 1)) != 0 || width % block != 0)
    throw BadArgument("block must be a power of 2 that divides the last axis, of " +
                      std::to_string(width) + ", not " + std::to_string(block));
}

}  // namespace oarlock::lowp

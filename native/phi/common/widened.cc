#include "common/widened.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>

namespace oarlock {
namespace {

std::string& mismatches() {
  static std::string names;
  return names;
}

bool same_arguments(const phi::KernelArgsDef& a, const phi::KernelArgsDef& b) {
  const auto same_types = [](const auto& x, const auto& y) {
    bool same = x.size() == y.size();
    for (std::size_t i = 0; same && i < x.size(); ++i) same = x[i].type_index == y[i].type_index;
    return same;
  };
  return same_types(a.input_defs(), b.input_defs()) &&
         same_types(a.attribute_defs(), b.attribute_defs()) &&
         same_types(a.output_defs(), b.output_defs());
}

phi::DenseTensor float32_like(const phi::DenseTensor& tensor) {
  const phi::DenseTensorMeta meta(phi::DataType::FLOAT32, tensor.dims(), tensor.layout());
  return {std::shared_ptr<phi::Allocation>(), meta};
}

}  // namespace

phi::DenseTensor widened(const phi::CPUContext& context, const phi::DenseTensor& tensor) {
  if (tensor.dtype() != phi::DataType::BFLOAT16) return tensor;
  phi::DenseTensor wide = float32_like(tensor);
  if (!tensor.initialized()) return wide;
  float* to = context.Alloc<float>(&wide);
  widen_all(bits(tensor), to, tensor.numel());
  return wide;
}

WideResult::WideResult(phi::DenseTensor* result) : result_(result) {
  in_place_ = result == nullptr || (result->dtype() != phi::DataType::BFLOAT16 &&
                                    result->dtype() != phi::DataType::UNDEFINED);
  if (!in_place_) wide_ = float32_like(*result);
}

void WideResult::finish(const phi::CPUContext& context) {
  if (in_place_ || !wide_.initialized()) return;
  if (wide_.dtype() != phi::DataType::FLOAT32) {
    *result_ = wide_;
    return;
  }
  result_->Resize(wide_.dims());
  narrow_all(wide_.data<float>(), allocate<phi::bfloat16>(context, result_), wide_.numel());
}

void call_widened(const phi::Kernel& float32, phi::KernelContext* given) {
  const auto& context = given->GetDeviceContext<phi::CPUContext>();
  phi::KernelContext wide(const_cast<phi::CPUContext*>(&context));
  std::deque<phi::DenseTensor> inputs;
  std::deque<WideResult> results;
  for (std::size_t i = 0; i < given->InputsSize(); ++i) {
    const auto* tensor = static_cast<const phi::DenseTensor*>(given->MutableInputAt(i));
    if (tensor != nullptr) inputs.push_back(widened(context, *tensor));
    wide.EmplaceBackInputWithoutSetRange(tensor != nullptr ? &inputs.back() : nullptr);
  }
  for (std::size_t i = 0; i < float32.args_def().input_defs().size(); ++i)
    wide.AssignInputRange(std::pair<int, int>(given->InputRangeAt(i)), i);
  for (std::size_t i = 0; i < given->AttrsSize(); ++i) {
    const phi::Attribute& value = given->AttrAt(i);
    const auto* type = paddle::get_if<phi::DataType>(&value);
    const bool narrow = type != nullptr && *type == phi::DataType::BFLOAT16;
    wide.EmplaceBackAttr(narrow ? phi::Attribute(phi::DataType::FLOAT32) : value);
  }
  for (std::size_t i = 0; i < given->OutputsSize(); ++i) {
    results.emplace_back(given->MutableOutputAt<phi::DenseTensor>(i));
    wide.EmplaceBackOutputWithoutSetRange(results.back().get());
  }
  for (std::size_t i = 0; i < float32.args_def().output_defs().size(); ++i)
    wide.AssignOutputRange(std::pair<int, int>(given->OutputRangeAt(i)), i);
  float32(&wide);
  for (auto& result : results) result.finish(context);
}

phi::Kernel float32_kernel(const char* name, phi::Kernel* ours) {
  const phi::KernelKey key(phi::Backend::CPU, phi::DataLayout::ALL_LAYOUT, phi::DataType::FLOAT32);
  const phi::Kernel& float32 = phi::KernelFactory::Instance().SelectKernel(name, key);
  if (!float32.IsValid() || !same_arguments(float32.args_def(), ours->args_def())) {
    mismatches() += std::string(mismatches().empty() ? "" : " ") + name;
    return {};
  }
  const auto take_over = [](const phi::TensorArgDef& theirs, phi::TensorArgDef& our) {
    our.SetBackend(theirs.backend);
    if (theirs.dtype != phi::DataType::FLOAT32) our.SetDataType(theirs.dtype);
  };
  const auto& inputs = float32.args_def().input_defs();
  for (std::size_t i = 0; i < inputs.size(); ++i) take_over(inputs[i], ours->InputAt(i));
  const auto& outputs = float32.args_def().output_defs();
  for (std::size_t i = 0; i < outputs.size(); ++i) take_over(outputs[i], ours->OutputAt(i));
  return float32;
}

}  // namespace oarlock

// Names of widened kernels whose float32 kernel is not what they were written for; empty if all is
// well.
extern "C" const char* oarlock_phi_mismatches() { return oarlock::mismatches().c_str(); }

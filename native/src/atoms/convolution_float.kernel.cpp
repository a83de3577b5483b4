#include "atoms/convolution.h"

namespace oarlock::OARLOCK_PATH {

extern const atoms::ConvolutionKernels<float> convolution_kernels_float;
const atoms::ConvolutionKernels<float> convolution_kernels_float = {
    OARLOCK_DEGREES(forward, float), OARLOCK_DEGREES(backward, float), OARLOCK_DEGREES(tangent, float),
    OARLOCK_DEGREES(second, float)};

}  // namespace oarlock::OARLOCK_PATH

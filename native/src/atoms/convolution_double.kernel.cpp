#include "atoms/convolution.h"

namespace oarlock::OARLOCK_PATH {

extern const atoms::ConvolutionKernels<double> convolution_kernels_double;
const atoms::ConvolutionKernels<double> convolution_kernels_double = {
    OARLOCK_DEGREES(forward, double), OARLOCK_DEGREES(backward, double), OARLOCK_DEGREES(tangent, double),
    OARLOCK_DEGREES(second, double)};

}  // namespace oarlock::OARLOCK_PATH

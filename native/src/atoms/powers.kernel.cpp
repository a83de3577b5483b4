#include "atoms/powers.h"

namespace oarlock::OARLOCK_PATH {

extern const atoms::PowersKernels<float> powers_kernels_float;
const atoms::PowersKernels<float> powers_kernels_float = {
    OARLOCK_POWERS(forward, float), OARLOCK_POWERS(backward, float), OARLOCK_POWERS(second, float)};

extern const atoms::PowersKernels<double> powers_kernels_double;
const atoms::PowersKernels<double> powers_kernels_double = {
    OARLOCK_POWERS(forward, double), OARLOCK_POWERS(backward, double), OARLOCK_POWERS(second, double)};

}  // namespace oarlock::OARLOCK_PATH

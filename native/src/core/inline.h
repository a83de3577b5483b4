// For functions that the kernels of the CPU and of CUDA share.
#pragma once

#if defined(__CUDACC__)
#define OARLOCK_INLINE __host__ __device__ inline
#else
#define OARLOCK_INLINE inline
#endif

// What the kernels share. Header-free, so that NVRTC needs nothing but this text; a host compiler takes it as well once
// CUDA's few built-ins are defined away (tests/cuda_host.hpp).
//
// __init__.py puts the shapes before it as constants: POINTS, CENTERS, CHANNELS, THREADS and what each kernel names.
// A grid has one dimension: blocks of one group side by side, group after group, so no launch needs the number of groups.
// HALF: data are float16, held as their bits. Arithmetic is float32 in either case.

#if HALF
typedef unsigned short Real;
#ifdef __CUDACC__
__device__ inline float load(Real bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ inline Real store(float value) {
    Real bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif
#else
typedef float Real;
__device__ inline float load(Real value) { return value; }
__device__ inline Real store(float value) { return value; }
#endif

__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

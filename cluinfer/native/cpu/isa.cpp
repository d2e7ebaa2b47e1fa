#include "isa.hpp"

#if defined(CLUINFER_X86) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace cluinfer {
namespace {

#if defined(CLUINFER_X86) && defined(_MSC_VER)

struct Features {
    bool avx2 = false, avx512 = false, vnni = false;
    Features() {
        int leaf[4];
        __cpuid(leaf, 0);
        const int highest = leaf[0];
        __cpuid(leaf, 1);
        const bool saves = (leaf[2] & (1 << 27)) != 0, fma = (leaf[2] & (1 << 12)) != 0;
        if (!saves || !fma || highest < 7) return;
        const unsigned long long kept = _xgetbv(0);  // the registers that the system saves on a task switch
        __cpuidex(leaf, 7, 0);
        avx2 = (kept & 0x6) == 0x6 && (leaf[1] & (1 << 5)) != 0;
        const unsigned wanted = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
        avx512 = avx2 && (kept & 0xe6) == 0xe6 && (static_cast<unsigned>(leaf[1]) & wanted) == wanted;
        vnni = avx512 && (leaf[2] & (1 << 11)) != 0 && (leaf[1] & (1 << 3)) != 0;
    }
};

#elif defined(CLUINFER_X86)

struct Features {  // the compiler's run-time library asks XGETBV as well
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi");
};

#endif

}  // namespace

const Kernels* kernels(int isa) {
    const Kernels* here[4] = {&portable_kernels(), nullptr, nullptr, nullptr};
    int count = 1;
#if defined(CLUINFER_X86)
    const Features features;
    if (features.avx2) here[count++] = &avx2_kernels();
    if (features.avx512) here[count++] = &avx512_kernels();
    if (features.vnni) here[count++] = &avx512_vnni_kernels();
#endif
    if (isa == -1) return here[count - 1];
    return isa >= 0 && isa < count ? here[isa] : nullptr;
}

}  // namespace cluinfer

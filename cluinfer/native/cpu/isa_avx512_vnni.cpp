#define CLUINFER_SCREEN
#include "screen.hpp"

namespace cluinfer {
const Kernels& avx512_vnni_kernels() {
    static constexpr Kernels kernels{"avx512_vnni", panel,  ::pack, ::assign,  ::average, ::scatter,      ::gather,
                                     ::attend, ::peak, ::add,  ::collect, ::settle,  ::blend,         ::project,
                                     ::dispatch, ::norm, ::coarse_bytes, ::coarsen};
    return kernels;
}
}  // namespace cluinfer

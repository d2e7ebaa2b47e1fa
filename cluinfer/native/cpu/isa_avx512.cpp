#include "leaves.hpp"

namespace cluinfer {
const Kernels& avx512_kernels() {
    static constexpr Kernels kernels{"avx512",   panel,  ::pack, ::assign,  ::average, ::scatter,      ::gather,
                                     ::attend, ::peak, ::add,  ::collect, ::settle,  ::blend,         ::project,
                                     ::dispatch, ::norm, ::coarse_bytes, ::coarsen};
    return kernels;
}
}  // namespace cluinfer

#include "leaves.hpp"

namespace cluinfer {
const Kernels& portable_kernels() {
    static constexpr Kernels kernels{"portable",   panel,  ::pack, ::assign,  ::average, ::scatter,      ::gather,
                                     ::attend, ::peak, ::add,  ::collect, ::settle,  ::blend,         ::project,
                                     ::dispatch, ::norm, ::coarse_bytes, ::coarsen};
    return kernels;
}
}  // namespace cluinfer

// Which instruction sets this CPU and operating system can run.
#pragma once

#include "kernels.hpp"

namespace cluinfer {

// Kernel table number `isa` of those that run here, worst first; the last one for -1; null for any other number.
const Kernels* kernels(int isa);

}  // namespace cluinfer

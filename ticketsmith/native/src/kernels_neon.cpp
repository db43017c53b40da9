#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

namespace neon {
#include "isa/neon.h"
#include "kernels.inl"
}  // namespace neon
const Kernels* neon_kernels() { return &neon::TABLE; }
#else
const Kernels* neon_kernels() { return nullptr; }
#endif

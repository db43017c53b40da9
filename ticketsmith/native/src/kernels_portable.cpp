#include "kernels.h"

namespace portable {
#include "isa/portable.h"
#include "kernels.inl"
}  // namespace portable
const Kernels* portable_kernels() { return &portable::TABLE; }

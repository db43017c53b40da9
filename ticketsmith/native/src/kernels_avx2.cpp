#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace avx2 {
#include "isa/avx2.h"
#include "kernels.inl"
}  // namespace avx2
const Kernels* avx2_kernels() { return &avx2::TABLE; }
#else
const Kernels* avx2_kernels() { return nullptr; }
#endif

#include "kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace avx512 {
#include "isa/avx512.h"
#include "kernels.inl"
}  // namespace avx512
const Kernels* avx512_kernels() { return &avx512::TABLE; }
#else
const Kernels* avx512_kernels() { return nullptr; }
#endif

// What a kernel is, and one table of them per instruction set; which table is used is decided when a program is made.
#pragma once
#include "abi.h"

// The part of an operation that one thread does: part `index` of `count`. Kernels cut only where outputs are apart, and sum each
// output in the order that its shape sets: bytes never depend on `count`.
struct Share {
  int index, count;
};

// Base addresses of the spaces, and which sample of how many is being worked on.
struct Place {
  float* space[abi::SPACES];
  int64_t sample, samples, position;  // position: tokens that a session has seen before
};

using Kernel = int (*)(const abi::Op*, const Place&, Share);

struct Kernels {
  Kernel of[abi::KINDS];  // in the order of native/abi.py
};

// Null where the build has no such instructions.
const Kernels* portable_kernels();
const Kernels* neon_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

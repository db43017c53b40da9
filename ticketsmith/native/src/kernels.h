// One table of kernels per instruction set; which one is used is decided when a program is made.
#pragma once
#include "api.h"

// The part of an operation that one thread does: part `index` of `count`.
struct Share {
  int index, count;
};

// Base addresses of the spaces, and which sample of how many is being worked on.
struct Place {
  float* space[TS_SPACES];
  int64_t sample, samples, position;  // position: tokens that a session has seen before
};

using Kernel = int (*)(const ts_op*, const Place&, Share);

struct Kernels {
  Kernel of[TS_KINDS];
};

// Null where the build or the machine has no such instructions.
const Kernels* portable_kernels();
const Kernels* neon_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

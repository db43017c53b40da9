// What a kernel of training is, and one table of them per instruction set.
#pragma once
#include "program/kernels.h"

// What all operations of a step have in common. Numbers of the optimizer are ready to be multiplied with.
struct Step {
  const void *data, *targets;
  const int64_t* indices;
  int64_t item, samples, optimizer, nesterov;
  uint64_t seed;
  double* loss;
  float* outputs;
  // gradient += penalty * weight; weight *= shrink (AdamW); weight -= rate * direction; average += follow * (weight - average)
  float penalty, shrink, rate, momentum, root_scale, follow;
};
namespace abi::Optimizer {
enum : int { SGD = 0, MOMENTUM = 1, ADAM = 2 };
}

using StepKernel = void (*)(const abi::Op*, const Step&, Share);
struct StepKernels {
  StepKernel of[abi::STEP_KINDS];  // in the order of native/abi.py
};

const StepKernels* portable_steps();
const StepKernels* neon_steps();
const StepKernels* avx2_steps();
const StepKernels* avx512_steps();

// What all kernels share. Kernels are written once, for sixteen floats at a time (F16), and compiled for each instruction set
// inside a namespace of its own, after the F16 of that set. No header of the standard library with inline functions may be used
// here: the linker could keep the copy compiled for the newest instructions and run it on a machine without them.
//
// A kernel is a pure function of pointers and sizes. The last function of a file, which has the name of its operation, takes the
// operation apart: it finds the addresses of values and the share of this thread.
#pragma once

using namespace abi;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

inline float* at(const Value& value, const Place& place) { return place.space[value.space] + value.base; }

struct Range {
  int64_t begin, end;
};
inline Range part(int64_t total, Share share, int64_t step = 1) {
  const int64_t pieces = (total + step - 1) / step;
  return {pieces * share.index / share.count * step, smaller(total, pieces * (share.index + 1) / share.count * step)};
}

// The entry of an operation in the table.
template <class Operation, int (*KERNEL)(const Operation&, const Place&, Share)>
int call(const Op* op, const Place& place, Share share) {
  return KERNEL(*reinterpret_cast<const Operation*>(op), place, share);
}

inline __attribute__((always_inline)) F16 exponential(F16 x) {
  x = minimum(all(88.0f), maximum(all(-87.0f), x));
  const F16 n = rounded(x * all(1.44269504f));
  F16 r = fma(n, all(-0.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  F16 p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p * r, r, r + all(1.0f));
  return p * power_of_two(n);
}
// 2 to the power of x, no more than 126; a minimax polynomial, within 2e-7 of the result.
inline F16 power(F16 x) {
  x = maximum(all(-126.0f), x);
  const F16 n = rounded(x), r = x - n;
  F16 p = all(1.32764715e-3f);
  p = fma(p, r, all(9.67554133e-3f));
  p = fma(p, r, all(5.55071327e-2f));
  p = fma(p, r, all(2.40221197e-1f));
  p = fma(p, r, all(6.93146967e-1f));
  p = fma(p, r, all(1.0f));
  return p * power_of_two(n);
}
inline F16 sigmoid(F16 x) { return all(1.0f) / (all(1.0f) + exponential(all(0.0f) - x)); }
inline F16 tangent(F16 x) { return all(2.0f) * sigmoid(all(2.0f) * x) - all(1.0f); }
inline F16 error_function(F16 x) {  // Abramowitz and Stegun 7.1.26: 1.5e-7
  const F16 size = maximum(x, all(0.0f) - x);
  const F16 t = all(1.0f) / fma(all(0.3275911f), size, all(1.0f));
  F16 p = all(1.061405429f);
  p = fma(p, t, all(-1.453152027f));
  p = fma(p, t, all(1.421413741f));
  p = fma(p, t, all(-0.284496736f));
  p = fma(p, t, all(0.254829592f));
  const F16 value = all(1.0f) - p * t * exponential(all(0.0f) - size * size);
  // the sign, without a branch: x / |x|, and 0 at 0
  return value * (x / maximum(size, all(1e-30f)));
}

// A rational minimax approximation of the normal distribution up to 5.2, where it is 1 in float32. The error is below 3e-7 of x,
// or of 1 where x is smaller.
inline F16 gelu(F16 x) {
  const F16 most = all(5.23259f), no_less = maximum(all(-5.23259f), x), y = minimum(most, no_less), square = y * y;
  F16 p = all(5.97171993e-6f), q = all(5.10449922e-7f);
  q = fma(q, square, all(1.15782357e-4f));
  p = fma(p, square, all(3.22783511e-4f)), q = fma(q, square, all(2.75355298e-3f));
  p = fma(p, square, all(5.57508925e-3f)), q = fma(q, square, all(3.78049202e-2f));
  p = fma(p, square, all(5.03669269e-2f)), q = fma(q, square, all(2.92911500e-1f));
  p = fma(p, square, all(3.98941904e-1f)), q = fma(q, square, all(1.0f));
  return no_less * (all(0.5f) + y * p / q);
}
inline F16 gelu_tanh(F16 x) {  // half of 1 + tanh(z) is sigmoid(2 z)
  return x * sigmoid(all(1.59576912f) * fma(x * x * x, all(0.044715f), x));
}

inline F16 one_by_one(F16 x, int64_t function) {  // rare ones
  float each[16];
  store(each, x);
  for (float& y : each)
    y = function == Activation::LOG    ? __builtin_logf(y)
        : function == Activation::SQRT ? __builtin_sqrtf(y)
        : function == Activation::SIN  ? __builtin_sinf(y)
                              : __builtin_cosf(y);
  return load(each);
}

inline F16 activated(F16 x, int64_t activation) {
  const F16 half = all(0.5f), one = all(1.0f), zero = all(0.0f);
  switch (activation) {
    case Activation::RELU: return maximum(zero, x);  // in this order NaN stays NaN
    case Activation::RELU6: return minimum(all(6.0f), maximum(zero, x));
    case Activation::GELU: return gelu(x);
    case Activation::GELU_TANH: return gelu_tanh(x);
    case Activation::SILU: return x * sigmoid(x);
    case Activation::SIGMOID: return sigmoid(x);
    case Activation::TANH: return tangent(x);
    case Activation::HARD_SWISH: return x * minimum(one, maximum(zero, fma(x, all(1.0f / 6.0f), half)));
    case Activation::HARD_SIGMOID: return minimum(one, maximum(zero, fma(x, all(1.0f / 6.0f), half)));
    case Activation::EXP: return exponential(x);
    case Activation::ERF: return error_function(x);
    case Activation::ABS: return maximum(x, zero - x);
    case Activation::LOG: case Activation::SQRT: case Activation::SIN: case Activation::COS: return one_by_one(x, activation);
    default: return x;
  }
}

// Sums must stay in registers, so all loops over them are unrolled.
#define EACH_VECTOR _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
#define EACH_PIXEL _Pragma("GCC unroll 16") for (int p = 0; p < P; p++)

void activate(float* out, int64_t vectors, int64_t activation, const uint16_t* mask) {
  for (int64_t t = 0; t < vectors; t++) {
    const F16 x = activated(load(out + 16 * t), activation);
    store(out + 16 * t, mask ? keep(x, mask[t]) : x);
  }
}

// What follows every product: residual, activation, and zeros where the layout has its padding columns. Inlined, or sums would
// be written to memory for it.
template <int T>
inline __attribute__((always_inline)) void finish(float* out, F16* sums, const float* residual, int64_t activation, const uint16_t* mask) {
  if (residual) EACH_VECTOR sums[t] = sums[t] + load(residual + 16 * t);
  const bool relu = activation == Activation::RELU || activation == Activation::RELU6;
  if (relu) EACH_VECTOR sums[t] = maximum(all(0.0f), sums[t]);  // the common cases, in registers
  if (activation == Activation::RELU6) EACH_VECTOR sums[t] = minimum(all(6.0f), sums[t]);
  if (mask)
    EACH_VECTOR store(out + 16 * t, keep(sums[t], mask[t]));
  else
    EACH_VECTOR store(out + 16 * t, sums[t]);
  if (activation != Activation::LINEAR && !relu) activate(out, T, activation, mask);
}

// Around a product of `outputs` rows with one vector: out = activation(scales * sums + bias + residual), each of `scales` and
// `residual` where it is there. Sums of weights of 8 bits are scaled by row.
struct Epilogue {
  const float *scales, *bias, *residual;
  float* out;
  int64_t outputs, activation;
};
template <class Product>
inline Epilogue epilogue(const Product& k, const Place& place) {
  return {k.scales, k.bias, k.has_residual ? at(k.residual, place) : nullptr, at(k.out, place), k.out.planes, k.activation};
}

// Calls body(weights) with weights of the type that `dtype` names.
template <class Body>
inline void with_weights(const void* weights, int64_t dtype, Body&& body) {
  if (dtype == Dtype::FLOAT32) body(static_cast<const float*>(weights));
  if (dtype == Dtype::BFLOAT16) body(static_cast<const uint16_t*>(weights));
  if (dtype == Dtype::INT8) body(static_cast<const int8_t*>(weights));
}

// The last block of a vector, from `begin` on: the caller's array ends where its inputs end, so it is read from a copy.
template <int WIDTH>
struct Tail {
  float x[WIDTH] = {};
  Tail(const float* inputs, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) x[i - begin] = inputs[i];
  }
};

constexpr int AHEAD = 2048;  // weights between what is computed and what is fetched

// Where a product with planes reads and writes, resolved by its adapter.
struct Ends {
  const float *in, *residual;
  float* out;
};
template <class Product>
inline Ends ends(const Product& k, const Place& place) {
  return {at(k.in, place), k.has_residual ? at(k.residual, place) : nullptr, at(k.out, place)};
}

// Calls body<n>() for a run-time n of 1..LIMIT.
template <int LIMIT, class Body>
inline void with_constant(int64_t n, Body&& body) {
  if constexpr (LIMIT > 0) {
    if (n == LIMIT)
      body.template operator()<LIMIT>();
    else
      with_constant<LIMIT - 1>(n, body);
  }
}

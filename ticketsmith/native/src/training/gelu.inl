// GELU: x times the normal distribution up to x.

// The distribution and its slope.
struct Distribution {
  F16 share, slope;
};
inline Distribution distribution(F16 x, bool tanh) {
  const F16 one = all(1.0f);
  if (tanh) {  // (1 + tanh(u)) / 2 is the sigmoid of 2 u
    const F16 square = x * x, share = sigmoid(all(1.59576912f) * fma(square * x, all(0.044715f), x));
    return {share, share * (one - share) * all(1.59576912f) * fma(square, all(0.134145f), one)};
  }
  const F16 density = all(0.39894228f) * exponential(all(-0.5f) * x * x);
  return {all(0.5f) * (one + error_function(x * all(0.70710678f))), density};
}

void gelu(const Gelu& k, const Step&, Share share) {
  const Range range = part(k.count, share, 16);
  for (int64_t i = range.begin; i < range.end; i += 16) {
    const int64_t some = k.count - i;
    const F16 x = load_first(k.in + i, some);
    store_first(k.out + i, x * distribution(x, k.tanh).share, some);
  }
}

void gelu_gradient(const GeluGradient& k, const Step&, Share share) {
  const Range range = part(k.count, share, 16);
  for (int64_t i = range.begin; i < range.end; i += 16) {
    const int64_t some = k.count - i;
    const F16 x = load_first(k.in + i, some);
    const Distribution both = distribution(x, k.tanh);
    store_first(k.gradient + i, load_first(k.out_gradient + i, some) * fma(x, both.slope, both.share), some);
  }
}

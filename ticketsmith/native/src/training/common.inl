// What kernels of training share. A value lies in lanes: for each block of examples, channel, row and column a few vectors of
// sixteen examples, so that every kernel is the same whatever the width of an image, and a vector of features is an image of one
// pixel. Around an image lies a border of zeros, as wide as its readers' padding. Lanes without an example have a gradient of zero.
#pragma once

template <class Operation, void (*KERNEL)(const Operation&, const Step&, Share)>
void call(const Op* op, const Step& step, Share share) {
  KERNEL(*reinterpret_cast<const Operation*>(op), step, share);
}

// As many columns a tile as are even, of at most `most`: tile `index` of `count` begins at begin.
struct Tiles {
  int64_t total, count;
  Tiles(int64_t total, int64_t most) : total(total), count((total + most - 1) / most) {}
  int64_t begin(int64_t index) const { return total * index / count; }
  int64_t size(int64_t index) const { return begin(index + 1) - begin(index); }
};

// The rows of all blocks are divided among threads where there are enough, or else the outputs.
struct Division {
  Range rows, outputs;
};
inline Division division(const Vectors& v, int64_t outputs, Share share) {
  const int64_t rows = v.blocks * v.rows;
  if (rows >= 2 * share.count) return {part(rows, share), {0, outputs}};
  return {{0, rows}, part(outputs, share)};
}

// The lanes of the first `count`, as a mask.
inline uint16_t seen(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<uint16_t>((1u << count) - 1);
}

// One step of the optimizer for a vector of weights. The formulas are PyTorch's.
template <int OPTIMIZER>
inline __attribute__((always_inline)) void improve_vector(const Parameter& p, int64_t at, F16 g, const uint16_t* mask,
                                                          const Step& s) {
  F16 w = load(p.values + at);
  g = fma(all(s.penalty), w, mask ? keep(g, mask[at / 16]) : g);
  w = w * all(s.shrink);
  if (OPTIMIZER == Optimizer::ADAM) {
    F16 m = load(p.first + at), v = load(p.second + at);
    m = fma(all(static_cast<float>(1 - 0.9)), g - m, m);
    v = fma(all(static_cast<float>(1 - 0.999)) * g, g, v * all(0.999f));
    store(p.first + at, m), store(p.second + at, v);
    w = w - all(s.rate) * m / fma(root(v), all(s.root_scale), all(1e-8f));
  } else {
    if (OPTIMIZER == Optimizer::MOMENTUM) {
      const F16 m = fma(all(s.momentum), load(p.first + at), g);
      store(p.first + at, m);
      g = s.nesterov ? fma(all(s.momentum), m, g) : m;
    }
    w = w - all(s.rate) * g;
  }
  store(p.values + at, w);
  if (p.average) {  // as torch.lerp does, so that either end is exact
    const F16 a = load(p.average + at);
    store(p.average + at, s.follow < 0.5f ? fma(all(s.follow), w - a, a) : w - (w - a) * all(1.0f - s.follow));
  }
}

// The same for `count` vectors from `at` on. A function of its own, called by tiles of all shapes, whose code it would multiply.
using Improve = void (*)(const Parameter&, int64_t at, const F16* gradients, int64_t count, const uint16_t* mask, const Step&);

template <int OPTIMIZER>
__attribute__((noinline)) void improve(const Parameter& p, int64_t at, const F16* gradients, int64_t count,
                                       const uint16_t* mask, const Step& s) {
  for (int64_t i = 0; i < count; i++) improve_vector<OPTIMIZER>(p, at + 16 * i, gradients[i], mask, s);
}
inline Improve improver(const Step& s) {
  return s.optimizer == Optimizer::ADAM       ? improve<Optimizer::ADAM>
         : s.optimizer == Optimizer::MOMENTUM ? improve<Optimizer::MOMENTUM>
                                              : improve<Optimizer::SGD>;
}

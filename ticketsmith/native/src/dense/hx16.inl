// Dense convolutions and products with planes: `height` output planes by a few vectors at a time.
#pragma once
#include "simd/common.inl"

#define EACH_OUTPUT _Pragma("GCC unroll 8") for (int h = 0; h < HEIGHT; h++)

template <int HEIGHT>
struct Hx16Tile {
  const DenseHx16& k;
  const float* x;
  float* out;
  const float* residual;
  const uint16_t* mask;
  Range outputs;

  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++)
      for (int64_t o = outputs.begin; o < outputs.end; o += HEIGHT) block<T>(o, b);
  }

  template <int T>
  void block(int64_t o, int64_t b) const {
    const bool last = b == k.blocks - 1;
    const int64_t begin = k.taps * b / k.blocks, end = k.taps * (b + 1) / k.blocks;
    F16 sums[HEIGHT][T];
    EACH_OUTPUT {
      const F16 bias = all(k.bias[o + h]);
      const float* so_far = out + (o + h) * k.out.plane;
      EACH_VECTOR sums[h][t] = b && o + h < outputs.end ? load(so_far + 16 * t) : bias;
    }
    const float* weight = k.weights + o * k.taps + begin * HEIGHT;
    for (int64_t i = begin; i < end; i++, weight += HEIGHT) {
      F16 inputs[T];
      const float* source = x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);  // weights may come from memory, where nothing else is waited for
      EACH_VECTOR inputs[t] = load(source + 16 * t);
      EACH_OUTPUT {
        const F16 w = all(weight[h]);
        EACH_VECTOR sums[h][t] = fma(w, inputs[t], sums[h][t]);
      }
    }
    EACH_OUTPUT {
      if (o + h >= outputs.end) break;
      if (!last) {
        EACH_VECTOR store(out + (o + h) * k.out.plane + 16 * t, sums[h][t]);
      } else {
        finish<T>(out + (o + h) * k.out.plane, sums[h], residual ? residual + (o + h) * k.residual.plane : nullptr,
                  k.activation, mask);
      }
    }
  }
};

template <int HEIGHT, int LIMIT>
void dense_hx16_of(const DenseHx16& k, const Ends& ends, Share share) {
  const Range outputs = part(k.out.planes, share, HEIGHT);
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t chunks = (stretch.vectors + LIMIT - 1) / LIMIT;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
      const int64_t begin = stretch.out + 16 * first;
      const Hx16Tile<HEIGHT> body{k, ends.in + stretch.in + 16 * first, ends.out + begin,
                                   ends.residual ? ends.residual + begin : nullptr,
                                   k.mask ? k.mask + begin / 16 : nullptr, outputs};
      with_constant<LIMIT>(end - first, body);
    }
  }
}

int dense_hx16(const DenseHx16& k, const Place& place, Share share) {
  if (k.height == 8)
    dense_hx16_of<8, DENSE_TALL>(k, ends(k, place), share);
  else
    dense_hx16_of<4, DENSE_SMALL>(k, ends(k, place), share);
  return Status::OK;
}

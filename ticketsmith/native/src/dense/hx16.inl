// Dense convolutions and products with planes: `height` output planes by a few vectors at a time.
#pragma once
#include "dense/quantise.inl"

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

// In whole numbers: a float of the inputs is four bytes of four planes, a weight is four weights.
template <class Dots>
struct DotHx16Tile {
  static constexpr int HEIGHT = 4;
  const DenseDotHx16& k;
  const float* x;
  float* out;
  const float *residual, *range;
  const uint16_t* mask;
  int64_t vector;
  Range outputs;

  template <int T>
  void operator()() const {
    for (int64_t o = outputs.begin; o < outputs.end; o += HEIGHT) {
      I16 sums[HEIGHT][T];
      EACH_OUTPUT begin_sums<T>(sums[h], range, k.period, vector, k.totals[o + h]);
      const int32_t* weight = k.weights + o * k.taps;
      for (int64_t i = 0; i < k.taps; i++, weight += HEIGHT) {
        const auto* source = reinterpret_cast<const uint8_t*>(x + k.offsets[i]);
        typename Dots::Bytes inputs[T];
        EACH_VECTOR inputs[t] = Dots::bytes(source + 64 * t);
        EACH_OUTPUT {
          const auto weights = Dots::all(weight[h]);
          EACH_VECTOR sums[h][t] = Dots::add(sums[h][t], inputs[t], weights);
        }
      }
      EACH_OUTPUT {
        if (o + h >= outputs.end) break;
        F16 values[T];
        scale_sums<T>(sums[h], values, all(k.scales[o + h]), all(k.bias[o + h]), range, k.period, vector);
        finish<T>(out + (o + h) * k.out.plane, values, residual ? residual + (o + h) * k.residual.plane : nullptr,
                  k.activation, mask);
      }
    }
  }
};

int dense_dot_hx16(const DenseDotHx16& k, const Place& place, Share share) {
  const Ends e = ends(k, place);
  const Range outputs = part(k.out.planes, share, 4);
  with_dots([&](auto dots) {
    for (int64_t s = 0; s < k.stretch_count; s++) {
      const Stretch& stretch = k.stretches[s];
      const int64_t chunks = (stretch.vectors + DENSE_SMALL - 1) / DENSE_SMALL;
      for (int64_t c = 0; c < chunks; c++) {
        const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
        const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
        const DotHx16Tile<decltype(dots)> body{k, e.in + stretch.in + 16 * first, e.out + begin,
                                               e.residual ? e.residual + begin : nullptr, at(k.range, place),
                                               k.mask ? k.mask + vector : nullptr, vector, outputs};
        with_constant<DENSE_SMALL>(end - first, body);
        if (k.rounds) round_tile(k, place, outputs, begin, end - first);
      }
    }
  });
  return Status::OK;
}

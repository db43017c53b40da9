// Dense convolutions and products with planes, without regard to rows: a few pixels of 32 output planes at a time.
#pragma once
#include "simd/common.inl"

// Where what belongs to a tile of pixels lies one behind the other in an output plane: pixels `mask`, the first of which would
// begin at `offset`.
struct Run {
  int64_t offset;
  uint16_t mask;
};

#define EACH_PART _Pragma("GCC unroll 2") for (int h = 0; h < H; h++)

// H vectors of outputs, from `first` on.
template <int H>
struct Px32Tile {
  const DensePx32& k;
  const float* x;
  float* out;
  const float* residual;
  int64_t first, width, begin;  // width: floats between the weights of two taps

  template <int P>
  void operator()() const {
    const int32_t* from = k.from + begin;
    const float* weight = k.weights + first / 32 * 32 * k.taps + first % 32;
    F16 sums[P][H];
    EACH_PIXEL EACH_PART sums[p][h] = load(k.bias + first + 16 * h);
    for (int64_t i = 0; i < k.taps; i++, weight += width) {
      const float* source = x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);
      F16 weights[H];
      EACH_PART weights[h] = load(weight + 16 * h);
      EACH_PIXEL {
        const F16 input = all(source[from[p]]);
        EACH_PART sums[p][h] = fma(input, weights[h], sums[p][h]);
      }
    }
    Run runs[P];
    int count = 0;
    for (int p = 0; p < P; p++) {
      const int64_t offset = k.to[begin + p] - p;
      if (!count || runs[count - 1].offset != offset) runs[count++] = {offset, 0};
      runs[count - 1].mask = static_cast<uint16_t>(runs[count - 1].mask | 1u << p);
    }
    EACH_PART {
      F16 turned[16];
      for (int p = 0; p < 16; p++) turned[p] = p < P ? sums[p][h] : all(0.0f);
      transpose(turned);
      const int64_t end = smaller(16, k.out.planes - first - 16 * h);
      for (int64_t o = 0; o < end; o++) finish_runs(turned[o], first + 16 * h + o, runs, count);
    }
  }

  inline void finish_runs(F16 sum, int64_t o, const Run* runs, int count) const {
    if (residual)
      for (int r = 0; r < count; r++) sum = sum + load_some(residual + o * k.residual.plane + runs[r].offset, runs[r].mask);
    if (k.activation == Activation::RELU || k.activation == Activation::RELU6)  // the common cases, without a call
      sum = minimum(all(k.activation == Activation::RELU6 ? 6.0f : __builtin_inff()), maximum(all(0.0f), sum));
    else if (k.activation != Activation::LINEAR)
      sum = activated(sum, k.activation);
    for (int r = 0; r < count; r++) store_some(out + o * k.out.plane + runs[r].offset, sum, runs[r].mask);
  }
};

int dense_px32(const DensePx32& k, const Place& place, Share share) {
  const auto [in, residual, out] = ends(k, place);
  const int64_t pixels = k.op.batch ? smaller(k.pixels, place.samples) : k.pixels;  // lanes without a sample cost nothing
  const int64_t groups = (k.out.planes + 31) / 32, tiles = (pixels + PIXELS - 1) / PIXELS;
  const Range range = part(groups * tiles, share);
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t first = i / tiles * 32, tile = i % tiles;
    const int64_t begin = pixels * tile / tiles, count = pixels * (tile + 1) / tiles - begin;
    const int64_t parts = k.out.planes - first > 16 ? 2 : 1;
    for (int64_t h = 0; h < parts; h += PIXEL_VECTORS) {
      if (parts >= PIXEL_VECTORS)
        with_constant<PIXELS>(count, Px32Tile<PIXEL_VECTORS>{k, in, out, residual, first + 16 * h, 16 * parts, begin});
      else
        with_constant<PIXELS>(count, Px32Tile<1>{k, in, out, residual, first, 16, begin});
    }
  }
  return Status::OK;
}

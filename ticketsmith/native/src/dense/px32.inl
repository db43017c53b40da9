// Dense convolutions and products with planes, without regard to rows: a few pixels of 32 output planes at a time.
#pragma once
#include "dense/quantise.inl"

// Where what belongs to a tile of pixels lies one behind the other in an output plane: pixels `mask`, the first of which would
// begin at `offset`.
struct Run {
  int64_t offset;
  uint16_t mask;
};

#define EACH_PART _Pragma("GCC unroll 2") for (int h = 0; h < H; h++)

// H vectors of outputs, from `first` on.
template <int H, class Product>
struct Px32Tile {
  const Product& k;
  const float* x;
  float* out;
  const float* residual;
  int64_t first, width, begin;  // width: weights between those of two taps

  // Of pixels by outputs; value(sum, o) is what a vector of pixels of output o is before the residual.
  template <int P, class Finish>
  inline void write(const F16 (&sums)[P][H], Finish&& value) const {
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
      for (int64_t o = 0; o < end; o++) finish_runs(value(turned[o], first + 16 * h + o), first + 16 * h + o, runs, count);
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

template <int H>
struct Px32Floats : Px32Tile<H, DensePx32> {
  using Px32Tile<H, DensePx32>::k, Px32Tile<H, DensePx32>::first;

  template <int P>
  void operator()() const {
    const int32_t* from = k.from + this->begin;
    const float* weight = k.weights + first / 32 * 32 * k.taps + first % 32;
    F16 sums[P][H];
    EACH_PIXEL EACH_PART sums[p][h] = load(k.bias + first + 16 * h);
    for (int64_t i = 0; i < k.taps; i++, weight += this->width) {
      const float* source = this->x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);
      F16 weights[H];
      EACH_PART weights[h] = load(weight + 16 * h);
      EACH_PIXEL {
        const F16 input = all(source[from[p]]);
        EACH_PART sums[p][h] = fma(input, weights[h], sums[p][h]);
      }
    }
    this->write(sums, [](F16 sum, int64_t) { return sum; });
  }
};

// In whole numbers: a float of the inputs is four bytes of four planes, a weight is four weights.
template <int H, class Dots>
struct Px32Dots : Px32Tile<H, DenseDotPx32> {
  using Px32Tile<H, DenseDotPx32>::k, Px32Tile<H, DenseDotPx32>::first;
  const float* range;

  template <int P>
  void operator()() const {
    const int32_t* from = k.from + this->begin;
    const int32_t* weight = k.weights + first / 32 * 32 * k.taps + first % 32;
    const int64_t columns = 16 * k.period;
    const auto* zeros = reinterpret_cast<const int32_t*>(range + columns);
    I16 sums[P][H];
    EACH_PIXEL EACH_PART {  // less what the zeros of the inputs add
      const int32_t zero = zeros[(this->begin + p) % columns];
      sums[p][h] = all_ints(-zero) * load_ints(k.totals + first + 16 * h);
    }
    for (int64_t i = 0; i < k.taps; i++, weight += this->width) {
      const float* source = this->x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);
      typename Dots::Weights weights[H];
      EACH_PART weights[h] = Dots::weights(reinterpret_cast<const int8_t*>(weight + 16 * h));
      EACH_PIXEL {
        const auto input = Dots::every(reinterpret_cast<const uint8_t*>(source + from[p]));
        EACH_PART sums[p][h] = Dots::add(sums[p][h], input, weights[h]);
      }
    }
    F16 values[P][H];
    EACH_PIXEL EACH_PART values[p][h] = to_floats(sums[p][h]);
    float each[16];
    for (int p = 0; p < 16; p++) each[p] = range[(this->begin + p) % columns];
    const F16 step = load(each);
    this->write(values, [&](F16 sum, int64_t o) { return fma(sum, all(k.scales[o]) * step, all(k.bias[o])); });
  }
};

template <int H>
struct Height {
  static constexpr int value = H;
};
// Calls the bodies tile_of(height, first, width, begin) of this share for as many pixels as they have.
template <class Product, class Tile>
inline int px32_tiles(const Product& k, const Place& place, Share share, Tile&& tile_of) {
  const int64_t pixels = k.op.batch ? smaller(k.pixels, place.samples) : k.pixels;  // lanes without a sample cost nothing
  const int64_t groups = (k.out.planes + 31) / 32, tiles = (pixels + PIXELS - 1) / PIXELS;
  const Range range = part(groups * tiles, share);
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t first = i / tiles * 32, tile = i % tiles;
    const int64_t begin = pixels * tile / tiles, count = pixels * (tile + 1) / tiles - begin;
    const int64_t parts = k.out.planes - first > 16 ? 2 : 1;
    for (int64_t h = 0; h < parts; h += PIXEL_VECTORS) {
      if (parts >= PIXEL_VECTORS)
        with_constant<PIXELS>(count, tile_of(Height<PIXEL_VECTORS>{}, first + 16 * h, 16 * parts, begin));
      else
        with_constant<PIXELS>(count, tile_of(Height<1>{}, first, 16, begin));
    }
  }
  return Status::OK;
}

int dense_px32(const DensePx32& k, const Place& place, Share share) {
  const Ends e = ends(k, place);
  return px32_tiles(k, place, share, [&](auto height, int64_t first, int64_t width, int64_t begin) {
    return Px32Floats<decltype(height)::value>{{k, e.in, e.out, e.residual, first, width, begin}};
  });
}

int dense_dot_px32(const DenseDotPx32& k, const Place& place, Share share) {
  const Ends e = ends(k, place);
  with_dots([&](auto dots) {
    px32_tiles(k, place, share, [&](auto height, int64_t first, int64_t width, int64_t begin) {
      using Tile = Px32Dots<decltype(height)::value, decltype(dots)>;
      return Tile{{k, e.in, e.out, e.residual, first, width, begin}, at(k.range, place)};
    });
  });
  return Status::OK;
}

// Sums of taps between arrays whose rows are examples (or tokens), as PyTorch has them. A block of examples at a time is turned
// into lanes, summed there by the kernels of a whole step, and turned back, so that all of it stays in the caches.

// Of `count` examples of `features` numbers, number f of example b to lanes[places[f] + b]; lanes without an example are zero.
inline void to_lanes(const float* examples, int64_t count, int64_t features, const int32_t* places, int64_t width, float* lanes) {
  for (int64_t first = 0; first < width; first += 16)
    for (int64_t f = 0; f < features; f += 16) {
      F16 x[16];
      const float* row = examples + first * features + f;
      const int64_t wide = smaller(16, features - f), tall = smaller(16, count - first);
      if (wide == 16 && tall == 16) {
        _Pragma("GCC unroll 16") for (int b = 0; b < 16; b++) x[b] = load(row + b * features);
      } else {
        for (int64_t b = 0; b < 16; b++) x[b] = b < tall ? load_first(row + b * features, wide) : all(0.0f);
      }
      transpose(x);
      if (wide == 16) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) store(lanes + places[f + i] + first, x[i]);
      } else {
        for (int64_t i = 0; i < wide; i++) store(lanes + places[f + i] + first, x[i]);
      }
    }
}

// And back.
inline void from_lanes(const float* lanes, int64_t count, int64_t features, const int32_t* places, float* examples) {
  for (int64_t first = 0; first < count; first += 16)
    for (int64_t f = 0; f < features; f += 16) {
      F16 x[16];
      float* row = examples + first * features + f;
      const int64_t wide = smaller(16, features - f), tall = smaller(16, count - first);
      if (wide == 16) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) x[i] = load(lanes + places[f + i] + first);
      } else {
        for (int64_t i = 0; i < 16; i++) x[i] = i < wide ? load(lanes + places[f + i] + first) : all(0.0f);
      }
      transpose(x);
      if (wide == 16 && tall == 16) {
        _Pragma("GCC unroll 16") for (int b = 0; b < 16; b++) store(row + b * features, x[b]);
      } else {
        for (int64_t b = 0; b < tall; b++) store_first(row + b * features, x[b], wide);
      }
    }
}

template <class Number>
Number* within(float* block, Number* place) {
  return reinterpret_cast<Number*>(reinterpret_cast<char*>(block) + reinterpret_cast<intptr_t>(place));
}

void example_taps(const ExampleTaps& k, const Step& s, Share share) {
  const Range blocks = part(k.blocks, share);
  float* out = k.out_lanes + share.index * k.out_block;
  for (int64_t block = blocks.begin; block < blocks.end; block++) {
    const int64_t first = block * k.lanes, count = smaller(k.lanes, k.examples - first);
    float* in = k.in_lanes + (k.keep ? block : share.index) * k.in_block;
    for (int64_t i = 0; i < k.edges; i++) store(in + k.edge_places[i], all(0.0f));
    to_lanes(k.in + first * k.in_features, count, k.in_features, k.in_places, k.lanes, in);
    for (int64_t i = 0; k.out && i < k.count; i++) {
      SparseTaps taps = k.taps[i];
      taps.in = within(in, taps.in), taps.out = within(out, taps.out), taps.weights = k.weights, taps.bias = k.bias;
      sparse_taps(taps, s, {0, 1});
    }
    if (k.out) from_lanes(out, count, k.out_features, k.out_places, k.out + first * k.out_features);
  }
}

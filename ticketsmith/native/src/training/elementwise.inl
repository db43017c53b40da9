// One pass over a value.

// Calls body(in, out, channel, block, pixel) for each vector.
template <class Operation, class Body>
inline void each_vector(const Operation& k, Share share, const Body& body) {
  const Vectors& v = k.vectors;
  const Range outputs = part(k.outputs, share);
  for (int64_t block = 0; block < v.blocks; block++)
    for (int64_t o = outputs.begin; o < outputs.end; o++)
      for (int64_t y = 0; y < v.rows; y++) {
        const float* in = k.in + k.ins[o] + block * v.in_block + y * v.in_row;
        float* out = k.out + k.outs[o] + block * v.out_block + y * v.out_row;
        for (int64_t x = 0; x < v.cols; x++) body(in + x * v.in_col, out + x * v.out_col, o, block, y * v.cols + x);
      }
}

void relu(const Relu& k, const Step&, Share share) {
  each_vector(k, share, [](const float* in, float* out, int64_t, int64_t, int64_t) {
    store(out, maximum(all(0.0f), load(in)));
  });
}

void bfloat16(const Bfloat16& k, const Step&, Share share) {
  each_vector(k, share, [](const float* in, float* out, int64_t, int64_t, int64_t) {
    for (int i = 0; i < 16; i++) {
      uint32_t bits;
      __builtin_memcpy(&bits, in + i, 4);
      const bool number = (bits & 0x7fffffff) <= 0x7f800000;
      bits = (number ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) & 0xffff0000;
      __builtin_memcpy(out + i, &bits, 4);
    }
  });
}

void gate(const Gate& k, const Step&, Share share) {
  each_vector(k, share, [&](const float* in, float* out, int64_t, int64_t, int64_t) {
    const F16 x = where_positive(load(k.gate + (out - k.out)), load(in));
    store(out, k.add ? load(out) + x : x);
  });
}

void add(const Add& k, const Step&, Share share) {
  const F16 least = all(k.relu ? 0.0f : -__builtin_inff());
  each_vector(k, share, [&](const float* in, float* out, int64_t, int64_t, int64_t) {
    F16 x = load(in);
    if (k.other) x = x + load(k.other + (out - k.out));
    if (k.add) x = x + load(out);
    store(out, maximum(least, x));
  });
}

// A random number for each counter and key, the same on every machine (two rounds of Wellons' lowbias32).
inline uint32_t drawn(uint32_t counter, uint32_t key, uint32_t key2) {
  uint32_t x = counter ^ key;
  for (int round = 0; round < 2; round++) {
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
    x += key2;
  }
  return x;
}

void drop(const Drop& k, const Step& s, Share share) {
  const auto key = static_cast<uint32_t>(s.seed) + static_cast<uint32_t>(k.stream) * 0x9e3779b9u;
  const auto key2 = static_cast<uint32_t>(s.seed >> 32) ^ (key * 0x9e3779b9u);  // or neighbouring seeds would share draws
  const auto limit = static_cast<uint32_t>(k.rate * 4294967296.0);
  const float scale = static_cast<float>(1.0 / (1.0 - k.rate));
  const int64_t pixels = k.lanes > 16 ? 1 : k.vectors.rows * k.vectors.cols;
  each_vector(k, share, [&](const float* in, float* out, int64_t channel, int64_t block, int64_t index) {
    const int64_t sample = block * k.lanes + (k.lanes > 16 ? 16 * index : 0);
    const int64_t feature = channel * pixels + (k.lanes > 16 ? 0 : index);
    float factors[16];
    for (int b = 0; b < 16; b++) {
      const auto counter = static_cast<uint32_t>((sample + b) * k.outputs * pixels + feature);
      factors[b] = drawn(counter, key, key2) < limit ? 0.0f : scale;
    }
    const F16 x = load(in) * load(factors);
    store(out, k.add ? load(out) + x : x);
  });
}

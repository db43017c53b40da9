// Between examples and lanes.

// Sixteen numbers of an example from `begin` on, of which `count` are there.
template <class Number>
inline F16 numbers(const Number* example, int64_t begin, int64_t count) {
  if (count >= 16) return widen(example + begin);
  Number each[16] = {};
  for (int64_t i = 0; i < count; i++) each[i] = example[begin + i];
  return widen(each);
}

template <class Number>
inline void gather_of(const Gather& k, const Step& s, Share share) {
  const Number* data = static_cast<const Number*>(s.data);
  const Range vectors = part(k.blocks * k.lanes / 16, share);
  for (int64_t v = vectors.begin; v < vectors.end; v++) {
    float* out = k.out + 16 * v / k.lanes * k.block + 16 * v % k.lanes;
    for (int64_t f = 0; f < k.features; f += 16) {
      F16 x[16];
      for (int64_t b = 0; b < 16; b++) {
        const int64_t sample = 16 * v + b, count = smaller(16, k.features - f);
        x[b] = all(0.0f);
        if (sample >= s.samples) continue;
        const F16 raw = numbers(data + s.indices[sample] * k.features, f, count);
        x[b] = fma(raw, load(k.scale + f), load(k.shift + f));
        if (k.keep) store(k.rows + sample * k.row + f, x[b]);
      }
      transpose(x);
      for (int64_t i = 0; i < smaller(16, k.features - f); i++) store(out + k.offsets[f + i], x[i]);
    }
  }
}
void gather(const Gather& k, const Step& s, Share share) {
  if (s.item == 1)
    gather_of<uint8_t>(k, s, share);
  else
    gather_of<float>(k, s, share);
}

void rows(const Rows& k, const Step&, Share share) {
  const Range vectors = part(k.blocks * k.lanes / 16, share);
  for (int64_t v = vectors.begin; v < vectors.end; v++) {
    const float* in = k.in + 16 * v / k.lanes * k.block + 16 * v % k.lanes;
    for (int64_t f = 0; f < k.features; f += 16) {
      F16 x[16];
      for (int64_t i = 0; i < 16; i++) x[i] = f + i < k.features ? load(in + k.offsets[f + i]) : all(0.0f);
      transpose(x);
      for (int64_t b = 0; b < 16; b++) store(k.rows + (16 * v + b) * k.row + f, x[b]);
    }
  }
}

void outputs(const Outputs& k, const Step& s, Share share) {
  const Range samples = part(s.samples, share);
  for (int64_t b = samples.begin; b < samples.end; b++)
    for (int64_t f = 0; f < k.features; f++)
      s.outputs[b * k.features + f] = k.in[b / k.lanes * k.block + k.offsets[f] + b % k.lanes];
}

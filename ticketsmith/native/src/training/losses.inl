// Losses: the mean over the examples, and its gradient; both small, so that one thread computes them.

void cross_entropy(const CrossEntropy& k, const Step& s, Share share) {
  if (share.index) return;
  const auto* labels = static_cast<const int64_t*>(s.targets);
  const float part = 1.0f / static_cast<float>(s.samples);
  double loss = 0;
  for (int64_t v = 0; v < k.blocks * k.lanes / 16; v++) {
    const int64_t place = 16 * v / k.lanes * k.block + 16 * v % k.lanes, count = smaller(16, s.samples - 16 * v);
    const float* z = k.in + place;
    float* d = k.gradient + place;
    F16 most = load(z + k.offsets[0]), total = all(0.0f);
    for (int64_t c = 1; c < k.classes; c++) most = maximum(most, load(z + k.offsets[c]));
    for (int64_t c = 0; c < k.classes; c++) {
      const F16 e = exponential(load(z + k.offsets[c]) - most);
      store(d + k.offsets[c], e);
      total = total + e;
    }
    const F16 scale = all(part) / total;
    const uint16_t there = static_cast<uint16_t>(count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0);
    for (int64_t c = 0; c < k.classes; c++) store(d + k.offsets[c], keep(load(d + k.offsets[c]) * scale, there));
    float highest[16], totals[16];
    store(highest, most), store(totals, total);
    for (int64_t b = 0; b < count; b++) {
      const int64_t at = k.offsets[labels[s.indices[16 * v + b]]] + b;
      loss += static_cast<double>(__builtin_logf(totals[b]) - (z[at] - highest[b]));
      d[at] -= part;
    }
  }
  *s.loss = loss / static_cast<double>(s.samples);
}

void squared_error(const SquaredError& k, const Step& s, Share share) {
  if (share.index) return;
  const auto* targets = static_cast<const float*>(s.targets);
  const double count = static_cast<double>(s.samples * k.features);
  const float scale = static_cast<float>(2.0 / count);
  double loss = 0;
  for (int64_t b = 0; b < s.samples; b++)
    for (int64_t f = 0; f < k.features; f++) {
      const int64_t at = b / k.lanes * k.block + k.offsets[f] + b % k.lanes;
      const float error = k.in[at] - targets[s.indices[b] * k.features + f];
      loss += static_cast<double>(error) * static_cast<double>(error);
      k.gradient[at] = error * scale;
    }
  *s.loss = loss / count;
}

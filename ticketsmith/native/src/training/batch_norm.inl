// Batch norm (Ioffe and Szegedy 2015): over all examples and pixels of a channel. Lanes without an example count in no sum.

// Calls body(offset in the input, offset in the output, lanes with an example) for each vector of a channel.
template <class Norm, class Body>
inline void each_of_channel(const Norm& k, const Step& s, int64_t channel, const Body& body) {
  const Vectors& v = k.vectors;
  for (int64_t block = 0; block < v.blocks; block++)
    for (int64_t y = 0; y < v.rows; y++)
      for (int64_t x = 0; x < v.cols; x++) {
        const int64_t first = k.lanes > 16 ? block * k.lanes + 16 * x : 16 * block;
        const int64_t count = smaller(16, s.samples - first);
        body(k.ins[channel] + block * v.in_block + y * v.in_row + x * v.in_col,
             k.outs[channel] + block * v.out_block + y * v.out_row + x * v.out_col,
             static_cast<uint16_t>(count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0));
      }
}

// A sum of many vectors: four sums in turn, so that none waits for the one before.
struct Sum {
  F16 parts[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
  int next = 0;
  void add(F16 x) {
    parts[next] = parts[next] + x;
    next = (next + 1) % 4;
  }
  float total() const { return sum((parts[0] + parts[1]) + (parts[2] + parts[3])); }
};

void batch_norm(const BatchNorm& k, const Step& s, Share share) {
  const Range channels = part(k.outputs, share);
  for (int64_t c = channels.begin; c < channels.end; c++) {
    float mean = k.running_mean[c], variance = k.running_variance[c];
    if (k.training) {
      const auto count = static_cast<float>(s.samples * k.pixels);
      Sum total, squares;
      each_of_channel(k, s, c, [&](int64_t in, int64_t, uint16_t there) { total.add(keep(load(k.in + in), there)); });
      mean = total.total() / count;
      const F16 middle = all(mean);
      each_of_channel(k, s, c, [&](int64_t in, int64_t, uint16_t there) {
        const F16 x = keep(load(k.in + in) - middle, there);
        squares.add(x * x);
      });
      variance = squares.total() / count;
      const auto share_of_new = static_cast<float>(k.momentum);
      k.running_mean[c] += share_of_new * (mean - k.running_mean[c]);
      k.running_variance[c] += share_of_new * (variance * count / (count - 1.0f) - k.running_variance[c]);
    }
    const float scale = 1.0f / __builtin_sqrtf(variance + static_cast<float>(k.epsilon));
    k.means[c] = mean, k.scales[c] = scale;
    const F16 slope = all(k.weight[c] * scale), shift = all(k.bias[c] - mean * k.weight[c] * scale);
    const F16 least = all(k.relu ? 0.0f : -__builtin_inff());
    each_of_channel(k, s, c, [&](int64_t in, int64_t out, uint16_t) {
      F16 x = fma(load(k.in + in), slope, shift);
      if (k.other) x = x + load(k.other + out);
      store(k.out + out, maximum(least, x));
    });
  }
}

void batch_norm_gradient(const BatchNormGradient& k, const Step& s, Share share) {
  const Range channels = part(k.outputs, share);
  const float part_of = 1.0f / static_cast<float>(s.samples * k.pixels);
  for (int64_t c = channels.begin; c < channels.end; c++) {
    const F16 mean = all(k.means[c]), scale = all(k.scales[c]);
    Sum plain, product;
    each_of_channel(k, s, c, [&](int64_t in, int64_t out, uint16_t) {
      const F16 d = load(k.out_gradient + out);
      plain.add(d), product.add(d * (load(k.in + in) - mean));
    });
    const float bias = plain.total(), weight = product.total() * k.scales[c];
    k.bias_gradient[c] = bias, k.weight_gradient[c] = weight;
    const F16 slope = all(k.weight[c] * k.scales[c]), even = all(bias * part_of), steep = all(weight * part_of) * scale;
    each_of_channel(k, s, c, [&](int64_t in, int64_t out, uint16_t there) {
      const F16 x = load(k.in + in) - mean;
      F16 d = keep(slope * (load(k.out_gradient + out) - even - x * steep), there);
      if (k.relu) d = where_positive(load(k.in + in), d);
      store(k.gradient + in, k.add ? load(k.gradient + in) + d : d);
    });
  }
}

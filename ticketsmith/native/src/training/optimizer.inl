// Parameters whose gradient lies in memory: biases, and the scales of norms.

void plane_sums(const PlaneSums& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  const Range outputs = part(k.outputs, share);
  for (int64_t o = outputs.begin; o < outputs.end; o++) {
    F16 sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    for (int64_t row = 0; row < v.blocks * v.rows; row++) {
      const float* x = k.in + k.outs[o] + row / v.rows * v.in_block + row % v.rows * v.in_row;
      for (int64_t col = 0; col < v.cols; col++) sums[col % 4] = sums[col % 4] + load(x + col * v.in_col);
    }
    k.sums[o] = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

void update(const Update& k, const Step& s, Share share) {
  const Range range = part(k.count, share, 16);
  for (int64_t at = range.begin; at < range.end; at += 16) {
    const F16 gradient = load(k.gradient + at);
    improver(s)(k.parameter, at, &gradient, 1, nullptr, s);
  }
}

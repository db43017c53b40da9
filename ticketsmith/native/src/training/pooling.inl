// Maxima and means over windows; what lies beyond the image counts in neither.

struct Window {
  int64_t top, bottom, left, right;  // rows and columns of the image
  int64_t count() const { return (bottom - top) * (right - left); }
};
template <class Pooling>
inline Window window(const Pooling& k, int64_t y, int64_t x) {
  const int64_t top = y * k.stride[0] - k.padding[0], left = x * k.stride[1] - k.padding[1];
  return {larger(top, 0), smaller(top + k.kernel[0], k.height), larger(left, 0), smaller(left + k.kernel[1], k.width)};
}
// Calls body(offset of the channel in the image, in what is pooled, window, offset of the pixel in the latter).
template <class Pooling, class Body>
inline void each_window(const Pooling& k, Share share, const Body& body) {
  const Vectors& v = k.vectors;
  const Range outputs = part(k.outputs, share);
  for (int64_t block = 0; block < v.blocks; block++)
    for (int64_t o = outputs.begin; o < outputs.end; o++)
      for (int64_t y = 0; y < v.rows; y++)
        for (int64_t x = 0; x < v.cols; x++)
          body(block * v.in_block + k.ins[o], block * v.out_block + k.outs[o] + y * v.out_row + x * v.out_col, window(k, y, x));
}

void pooling(const Pooling& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  each_window(k, share, [&](int64_t in, int64_t out, const Window& w) {
    F16 total = k.mean ? all(0.0f) : load(k.in + in + w.top * v.in_row + w.left * v.in_col);
    for (int64_t y = w.top; y < w.bottom; y++)
      for (int64_t x = w.left; x < w.right; x++) {
        const F16 one = load(k.in + in + y * v.in_row + x * v.in_col);
        total = k.mean ? total + one : maximum(total, one);
      }
    store(k.out + out, k.mean ? total * all(1.0f / static_cast<float>(w.count())) : total);
  });
}

// A maximum's gradient goes to the first that has it, as in PyTorch. `apart`: no two windows share a pixel and none is outside of
// all, so that each is written once; with `relu` then only where the input is positive.
void pooling_gradient(const PoolingGradient& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  if (!k.apart && !k.add) {
    const Range outputs = part(k.outputs, share);
    for (int64_t block = 0; block < v.blocks; block++)
      for (int64_t o = outputs.begin; o < outputs.end; o++)
        for (int64_t y = 0; y < k.height; y++)
          for (int64_t x = 0; x < k.width; x++)
            store(k.gradient + block * v.in_block + k.ins[o] + y * v.in_row + x * v.in_col, all(0.0f));
  }
  const bool add = k.add || !k.apart;
  each_window(k, share, [&](int64_t in, int64_t out, const Window& w) {
    F16 rest = load(k.out_gradient + out);
    const F16 most = load(k.out + out);
    if (k.mean) rest = rest * all(1.0f / static_cast<float>(w.count()));
    for (int64_t y = w.top; y < w.bottom; y++)
      for (int64_t x = w.left; x < w.right; x++) {
        const int64_t at = in + y * v.in_row + x * v.in_col;
        F16 mine = rest;
        if (!k.mean) {
          const F16 others = where_positive(most - load(k.in + at), rest);  // this one is smaller, and leaves it to them
          mine = rest - others, rest = others;
        }
        if (k.relu) mine = where_positive(load(k.in + at), mine);
        store(k.gradient + at, add ? load(k.gradient + at) + mine : mine);
      }
  });
}

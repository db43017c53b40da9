// Maxima and means over windows; what lies beyond the image counts in neither.

struct Window {
  int64_t top, bottom, left, right;  // rows and columns of the image
  int64_t rows() const { return bottom - top; }
  int64_t cols() const { return right - left; }
};
// A window of 2 x 2, the usual one, whose loops unroll.
struct Square {
  int64_t top, left;
  static constexpr int64_t rows() { return 2; }
  static constexpr int64_t cols() { return 2; }
};
template <class Pooling>
inline Window window(const Pooling& k, int64_t y, int64_t x) {
  const int64_t top = y * k.stride[0] - k.padding[0], left = x * k.stride[1] - k.padding[1];
  return {larger(top, 0), smaller(top + k.kernel[0], k.height), larger(left, 0), smaller(left + k.kernel[1], k.width)};
}
template <class Pooling>
inline bool square(const Pooling& k) {
  const Vectors& v = k.vectors;
  return k.kernel[0] == 2 && k.kernel[1] == 2 && !k.padding[0] && !k.padding[1] &&
         (v.rows - 1) * k.stride[0] + 2 <= k.height && (v.cols - 1) * k.stride[1] + 2 <= k.width;
}
// Calls body(offset of the window in the image, its size, offset of its pixel in what is pooled).
template <class Pooling, class Body>
inline void each_window(const Pooling& k, Share share, const Body& body) {
  const Vectors& v = k.vectors;
  const Range outputs = part(k.outputs, share);
  const bool squares = square(k);
  for (int64_t block = 0; block < v.blocks; block++)
    for (int64_t o = outputs.begin; o < outputs.end; o++)
      for (int64_t y = 0; y < v.rows; y++) {
        const int64_t in = block * v.in_block + k.ins[o], out = block * v.out_block + k.outs[o] + y * v.out_row;
        for (int64_t x = 0; x < v.cols; x++) {
          if (squares) {
            body(in + y * k.stride[0] * v.in_row + x * k.stride[1] * v.in_col, Square{}, out + x * v.out_col);
          } else {
            const Window w = window(k, y, x);
            body(in + w.top * v.in_row + w.left * v.in_col, w, out + x * v.out_col);
          }
        }
      }
}

void pooling(const Pooling& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  const bool mean = k.mean;
  each_window(k, share, [&](int64_t in, auto window, int64_t out) {
    F16 total = mean ? all(0.0f) : load(k.in + in);
    for (int64_t y = 0; y < window.rows(); y++)
      for (int64_t x = 0; x < window.cols(); x++) {
        const F16 one = load(k.in + in + y * v.in_row + x * v.in_col);
        total = mean ? total + one : maximum(total, one);
      }
    store(k.out + out, mean ? total * all(1.0f / static_cast<float>(window.rows() * window.cols())) : total);
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
  const bool add = k.add || !k.apart, mean = k.mean, relu = k.relu;
  each_window(k, share, [&](int64_t in, auto window, int64_t out) {
    F16 rest = load(k.out_gradient + out);
    const F16 most = load(k.out + out);
    if (mean) rest = rest * all(1.0f / static_cast<float>(window.rows() * window.cols()));
    for (int64_t y = 0; y < window.rows(); y++)
      for (int64_t x = 0; x < window.cols(); x++) {
        const int64_t at = in + y * v.in_row + x * v.in_col;
        F16 mine = rest;
        if (!mean) {
          const F16 others = where_positive(most - load(k.in + at), rest);  // this one is smaller, and leaves it to them
          mine = rest - others, rest = others;
        }
        if (relu) mine = where_positive(load(k.in + at), mine);
        store(k.gradient + at, add ? load(k.gradient + at) + mine : mine);
      }
  });
}

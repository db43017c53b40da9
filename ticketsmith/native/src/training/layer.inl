// A sparse linear layer between arrays whose rows are examples (or tokens), as PyTorch has them. A block of rows at a time is
// turned into lanes, summed there by the kernels of a whole step, and turned back, so that all of it stays in the caches.

// `count` rows of `features` numbers, to lanes: out[f * lanes + row]. Rows up to the next multiple of sixteen are zero.
inline void rows_to_lanes(const float* rows, int64_t count, int64_t features, int64_t lanes, float* out) {
  for (int64_t first = 0; first < count; first += 16, out += 16)
    for (int64_t f = 0; f < features; f += 16) {
      F16 x[16];
      const float* row = rows + first * features + f;
      const int64_t wide = smaller(16, features - f), tall = smaller(16, count - first);
      if (wide == 16 && tall == 16) {
        _Pragma("GCC unroll 16") for (int b = 0; b < 16; b++) x[b] = load(row + b * features);
      } else {
        for (int64_t b = 0; b < 16; b++) x[b] = b < tall ? load_first(row + b * features, wide) : all(0.0f);
      }
      transpose(x);
      if (wide == 16) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) store(out + (f + i) * lanes, x[i]);
      } else {
        for (int64_t i = 0; i < wide; i++) store(out + (f + i) * lanes, x[i]);
      }
    }
}

// And back.
inline void lanes_to_rows(const float* in, int64_t count, int64_t features, int64_t lanes, float* rows) {
  for (int64_t first = 0; first < count; first += 16, in += 16)
    for (int64_t f = 0; f < features; f += 16) {
      F16 x[16];
      float* row = rows + first * features + f;
      const int64_t wide = smaller(16, features - f), tall = smaller(16, count - first);
      if (wide == 16) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) x[i] = load(in + (f + i) * lanes);
      } else {
        for (int64_t i = 0; i < 16; i++) x[i] = i < wide ? load(in + (f + i) * lanes) : all(0.0f);
      }
      transpose(x);
      if (wide == 16 && tall == 16) {
        _Pragma("GCC unroll 16") for (int b = 0; b < 16; b++) store(row + b * features, x[b]);
      } else {
        for (int64_t b = 0; b < tall; b++) store_first(row + b * features, x[b], wide);
      }
    }
}

inline int64_t vectors_of(int64_t count) { return (count + 15) / 16; }

// out = the sums of the taps of `table`, and `bias` where there is one; both lie by lanes.
inline void sum_taps(const LayerTable& table, const float* weights, const float* bias, const int32_t* outs, int64_t outputs,
                     int64_t count, const float* in, float* out) {
  SparseTaps taps{};
  taps.vectors.in_col = taps.vectors.out_col = 16;
  taps.weights = weights, taps.bias = bias, taps.outs = outs, taps.outputs = outputs, taps.out = out;
  taps.starts = table.starts, taps.taps = table.taps, taps.parts = table.parts;
  const Tiles tiles(vectors_of(count), ACCUMULATORS < 8 ? ACCUMULATORS : 8);
  for (int64_t i = 0; i < tiles.count; i++) {
    const int64_t begin = 16 * tiles.begin(i);
    with_constant<ACCUMULATORS>(tiles.size(i), SparseTile{taps, in + begin, out + begin, {0, outputs}});
  }
}

void layer_output(const LayerOutput& k, const Step&, Share) {
  float *in = k.scratch, *out = in + k.inputs * k.lanes;
  for (int64_t first = 0; first < k.rows; first += k.lanes) {
    const int64_t count = smaller(k.lanes, k.rows - first);
    rows_to_lanes(k.in + first * k.inputs, count, k.inputs, k.lanes, in);
    sum_taps(k.table, k.weights, k.bias, k.places, k.outputs, count, in, out);
    lanes_to_rows(out, count, k.outputs, k.lanes, k.out + first * k.outputs);
  }
}

// The sums of the weight gradient wait in `scratch` [groups][16][16] between bands of `band` blocks.
inline void sum_products(const LayerGradients& k, const float* in, const float* out, int64_t full, int64_t ragged, bool begin,
                         float* scratch) {
  SparseGradient whole{};
  whole.in = in, whole.out = out;
  whole.vectors.rows = 1, whole.vectors.in_col = whole.vectors.out_col = 16;
  whole.vectors.in_block = k.inputs * k.lanes, whole.vectors.out_block = k.outputs * k.lanes;
  SparseGradient rest = whole;
  whole.vectors.cols = k.lanes / 16, rest.vectors.cols = vectors_of(ragged);
  const Range bands[2] = {{0, full}, {full, full + (ragged > 0)}};
  for (int64_t group = 0; group < k.groups; group++, scratch += 256) {
    const int32_t *offsets = k.offsets + 16 * group, *rows = k.owners + 4 * group;
    F16 each[16];
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) each[i] = begin ? all(0.0f) : load(scratch + 16 * i);
    const bool same = rows[0] == rows[1] && rows[0] == rows[2] && rows[0] == rows[3];
    for (int n = 0; n < 2; n++)
      for (int q = 0; q < 4; q += QUADS)
        same ? correlate<QUADS, true>(n ? rest : whole, offsets + 4 * q, rows + q, bands[n], each + 4 * q)
             : correlate<QUADS, false>(n ? rest : whole, offsets + 4 * q, rows + q, bands[n], each + 4 * q);
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) store(scratch + 16 * i, each[i]);
  }
}

void layer_gradients(const LayerGradients& k, const Step&, Share) {
  const int64_t inside = k.inputs * k.lanes, outside = k.outputs * k.lanes;
  float *in = k.scratch, *out = in + k.band * inside, *back = out + k.band * outside, *biases = back + inside;
  float* products = biases + 16 * k.outputs;
  for (int64_t i = 0; k.bias_gradient && i < k.outputs; i++) store(biases + 16 * i, all(0.0f));
  for (int64_t first = 0; first < k.rows; first += k.band * k.lanes) {
    const int64_t count = smaller(k.band * k.lanes, k.rows - first);
    for (int64_t at = 0; at < count; at += k.lanes) {
      const int64_t block = at / k.lanes, some = smaller(k.lanes, count - at), row = first + at;
      float* gradient = out + block * outside;
      rows_to_lanes(k.out_gradient + row * k.outputs, some, k.outputs, k.lanes, gradient);
      if (k.bias_gradient)
        for (int64_t i = 0; i < k.outputs; i++) {
          F16 sums = load(biases + 16 * i);
          for (int64_t v = 0; v < vectors_of(some); v++) sums = sums + load(gradient + i * k.lanes + 16 * v);
          store(biases + 16 * i, sums);
        }
      if (k.in_gradient) {
        sum_taps(k.table, k.weights, nullptr, k.places, k.inputs, some, gradient, back);
        lanes_to_rows(back, some, k.inputs, k.lanes, k.in_gradient + row * k.inputs);
      }
      if (k.weight_gradient) rows_to_lanes(k.in + row * k.inputs, some, k.inputs, k.lanes, in + block * inside);
    }
    if (k.weight_gradient) sum_products(k, in, out, count / k.lanes, count % k.lanes, first == 0, products);
  }
  for (int64_t i = 0; k.bias_gradient && i < k.outputs; i++) k.bias_gradient[i] = sum(load(biases + 16 * i));
  if (!k.weight_gradient) return;
  for (int64_t group = 0; group < k.groups; group++) {
    F16 each[16];
    for (int i = 0; i < 16; i++) each[i] = load(products + 256 * group + 16 * i);
    store(products + 16 * group, add_up(each));  // where nothing waits any more
  }
  for (int64_t i = 0; i < k.survivors; i++) k.weight_gradient[i] = products[k.slots[i]];
}

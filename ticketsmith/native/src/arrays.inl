// Arrays of up to six axes with any strides: what networks do between products, and the attention of sessions. Nothing here
// knows planes or padding. Included at the end of kernels.inl.

inline float* at(const ts_array& array, const Place& place) {
  return place.space[array.space] + array.base + array.step * place.position;
}

// Sixteen floats that lie `stride` apart, of which `n` are there.
inline F16 gather(const float* p, int64_t stride, int64_t n) {
  if (stride == 1) return n >= 16 ? load(p) : load_first(p, n);
  if (stride == 0) return all(*p);
  float buffer[16] = {};
  for (int64_t i = 0; i < 16 && i < n; i++) buffer[i] = p[i * stride];
  return load(buffer);
}
inline void scatter(float* p, int64_t stride, F16 a, int64_t n) {
  if (stride == 1) {
    n >= 16 ? store(p, a) : store_first(p, a, n);
    return;
  }
  float buffer[16];
  store(buffer, a);
  for (int64_t i = 0; i < 16 && i < n; i++) p[i * stride] = buffer[i];
}
inline F16 whole_numbers(const float* base, int64_t offset, int64_t stride, int64_t n) {
  const auto* p = reinterpret_cast<const int64_t*>(base) + offset;
  float buffer[16] = {};
  for (int64_t i = 0; i < 16 && i < n; i++) buffer[i] = static_cast<float>(p[i * stride]);
  return load(buffer);
}

// Walks over the first AXES axes in row-major order, from place `index` on; `offset` follows for each array.
template <int AXES, int ARRAYS>
struct Walk {
  const int64_t* size;
  const int64_t* stride[ARRAYS];
  int64_t counter[AXES], offset[ARRAYS];

  void begin(int64_t index) {
    for (int a = 0; a < ARRAYS; a++) offset[a] = 0;
    for (int axis = AXES - 1; axis >= 0; axis--) {
      counter[axis] = index % size[axis];
      index /= size[axis];
      for (int a = 0; a < ARRAYS; a++) offset[a] += counter[axis] * stride[a][axis];
    }
  }
  void next() {
    for (int axis = AXES - 1; axis >= 0; axis--) {
      for (int a = 0; a < ARRAYS; a++) offset[a] += stride[a][axis];
      if (++counter[axis] < size[axis]) return;
      for (int a = 0; a < ARRAYS; a++) offset[a] -= stride[a][axis] * size[axis];
      counter[axis] = 0;
    }
  }
};

inline float compared(int64_t function, float a, float b, float c) {
  switch (function) {
    case TS_MAP_POWER: return __builtin_powf(a, b);
    case TS_MAP_EQUAL: return a == b ? 1.0f : 0.0f;
    case TS_MAP_LESS: return a < b ? 1.0f : 0.0f;
    case TS_MAP_LESS_EQUAL: return a <= b ? 1.0f : 0.0f;
    default: return a != 0.0f ? b : c;
  }
}
inline F16 mapped(int64_t function, F16 a, F16 b, F16 c) {
  switch (function) {
    case TS_MAP_COPY: return a;
    case TS_MAP_ADD: return a + b;
    case TS_MAP_SUB: return a - b;
    case TS_MAP_MUL: return a * b;
    case TS_MAP_DIV: return a / b;
    case TS_MAP_MAX: return maximum(b, a);  // in this order NaN of the first stays NaN
    case TS_MAP_MIN: return minimum(b, a);
    case TS_MAP_FMA: return fma(a, b, c);
    default: break;
  }
  float x[16], y[16], z[16];
  store(x, a), store(y, b), store(z, c);
  for (int i = 0; i < 16; i++) x[i] = compared(function, x[i], y[i], z[i]);
  return load(x);
}

int map(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_map*>(op);
  int64_t total = 1;
  for (int axis = 0; axis < 5; axis++) total *= k.size[axis];
  const Range range = part(total, share);
  const float* in[3];
  for (int a = 0; a < 3; a++) in[a] = a < k.inputs ? at(k.in[a], place) : nullptr;
  float* out = at(k.out, place);
  Walk<5, 4> walk{k.size, {k.in[0].stride, k.in[1].stride, k.in[2].stride, k.out.stride}, {}, {}};
  walk.begin(range.begin);
  const int64_t cols = k.size[5], out_stride = k.out.stride[5];
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) {
    float* to = out + walk.offset[3];
    if (k.function == TS_MAP_COPY && k.activation == TS_LINEAR && !k.in[0].integer) {
      const float* from = in[0] + walk.offset[0];
      const int64_t step = k.in[0].stride[5];
      int64_t c = 0;
      if (step == 1 && out_stride == 1)
        for (; c + 16 <= cols; c += 16) store(to + c, load(from + c));
      for (; c < cols; c++) to[c * out_stride] = from[c * step];
      continue;
    }
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t n = cols - c;
      F16 x[3] = {all(0.0f), all(0.0f), all(0.0f)};
      for (int a = 0; a < k.inputs; a++) {
        const int64_t stride = k.in[a].stride[5];
        x[a] = k.in[a].integer ? whole_numbers(place.space[k.in[a].space], k.in[a].base + walk.offset[a] + c * stride, stride, n)
                               : gather(in[a] + walk.offset[a] + c * stride, stride, n);
      }
      scatter(to + c * out_stride, out_stride, activated(mapped(k.function, x[0], x[1], x[2]), k.activation), n);
    }
  }
  return TS_OK;
}

// A sum or the largest over three axes, for each place of three others.
inline float reduced(const ts_reduce& k, const float* in) {
  const bool most = k.function == TS_REDUCE_MAX;
  const F16 none = all(most ? -__builtin_inff() : 0.0f);
  F16 many = none;
  float one = most ? -__builtin_inff() : 0.0f;
  const int64_t cols = k.over[2], stride = k.over_stride[2];
  for (int64_t a = 0; a < k.over[0]; a++)
    for (int64_t b = 0; b < k.over[1]; b++) {
      const float* row = in + a * k.over_stride[0] + b * k.over_stride[1];
      int64_t c = 0;
      if (stride == 1)
        for (; c + 16 <= cols; c += 16) many = most ? maximum(many, load(row + c)) : many + load(row + c);
      for (; c < cols; c++) {
        const float x = row[c * stride];
        one = most ? (x > one ? x : one) : one + x;
      }
    }
  if (most) {
    const float other = largest(many);
    return other > one ? other : one;
  }
  return (sum(many) + one) * static_cast<float>(k.scale);
}

int reduce(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_reduce*>(op);
  const Range range = part(k.size[0] * k.size[1] * k.size[2], share);
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  Walk<3, 2> walk{k.size, {k.in.stride, k.out.stride}, {}, {}};
  walk.begin(range.begin);
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) out[walk.offset[1]] = reduced(k, in + walk.offset[0]);
  return TS_OK;
}

// Axes: three of batches, rows, columns, inner.
int matmul(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_matmul*>(op);
  const float *left = at(k.left, place), *right = at(k.right, place);
  float* out = at(k.out, place);
  const int64_t rows = k.size[3], cols = k.size[4], inner = k.size[5];
  const int64_t row_step = k.left.stride[3], left_step = k.left.stride[5];
  const int64_t col_step = k.right.stride[4], right_step = k.right.stride[5];
  const Range range = part(k.size[0] * k.size[1] * k.size[2] * ((rows + 3) / 4), share);
  Walk<3, 3> walk{k.size, {k.left.stride, k.right.stride, k.out.stride}, {}, {}};
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t r = i % ((rows + 3) / 4) * 4, high = smaller(4, rows - r);
    walk.begin(i / ((rows + 3) / 4));
    const float* a = left + walk.offset[0] + r * row_step;
    for (int64_t c = 0; c < cols; c += 16) {
      const float* b = right + walk.offset[1] + c * col_step;
      const int64_t n = cols - c;
      F16 sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
      for (int64_t d = 0; d < inner; d++) {
        const F16 x = gather(b + d * right_step, col_step, n);
        for (int64_t h = 0; h < 4; h++) sums[h] = fma(all(a[smaller(h, high - 1) * row_step + d * left_step]), x, sums[h]);
      }
      for (int64_t h = 0; h < high; h++)
        scatter(out + walk.offset[2] + (r + h) * k.out.stride[3] + c * k.out.stride[4], k.out.stride[4], sums[h], n);
    }
  }
  return TS_OK;
}

// Over the last three axes, for each place of the first three: softmax, or a norm with scale and shift.
int normalise(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_normalise*>(op);
  const Range range = part(k.size[0] * k.size[1] * k.size[2], share);
  const int64_t cols = k.size[5], in_step = k.in.stride[5], out_step = k.out.stride[5];
  const float count = static_cast<float>(k.size[3] * k.size[4] * cols);
  Walk<3, 4> walk{k.size, {k.in.stride, k.out.stride, k.scale.stride, k.shift.stride}, {}, {}};
  walk.begin(range.begin);
  const auto each = [&](auto&& body) {
    for (int64_t a = 0; a < k.size[3]; a++)
      for (int64_t b = 0; b < k.size[4]; b++)
        for (int64_t c = 0; c < cols; c += 16) body(a, b, c, smaller(16, cols - c));
  };
  const auto place_of = [](const ts_array& array, int64_t a, int64_t b, int64_t c) {
    return a * array.stride[3] + b * array.stride[4] + c * array.stride[5];
  };
  const auto mask = [](int64_t n) { return static_cast<uint16_t>((1u << n) - 1); };
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) {
    const float* in = at(k.in, place) + walk.offset[0];
    float* out = at(k.out, place) + walk.offset[1];
    const auto read = [&](int64_t a, int64_t b, int64_t c, int64_t n) {
      return gather(in + place_of(k.in, a, b, c), in_step, n);
    };
    F16 total = all(0.0f);
    if (k.kind == TS_SOFTMAX_OVER) {
      float most = -__builtin_inff();
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        const float x = largest(keep(read(a, b, c, n), mask(n)) - keep(all(1e38f), static_cast<uint16_t>(~mask(n))));
        most = x > most ? x : most;
      });
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        const F16 e = keep(exponential(read(a, b, c, n) - all(most)), mask(n));
        scatter(out + place_of(k.out, a, b, c), out_step, e, n);
        total = total + e;
      });
      const F16 scale = all(1.0f / sum(total));
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        float* to = out + place_of(k.out, a, b, c);
        scatter(to, out_step, gather(to, out_step, n) * scale, n);
      });
      continue;
    }
    float mean = 0.0f;
    if (k.kind == TS_NORM_OVER) {
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) { total = total + keep(read(a, b, c, n), mask(n)); });
      mean = sum(total) / count;
    }
    F16 squares = all(0.0f);
    each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
      const F16 x = keep(read(a, b, c, n) - all(mean), mask(n));
      squares = fma(x, x, squares);
    });
    const F16 deviation = all(1.0f / __builtin_sqrtf(sum(squares) / count + static_cast<float>(k.epsilon)));
    each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
      const F16 x = (read(a, b, c, n) - all(mean)) * deviation;
      const float* scale = at(k.scale, place) + walk.offset[2] + place_of(k.scale, a, b, c);
      const float* shift = at(k.shift, place) + walk.offset[3] + place_of(k.shift, a, b, c);
      scatter(out + place_of(k.out, a, b, c), out_step,
              fma(x, gather(scale, k.scale.stride[5], n), gather(shift, k.shift.stride[5], n)), n);
    });
  }
  return TS_OK;
}

// sum of a[i] * b[i]
inline float dot(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n) {
  F16 even = all(0.0f), odd = all(0.0f);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    even = fma(gather(a + i * a_stride, a_stride, 16), gather(b + i * b_stride, b_stride, 16), even);
    odd = fma(gather(a + (i + 16) * a_stride, a_stride, 16), gather(b + (i + 16) * b_stride, b_stride, 16), odd);
  }
  for (; i < n; i += 16) {
    const int64_t left = smaller(16, n - i);
    const auto mask = static_cast<uint16_t>((1u << left) - 1);
    even = fma(keep(gather(a + i * a_stride, a_stride, left), mask), keep(gather(b + i * b_stride, b_stride, left), mask), even);
  }
  return sum(even + odd);
}

// Vectors of sixteen keys or features, four at a time so that the adders need not wait for each other.
template <int T>
inline void weighted(const float* weights, int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count,
                     int64_t last, F16* sums) {
  for (int t = 0; t < T; t++) sums[t] = all(0.0f);
  for (int64_t i = 0; i < count; i++) {
    const F16 w = all(weights[i * weight_stride]);
    const float* row = rows + i * row_stride;
    for (int t = 0; t < T - 1; t++) sums[t] = fma(w, load(row + 16 * t), sums[t]);
    const F16 tail = last >= 16 ? load(row + 16 * (T - 1)) : load_first(row + 16 * (T - 1), last);
    sums[T - 1] = fma(w, tail, sums[T - 1]);
  }
}
// out[j] = sum over i of weights[i] * rows[i][j]; the elements of a row lie side by side.
inline void combination(const float* weights, int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count,
                        float* out, int64_t out_stride, int64_t n, float scale) {
  for (int64_t j = 0; j < n; j += 64) {
    F16 sums[4];
    const int64_t left = smaller(64, n - j), vectors = (left + 15) / 16, last = left - 16 * (vectors - 1);
    const float* from = rows + j;
    switch (vectors) {
      case 4: weighted<4>(weights, weight_stride, from, row_stride, count, last, sums); break;
      case 3: weighted<3>(weights, weight_stride, from, row_stride, count, last, sums); break;
      case 2: weighted<2>(weights, weight_stride, from, row_stride, count, last, sums); break;
      default: weighted<1>(weights, weight_stride, from, row_stride, count, last, sums);
    }
    for (int64_t t = 0; t < vectors; t++)
      scatter(out + (j + 16 * t) * out_stride, out_stride, sums[t] * all(scale), smaller(16, left - 16 * t));
  }
}

// Axes of the arrays: [sample, head, token, feature]. One query at a time.
int attend(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_attend*>(op);
  const int64_t before = k.cached ? place.position : 0;
  const int64_t longest = k.cached ? before + k.queries : k.keys;
  const Range range = part(k.samples * k.heads, share);
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t s = i / k.heads, h = i % k.heads, g = h / k.group;
    const float* query = at(k.query, place) + s * k.query.stride[0] + h * k.query.stride[1];
    const float* key = at(k.key, place) + s * k.key.stride[0] + g * k.key.stride[1];
    const float* value = at(k.value, place) + s * k.value.stride[0] + g * k.value.stride[1];
    float* out = at(k.out, place) + s * k.out.stride[0] + h * k.out.stride[1];
    float* scores = at(k.scratch, place) + i * k.scratch.stride[1];
    const int64_t dk = k.key.stride[3], tk = k.key.stride[2], dv = k.value.stride[3], tv = k.value.stride[2];
    for (int64_t q = 0; q < k.queries; q++) {
      const float* x = query + q * k.query.stride[2];
      const int64_t seen = k.causal ? smaller(longest, before + q + 1) : longest;
      const float scale = static_cast<float>(k.scale);
      if (tk == 1)
        combination(x, k.query.stride[3], key, dk, k.width, scores, 1, seen, scale);
      else
        for (int64_t j = 0; j < seen; j++) scores[j] = scale * dot(x, k.query.stride[3], key + j * tk, dk, k.width);
      if (k.has_mask) {
        const float* mask = at(k.mask, place) + h * k.mask.stride[1] + q * k.mask.stride[2];
        for (int64_t j = 0; j < seen; j++) {
          const float masked = scores[j] + mask[j * k.mask.stride[3]];
          scores[j] = masked > -1e30f ? masked : -1e30f;  // a row that is masked whole must not be infinity minus itself
        }
      }
      float most = -__builtin_inff(), total = 0.0f;
      for (int64_t j = 0; j < seen; j += 16) {
        const int64_t n = smaller(16, seen - j);
        const auto mask = static_cast<uint16_t>((1u << n) - 1);
        const float x16 = largest(keep(load_first(scores + j, n), mask) - keep(all(1e38f), static_cast<uint16_t>(~mask)));
        most = x16 > most ? x16 : most;
      }
      for (int64_t j = 0; j < seen; j += 16) {
        const int64_t n = smaller(16, seen - j);
        const F16 e = keep(exponential(load_first(scores + j, n) - all(most)), static_cast<uint16_t>((1u << n) - 1));
        store_first(scores + j, e, n);
        total += sum(e);
      }
      float* to = out + q * k.out.stride[2];
      const float each = 1.0f / total;
      if (dv == 1)
        combination(scores, 1, value, tv, seen, to, k.out.stride[3], k.value_width, each);
      else
        for (int64_t d = 0; d < k.value_width; d++)
          to[d * k.out.stride[3]] = each * dot(scores, 1, value + d * dv, tv, seen);
    }
  }
  return TS_OK;
}

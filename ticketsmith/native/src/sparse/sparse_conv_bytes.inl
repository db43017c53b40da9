// Sparse convolutions, and products with planes, of whole numbers, whatever the mask: planes of bytes, from which four weights of
// an output, of any four places, are multiplied at once. Nothing is moved: zeros lie beside the columns of an image.
#pragma once
#include "dense/quantise.inl"

template <class Dots>
struct SparseConvBytesTile {
  const SparseConvBytes& k;
  const uint8_t* x;
  float* out;
  const float *residual, *range;
  const uint16_t* mask;
  int64_t vector;
  Range outputs;

  template <int T>
  static inline void add(I16* sums, const uint8_t* x, const Quad& quad) {
    const auto weights = Dots::all(quad.weights);
    _Pragma("GCC unroll 8") for (int t = 0; t < T; t += 2) {
      typename Dots::Bytes low, high;
      Dots::gather(x + 16 * t, quad.offset, low, high);
      sums[t] = Dots::add(sums[t], low, weights);
      if (t + 1 < T) sums[t + 1] = Dots::add(sums[t + 1], high, weights);
    }
  }

  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++) {
      const int32_t* starts = k.starts + b * k.out.planes + outputs.begin;
      const bool last = b == k.blocks - 1;
      for (int64_t o = outputs.begin; o < outputs.end; o++, starts++) {
        float* target = out + o * k.out.plane;
        auto* whole = reinterpret_cast<int32_t*>(target);
        if (b && starts[0] == starts[1] && !last) continue;
        I16 sums[T];
        if (b) {
          EACH_VECTOR sums[t] = load_ints(whole + 16 * t);
        } else {
          begin_sums<T>(sums, range, k.period, vector, k.totals[o]);
        }
        const Quad *quad = k.quads + starts[0], *end = k.quads + starts[1];
        if constexpr (T <= 2) {  // an addition waits for the last
          I16 more[T];
          EACH_VECTOR more[t] = all_ints(0);
          for (; quad + 2 <= end; quad += 2) add<T>(sums, x, quad[0]), add<T>(more, x, quad[1]);
          EACH_VECTOR sums[t] = sums[t] + more[t];
        }
        for (; quad < end; quad++) add<T>(sums, x, *quad);
        if (!last) {
          EACH_VECTOR store_ints(whole + 16 * t, sums[t]);
          continue;
        }
        F16 values[T];
        const F16 bias = all(k.bias[o]), scale = all(k.scales[o]);
        scale_sums<T>(sums, values, scale, bias, range, k.period, vector);
        finish<T>(target, values, residual ? residual + o * k.residual.plane : nullptr, k.activation, mask);
      }
    }
  }
};

constexpr int MOST_IN_BYTES = ACCUMULATORS < 14 ? ACCUMULATORS / 2 * 2 : 14;  // other registers gather

template <class Dots>
void sparse_conv_bytes_of(const SparseConvBytes& k, const Place& place, Range outputs) {
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t pairs = (stretch.vectors + 1) / 2, chunks = (2 * pairs + MOST_IN_BYTES - 1) / MOST_IN_BYTES;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = pairs * c / chunks * 2, end = smaller(stretch.vectors, pairs * (c + 1) / chunks * 2);
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const auto* in = reinterpret_cast<const uint8_t*>(at(k.in, place)) + stretch.in + 16 * first;
      const SparseConvBytesTile<Dots> body{k, in, at(k.out, place) + begin,
                                           k.has_residual ? at(k.residual, place) + begin : nullptr, at(k.range, place),
                                           k.mask ? k.mask + vector : nullptr, vector, outputs};
      with_constant<MOST_IN_BYTES>(end - first, body);
      if (k.rounds) round_tile(k, place, outputs, begin, end - first);
    }
  }
}

int sparse_conv_bytes(const SparseConvBytes& k, const Place& place, Share share) {
  const Range outputs = output_part(k, share);
  with_dots([&](auto dots) { sparse_conv_bytes_of<decltype(dots)>(k, place, outputs); });
  return Status::OK;
}

int split_fours(const SplitFours& k, const Place& place, Share share) {
  const Range fours = part(k.in.planes, share);
  auto* bytes = reinterpret_cast<uint8_t*>(at(k.in, place));
  for (int64_t q = fours.begin; q < fours.end; q++) split_bytes(bytes + 4 * q * k.in.plane, k.in.plane);
  return Status::OK;
}

// Attention of a sequence to itself, its features planes.
#pragma once
#include "simd/common.inl"

// Columns are queries: a vector holds one score of sixteen queries, and nothing is ever summed across lanes.
int attention(const Attention& k, const Place& place, Share share) {
  const int64_t tokens = k.out.cols, width = k.out.planes / k.heads, stride = (tokens + 15) / 16 * 16;
  const Range heads = part(k.heads, share);
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const float* query = at(k.query, place) + h * width * k.query.plane;
    const float* key = at(k.key, place) + h * width * k.key.plane;
    const float* value = at(k.value, place) + h * width * k.value.plane;
    float* out = at(k.out, place) + h * width * k.out.plane;
    if (k.out.plane == 1) {  // one token attends to itself
      for (int64_t d = 0; d < width; d++) out[d] = value[d];
      continue;
    }
    float* scores = at(k.scratch, place) + h * tokens * stride;
    for (int64_t c = 0; c < tokens; c += 16) {
      const int64_t seen = k.causal ? smaller(tokens, c + 16) : tokens;
      F16 most = all(-__builtin_inff());
      for (int64_t j = 0; j < seen; j++) {
        F16 even = all(0.0f), odd = all(0.0f);
        int64_t d = 0;
        for (; d + 2 <= width; d += 2) {
          even = fma(all(key[d * k.key.plane + j]), load(query + d * k.query.plane + c), even);
          odd = fma(all(key[(d + 1) * k.key.plane + j]), load(query + (d + 1) * k.query.plane + c), odd);
        }
        if (d < width) even = fma(all(key[d * k.key.plane + j]), load(query + d * k.query.plane + c), even);
        F16 score = (even + odd) * all(static_cast<float>(k.scale));
        if (k.causal && j > c) {  // queries c .. j-1 must not see token j
          const uint16_t future = static_cast<uint16_t>((1u << (j - c)) - 1);
          score = keep(score, static_cast<uint16_t>(~future)) - keep(all(1e30f), future);
        }
        store(scores + j * stride + c, score);
        most = maximum(most, score);
      }
      F16 total = all(0.0f);
      for (int64_t j = 0; j < seen; j++) {
        const F16 e = exponential(load(scores + j * stride + c) - most);
        store(scores + j * stride + c, e);
        total = total + e;
      }
      const F16 each = all(1.0f) / total;
      for (int64_t d = 0; d < width; d++) {
        const float* v = value + d * k.value.plane;
        F16 even = all(0.0f), odd = all(0.0f);
        int64_t j = 0;
        for (; j + 2 <= seen; j += 2) {
          even = fma(all(v[j]), load(scores + j * stride + c), even);
          odd = fma(all(v[j + 1]), load(scores + (j + 1) * stride + c), odd);
        }
        if (j < seen) even = fma(all(v[j]), load(scores + j * stride + c), even);
        store(out + d * k.out.plane + c, (even + odd) * each);
      }
    }
  }
  return Status::OK;
}

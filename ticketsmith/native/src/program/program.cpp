// Programs: operations in order, scratch memory planned before, and no allocation while they run.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "api.h"
#include "kernels.h"
#include "threads.h"

using namespace abi;

namespace {

const Kernels* (*const TABLES[])() = {portable_kernels, neon_kernels, avx2_kernels, avx512_kernels};  // by Isa

const Kernels* kernels_of(int isa) { return ts_has_isa(isa) ? TABLES[isa]() : nullptr; }

// Kernels load whole vectors, and read the padding before the first row: both ends have room for it.
constexpr int64_t SLACK = 1024;
// Below this many multiply-adds waking another core costs more than it saves.
constexpr int64_t WORTH_SHARING = 100000;

constexpr size_t HUGE_PAGE = 1 << 21;

using Floats = std::unique_ptr<float, decltype(&std::free)>;

Floats floats(int64_t count) {
  const size_t wanted = static_cast<size_t>(count + 2 * SLACK) * sizeof(float);
  const size_t alignment = wanted < HUGE_PAGE ? 64 : HUGE_PAGE, bytes = (wanted + alignment - 1) / alignment * alignment;
  Floats memory(static_cast<float*>(std::aligned_alloc(alignment, bytes)), &std::free);
#ifdef MADV_HUGEPAGE
  if (memory && alignment == HUGE_PAGE) madvise(memory.get(), bytes, MADV_HUGEPAGE);  // fewer addresses to look up
#endif
  if (memory) std::memset(memory.get(), 0, bytes);  // the padding of images is never written: zero it is, and stays
  return memory;
}

// The scratch of one call. A program owns as many as there have ever been calls at once.
struct Scratch {
  std::vector<Floats> samples;  // one per thread
  Floats batch{nullptr, &std::free};
  const void* const* inputs = nullptr;  // of this call, beside the first ones
  float* const* outputs = nullptr;
  float* memory = nullptr;
  int64_t position = 0;
};

// Whether several threads are faster than one is found out by trying, again and again: it depends on what else the machine
// does. Of every ROUND calls the first few are made in both ways; the others in the way that usually takes less time. Those of
// several threads follow each other, and the first two do not count: the others must be woken up, and find cold caches. The
// first rounds are shorter, since the first calls of a process say little.
class Trial {
 public:
  struct Call {
    bool several, counts;
  };
  Call next() {
    const uint32_t call = calls_.fetch_add(1, std::memory_order_relaxed);
    uint32_t begin = call - call % ROUND;
    for (uint32_t next = FIRST_ROUND; next <= call && call < ROUND; next *= 2) begin = next;
    const uint32_t place = call - begin;
    if (place < TRIES / 2) return {true, place >= WAKING};
    if (place < TRIES) return {false, true};
    return {usual_[1].load(std::memory_order_relaxed) < usual_[0].load(std::memory_order_relaxed), true};
  }
  void took(Call call, int64_t nanoseconds) {
    if (!call.counts) return;
    auto& usual = usual_[call.several];
    const int64_t before = usual.load(std::memory_order_relaxed);
    const int64_t now = std::min(nanoseconds, 2 * before);  // one call that waited for something else says little
    usual.store(before ? before + (now - before) / (now < before ? 2 : 4) : nanoseconds, std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t ROUND = 256, FIRST_ROUND = 32, TRIES = 16, WAKING = 2;
  std::atomic<uint32_t> calls_{0};
  std::atomic<int64_t> usual_[2] = {};
};

}  // namespace

struct ts_program {
  std::vector<std::unique_ptr<char[]>> ops;
  std::vector<const Op*> each, once;  // for each sample; once for all
  const Kernels* kernels;
  int64_t sample_floats, batch_floats, sample_in, sample_out, input_bytes, work = 0;
  std::vector<int64_t> shape, more_inputs, more_outputs;
  std::mutex guard;
  std::vector<std::unique_ptr<Scratch>> idle;
  Trial trials[8];  // of 1, 2, 3-4, 5-8 .. samples

  std::unique_ptr<Scratch> take(int threads) {
    std::unique_ptr<Scratch> scratch;
    {
      std::lock_guard<std::mutex> lock(guard);
      if (!idle.empty()) {
        scratch = std::move(idle.back());
        idle.pop_back();
      }
    }
    if (!scratch) {
      scratch = std::make_unique<Scratch>();
      scratch->batch = floats(batch_floats);
      if (!scratch->batch) return nullptr;
    }
    while (static_cast<int>(scratch->samples.size()) < threads) {
      scratch->samples.push_back(floats(sample_floats));
      if (!scratch->samples.back()) return nullptr;
    }
    return scratch;
  }

  void give(std::unique_ptr<Scratch> scratch) {
    std::lock_guard<std::mutex> lock(guard);
    idle.push_back(std::move(scratch));
  }

  Place place(Scratch& scratch, int thread, const void* input, float* output, int64_t sample, int64_t samples) const {
    const char* in = static_cast<const char*>(input) + sample * sample_in * input_bytes;
    Place place{{scratch.samples[thread].get() + SLACK, scratch.batch.get() + SLACK,
                 const_cast<float*>(reinterpret_cast<const float*>(in)), output + sample * sample_out, nullptr, scratch.memory},
                sample, samples, scratch.position};
    if (scratch.inputs)
      for (size_t i = 0; i < more_inputs.size(); i++)
        place.space[Space::MORE_INPUTS + i] = const_cast<float*>(reinterpret_cast<const float*>(
            static_cast<const char*>(scratch.inputs[i + 1]) + sample * more_inputs[i]));
    if (scratch.outputs)
      for (size_t i = 0; i < more_outputs.size(); i++)
        place.space[Space::MORE_OUTPUTS + i] = scratch.outputs[i + 1] + sample * more_outputs[i];
    return place;
  }

  int run_one(const std::vector<const Op*>& list, const Place& place) const {
    for (const Op* op : list)
      if (const int status = kernels->of[op->kind](op, place, {0, 1})) return status;
    return Status::OK;
  }

  int run_alone(Scratch& scratch, const void* input, float* output, int64_t samples) const {
    for (int64_t s = 0; s < samples && !each.empty(); s++)
      if (const int status = run_one(each, place(scratch, 0, input, output, s, samples))) return status;
    return run_one(once, place(scratch, 0, input, output, 0, samples));
  }

  // All threads at each operation, then all at the next.
  void share(const std::vector<const Op*>& list, const Place& place, int t, int n, Barrier& barrier,
             std::atomic<int>& status) const {
    for (const Op* op : list) {
      const bool shared = op->work >= WORTH_SHARING;
      if (shared || t == 0)
        if (const int failed = kernels->of[op->kind](op, place, shared ? Share{t, n} : Share{0, 1})) status = failed;
      barrier.wait();
      if (status) return;
    }
  }

  bool run_shared(Scratch& scratch, const void* input, float* output, int64_t samples, int n, int& result) const {
    Barrier barrier(n);
    std::atomic<int> status{Status::OK};
    const bool ran = Threads::instance().run(n, [&](int t) {
      if (samples >= n) {  // whole samples for each thread: nothing to wait for
        for (int64_t s = t; s < samples && !each.empty() && !status; s += n)
          if (const int failed = run_one(each, place(scratch, t, input, output, s, samples))) status = failed;
        barrier.wait();
      } else {
        for (int64_t s = 0; s < samples && !status; s++)
          share(each, place(scratch, 0, input, output, s, samples), t, n, barrier, status);
      }
      if (!status) share(once, place(scratch, 0, input, output, 0, samples), t, n, barrier, status);
    });
    result = status;
    return ran;
  }
};

extern "C" {

int ts_abi(void) { return ABI_FINGERPRINT; }

int ts_has_isa(int isa) {
  switch (isa) {
    case Isa::PORTABLE: return 1;
    case Isa::NEON: return neon_kernels() != nullptr;
#if defined(__x86_64__) || defined(__i386__)
    case Isa::AVX2: return avx2_kernels() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::AVX512:
      return avx512_kernels() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    default: return 0;
  }
}

int ts_best_isa(void) {
  for (int isa = Isa::AVX512; isa > Isa::PORTABLE; isa--)
    if (ts_has_isa(isa)) return isa;
  return Isa::PORTABLE;
}

ts_program* ts_create(const void* const* ops, int64_t count, int isa, int64_t sample_floats, int64_t batch_floats,
                      int64_t sample_in, int64_t sample_out, int64_t input_bytes) try {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return nullptr;
  auto program = std::make_unique<ts_program>();
  program->kernels = kernels;
  program->sample_floats = sample_floats, program->batch_floats = batch_floats;
  program->sample_in = sample_in, program->sample_out = sample_out, program->input_bytes = input_bytes;
  for (int64_t i = 0; i < count; i++) {
    const auto* op = static_cast<const Op*>(ops[i]);
    if (op->kind < 0 || op->kind >= KINDS) return nullptr;
    const size_t size = SIZES[op->kind];
    program->ops.emplace_back(new char[size]);
    std::memcpy(program->ops.back().get(), op, size);
    const auto* copy = reinterpret_cast<const Op*>(program->ops.back().get());
    (copy->batch ? program->once : program->each).push_back(copy);
    program->work += copy->work;
  }
  return program.release();
} catch (const std::bad_alloc&) {
  return nullptr;
}

void ts_set_shape(ts_program* program, const int64_t* shape, int64_t dimensions) {
  program->shape.assign(shape, shape + dimensions);
}

int64_t ts_samples(const ts_program* program, const int64_t* shape, int64_t dimensions, int64_t item_bytes) {
  const auto& expected = program->shape;
  if (item_bytes != program->input_bytes || dimensions != static_cast<int64_t>(expected.size()) + 1) return -1;
  return std::equal(expected.begin(), expected.end(), shape + 1) ? shape[0] : -1;
}

int64_t ts_output_bytes(const ts_program* program) {
  return program->sample_out * static_cast<int64_t>(sizeof(float));
}

void ts_destroy(ts_program* program) { delete program; }

void ts_set_more(ts_program* program, const int64_t* input_bytes, int64_t inputs, const int64_t* output_floats,
                 int64_t outputs) {
  program->more_inputs.assign(input_bytes, input_bytes + std::min<int64_t>(inputs, MORE));
  program->more_outputs.assign(output_floats, output_floats + std::min<int64_t>(outputs, MORE));
}

int ts_run(ts_program* program, const void* input, float* output, int64_t samples, int threads) {
  return ts_call(program, &input, &output, samples, nullptr, 0, threads);
}

int ts_call(ts_program* program, const void* const* inputs, float* const* outputs, int64_t samples, float* memory,
            int64_t position, int threads) try {
  const void* input = inputs[0];
  float* output = outputs[0];
  const int64_t work = program->work * (program->each.empty() ? 1 : samples);
  const bool may_share = threads > 1 && work >= 2 * WORTH_SHARING;
  int size = 0;
  while (size < 7 && (int64_t{1} << size) < samples) size++;
  Trial& trial = program->trials[size];
  const Trial::Call call = may_share ? trial.next() : Trial::Call{false, false};
  const int n = call.several ? threads : 1;
  auto scratch = program->take(n);
  if (!scratch) return Status::NO_MEMORY;
  scratch->inputs = inputs, scratch->outputs = outputs, scratch->memory = memory, scratch->position = position;
  int status = Status::OK;
  const auto start = may_share ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point{};
  if (n == 1 || !program->run_shared(*scratch, input, output, samples, n, status))
    status = program->run_alone(*scratch, input, output, samples);
  if (may_share) trial.took(call, std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());
  program->give(std::move(scratch));
  return status;
} catch (const std::bad_alloc&) {
  return Status::NO_MEMORY;
}

int ts_kernel(const void* op, int isa, float* const* spaces, int64_t samples, int64_t position, int index, int count) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return -1;
  Place place{{}, 0, samples, position};
  std::copy(spaces, spaces + SPACES, place.space);
  const auto* one = static_cast<const Op*>(op);
  return kernels->of[one->kind](one, place, {index, count});
}

}  // extern "C"

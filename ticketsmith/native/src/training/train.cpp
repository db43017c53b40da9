// Steps of training: the operations of a step in order, as often as a job asks, without a return to Python in between.
#include <time.h>

#include <cmath>

#include "program/api.h"
#include "program/threads.h"
#include "training/step.h"

using namespace abi;

namespace {

const StepKernels* (*const TABLES[])() = {portable_steps, neon_steps, avx2_steps, avx512_steps};  // by Isa

constexpr int64_t WORTH_SHARING = 100000;  // multiply-adds; below, waking another core costs more than it saves

// Moments of weights that have no gradient for long become denormal, which is a hundred times slower: they are zero here.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040); }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before_); }

 private:
  const unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() : before_(__builtin_aarch64_get_fpcr()) { __builtin_aarch64_set_fpcr(before_ | 1u << 24); }
  ~FlushDenormals() { __builtin_aarch64_set_fpcr(before_); }

 private:
  const unsigned before_;
#else
  FlushDenormals() {}
#endif
};

constexpr int ADAMW = Optimizer::ADAM + 1;

Step step_of(const Job& job, int64_t index) {
  Step s{};
  s.data = job.data, s.targets = job.targets, s.indices = job.indices + index * job.samples;
  s.next = index + 1 < job.steps ? s.indices + job.samples : nullptr;
  s.item = job.item, s.samples = job.samples, s.nesterov = job.nesterov;
  s.optimizer = job.optimizer < ADAMW ? job.optimizer : int64_t{Optimizer::ADAM};
  s.outputs = job.outputs;
  if (!job.rates) return s;
  const double rate = job.rates[index], steps = static_cast<double>(job.before + index), number = steps + 1;
  s.seed = static_cast<uint64_t>(job.seeds[index]);
  s.loss = job.losses + index;
  const bool adam = s.optimizer == Optimizer::ADAM;
  s.rate = static_cast<float>(adam ? rate / (1 - std::pow(0.9, number)) : rate);
  s.root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, number)));
  s.penalty = job.optimizer == ADAMW ? 0.0f : static_cast<float>(job.decay);
  s.shrink = job.optimizer == ADAMW ? static_cast<float>(1 - rate * job.decay) : 1.0f;
  s.momentum = static_cast<float>(job.momentum);
  s.follow = static_cast<float>(1 - std::fmin(job.average, (1 + steps) / (10 + steps)));
  return s;
}

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

extern "C" int ts_train(const void* const* ops, int64_t count, int isa, const void* description, int threads) {
  if (!ts_has_isa(isa)) return -1;
  const StepKernels& kernels = *TABLES[isa]();
  const Job& job = *static_cast<const Job*>(description);
  const auto run = [&](int thread, int parties, Barrier* barrier) {
    const FlushDenormals flush;
    for (int64_t i = 0; i < job.steps; i++) {
      const Step step = step_of(job, i);
      for (int64_t j = 0; j < count; j++) {
        const auto* op = static_cast<const Op*>(ops[j]);
        const bool shared = op->work >= WORTH_SHARING;
        const bool timed = job.seconds && thread == 0;
        const double before = timed ? processor_seconds() : 0.0;
        if (shared || thread == 0) kernels.of[op->kind](op, step, shared ? Share{thread, parties} : Share{0, 1});
        if (timed) job.seconds[j] += processor_seconds() - before;
        if (barrier) barrier->wait();
      }
    }
  };
  Barrier barrier(threads);
  if (threads < 2 || !Threads::instance().run(threads, [&](int t) { run(t, threads, &barrier); })) run(0, 1, nullptr);
  return Status::OK;
}

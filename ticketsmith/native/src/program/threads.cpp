#include "threads.h"

#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <chrono>
#include <system_error>

namespace {

void breathe(int turn) {
  if (turn % 64 == 63) {
    std::this_thread::yield();  // on a busy machine the other party may be waiting for this very core
    return;
  }
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

#ifdef __linux__
int this_core() { return sched_getcpu(); }

// A thread that is woken may find itself on the core of the one that woke it and computes there, and it can take the system
// many milliseconds to part the two. It goes elsewhere, and is then free to be anywhere again.
void leave(int core) {
  cpu_set_t allowed;
  if (sched_getcpu() != core || sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(core, &others);
  if (!sched_setaffinity(0, sizeof others, &others)) sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
int this_core() { return -1; }
void leave(int) {}
#endif

constexpr int SPINS = 2000;  // some tens of microseconds, then sleep
Threads* the_threads = nullptr;
std::mutex making;

}  // namespace

void Barrier::wait() {
  const unsigned round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == parties_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int turn = 0; round_.load(std::memory_order_acquire) == round; turn++) breathe(turn);
}

Threads& Threads::instance() {
  std::lock_guard<std::mutex> lock(making);
  if (!the_threads) {
    // Never destroyed: its threads may outlive static destructors. A forked child has none of them and begins anew.
    static const int registered = pthread_atfork(nullptr, nullptr, [] {
      new (&making) std::mutex;
      the_threads = nullptr;
    });
    (void)registered;
    the_threads = new Threads;
  }
  return *the_threads;
}

bool Threads::grow(int count) {
  while (static_cast<int>(threads_.size()) < count - 1) {
    const int index = static_cast<int>(threads_.size()) + 1;
    try {
      threads_.emplace_back([this, index, seen = job_.load()] { work(index, seen); });
    } catch (const std::system_error&) {
      return false;
    }
    threads_.back().detach();
  }
  return true;
}

bool Threads::run(int count, const std::function<void(int)>& body) {
  std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
  if (!turn.owns_lock() || !grow(count)) return false;
  {
    std::lock_guard<std::mutex> lock(guard_);
    body_ = &body;
    count_ = count;
    home_ = this_core();
    pending_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    job_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  body(0);
  for (int t = 0; pending_.load(std::memory_order_acquire); t++) breathe(t);
  return true;
}

// A thread begins behind the jobs that were `seen` without it, and must not count itself off one of them.
void Threads::work(int index, unsigned seen) {
  for (;;) {
    for (int t = 0; t < SPINS && job_.load(std::memory_order_acquire) == seen; t++) breathe(t);
    const std::function<void(int)>* body;
    int count, home;
    {
      std::unique_lock<std::mutex> lock(guard_);
      wake_.wait(lock, [&] { return job_.load(std::memory_order_relaxed) != seen; });
      seen = job_.load(std::memory_order_relaxed);
      body = body_;
      count = count_;
      home = home_;
    }
    leave(home);
    if (index < count) (*body)(index);
    pending_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

// A few threads that wait for work: no OpenMP, so that nothing else in the process is disturbed.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

// All parties wait until the last one has come. Spins: what lies between two barriers takes microseconds.
class Barrier {
 public:
  explicit Barrier(int parties) : parties_(parties) {}
  void wait();

 private:
  const int parties_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> round_{0};
};

class Threads {
 public:
  static Threads& instance();

  // Runs body(0) here and body(1) .. body(count - 1) on other threads; false, and nothing done, when the pool is at work
  // for another caller, who should not wait for it, or when no thread can be had.
  bool run(int count, const std::function<void(int)>& body);

 private:
  Threads() = default;
  void work(int index, unsigned seen);
  bool grow(int count);

  std::mutex busy_;
  std::mutex guard_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* body_ = nullptr;
  int count_ = 0;
  int home_ = -1;  // the core of the caller
  std::atomic<unsigned> job_{0};
  std::atomic<int> pending_{0};
};

// A configuration that workers read without a lock and the control thread replaces as a whole.
//
// A worker takes `read()` at the start of a batch and uses it until the batch is done; `replace` frees the
// old one after the grace period. One control thread at a time.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "native/pipeline/quiescence.h"

namespace penstock::net {

template <typename T>
class Snapshot {
 public:
  explicit Snapshot(std::unique_ptr<const T> first) : current_(first.release()) {}
  ~Snapshot() { delete current_.load(std::memory_order_relaxed); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  const T& read() const { return *current_.load(std::memory_order_acquire); }

  // Publishes `next` and waits until nobody uses what was there. On ETIMEDOUT `next` is published all the
  // same, and the old one is kept until a later grace period has passed. `retire` sees every old one just
  // before it is freed, when nobody uses it any more.
  Result<void> replace(std::unique_ptr<const T> next, Quiescence& quiescence,
                       const std::function<void(const T&)>& retire = {}) {
    kept_.emplace_back(current_.exchange(next.release(), std::memory_order_acq_rel));
    auto passed = quiescence.synchronise();
    if (!passed) return passed;
    if (retire)
      for (const auto& old : kept_) retire(*old);
    kept_.clear();
    return passed;
  }

 private:
  std::atomic<const T*> current_;
  std::vector<std::unique_ptr<const T>> kept_;  // normally empty
};

}  // namespace penstock::net

// When a freed page may be reused: not before every reader that could have looked it up has left.
//
//   reader:  enter() -> look up pages under the state lock -> read them from disk -> leave (guard destroyed)
//   writer:  unlink the pages under the state lock -> stamp = retire() -> reuse once oldest() > stamp
//
// A reader that enters after retire() looks up after the pages were unlinked, so it cannot know them; one
// that entered before is counted in an epoch at or below the stamp. Thread: any.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

namespace penstock::extent {

class ReaderEpochs {
 public:
  class Guard {
   public:
    Guard(ReaderEpochs& epochs, uint64_t epoch) : epochs_(&epochs), epoch_(epoch) {}
    Guard(Guard&& other) noexcept : epochs_(std::exchange(other.epochs_, nullptr)), epoch_(other.epoch_) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (epochs_ != nullptr) epochs_->leave(epoch_);
    }

   private:
    ReaderEpochs* epochs_;
    uint64_t epoch_;
  };

  Guard enter() {
    const std::scoped_lock lock(mutex_);
    readers_.back()++;
    return {*this, oldest_ + readers_.size() - 1};
  }

  // Closes the current epoch; answers its number.
  uint64_t retire() {
    const std::scoped_lock lock(mutex_);
    const uint64_t closed = oldest_ + readers_.size() - 1;
    readers_.push_back(0);
    forget_empty();
    return closed;
  }

  // Every reader now inside entered at or after this epoch.
  uint64_t oldest() const {
    const std::scoped_lock lock(mutex_);
    return oldest_;
  }

 private:
  void leave(uint64_t epoch) {
    const std::scoped_lock lock(mutex_);
    readers_[epoch - oldest_]--;
    forget_empty();
  }

  void forget_empty() {
    while (readers_.size() > 1 && readers_.front() == 0) {
      readers_.pop_front();
      oldest_++;
    }
  }

  mutable std::mutex mutex_;
  std::deque<uint32_t> readers_{0};  // how many readers are inside, by epoch from oldest_
  uint64_t oldest_ = 1;
};

}  // namespace penstock::extent

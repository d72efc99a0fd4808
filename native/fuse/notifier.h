// Tells the kernel that something it caches changed, from a thread of its own.
//
// Writing a notice can block in the kernel on an inode lock which a request holds that waits for us, so
// neither the JavaScript thread nor a worker may ever write one, and post() never waits either. The queue has
// no bound of its own: a notice dropped would leave the kernel a stale page, and its length is that of what
// one recall touches.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "native/fuse/channel.h"

namespace penstock::fuse {

class Notifier {
 public:
  explicit Notifier(Channel& channel);
  ~Notifier();

  // Page cache of [offset, offset + length) and attributes; offset < 0: attributes alone; length <= 0: to the
  // end.
  void invalidate_inode(uint64_t ino, int64_t offset, int64_t length);
  void invalidate_entry(uint64_t parent, std::string name);
  void stop();

  uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }
  // The kernel did not have it cached (ENOENT), or the connection is gone.
  uint64_t unneeded() const { return unneeded_.load(std::memory_order_relaxed); }

 private:
  struct Notice {
    bool entry = false;
    uint64_t ino = 0;
    int64_t offset = 0;
    int64_t length = 0;
    std::string name;
  };

  void post(Notice notice);
  void run();
  void send(const Notice& notice);

  Channel& channel_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<Notice> queue_;
  bool stopping_ = false;
  std::atomic<uint64_t> sent_{0};
  std::atomic<uint64_t> unneeded_{0};
  std::thread thread_;
};

}  // namespace penstock::fuse

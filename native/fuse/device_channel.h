// The channel over /dev/fuse itself: one descriptor per queue, all clones of the mounted one
// (FUSE_DEV_IOC_CLONE), so that queues do not share the kernel's table of requests in processing.
//
// A worker blocks in read(2): one system call per request, and the kernel wakes one worker per request.
// (poll(2) in front of it would wake all of them.) Stopping therefore interrupts the read with a signal whose
// handler does nothing; it is sent again until every reader has left, since it can fall just before the read
// begins.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "native/base/fd.h"
#include "native/fuse/channel.h"
#include "native/fuse/reply_pipe.h"

namespace penstock::fuse {

class DeviceChannel final : public Channel {
 public:
  // Takes the mounted descriptor, after INIT was answered on it.
  static Result<std::unique_ptr<DeviceChannel>> open(Fd device, uint32_t queues);
  ~DeviceChannel() override;

  uint32_t queues() const override { return static_cast<uint32_t>(queues_.size()); }
  Received receive(uint32_t queue) override;
  Received poll() override;
  bool polls() const override { return polled_ != nullptr; }
  int reply(uint32_t origin, uint64_t unique, int error, std::span<const iovec> parts) override;
  bool reply_from_file(uint32_t origin, uint64_t unique, int descriptor, uint64_t offset,
                       std::size_t length) override;
  int notify(int32_t code, std::span<const iovec> parts) override;
  void stop() override;
  int device() const override { return queues_.front()->fd.get(); }
  ChannelState state() const override { return {}; }

 private:
  struct Queue {
    Fd fd;
    std::byte* buffer = nullptr;  // page-aligned, kRequestBuffer bytes
    ReplyPipe pipe;               // of the thread that receives
    pthread_t reader{};           // valid while `reading`
    bool reading = false;         // under mutex_
    Queue() = default;
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;
    ~Queue();
    Result<void> allocate();
  };

  DeviceChannel() = default;
  Queue& queue_of(uint32_t origin) const { return origin == queues_.size() ? *polled_ : *queues_[origin]; }

  std::vector<std::unique_ptr<Queue>> queues_;
  std::unique_ptr<Queue> polled_;  // its origin is queues(); none where /dev/fuse may not be opened
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable left_;
};

}  // namespace penstock::fuse

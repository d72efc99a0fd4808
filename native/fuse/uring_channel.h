// The channel of FUSE over io_uring (Linux 6.14, `enable_uring` of the fuse module). The kernel has one queue
// for each possible CPU, and a request goes to the queue of the CPU it was made on; every queue must have an
// entry or none is used. Each of our threads serves its share of them with a ring of its own
// (uring_worker.h).
//
//   requests, answers            UringWorker x threads
//   FORGET, INTERRUPT, notices   /dev/fuse, as ever: one more thread reads it
//
// Where the kernel refuses an entry it goes on over the device, and so do the threads: the channel is then a
// DeviceChannel with a thread too many, and state() says why.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "native/fuse/device_channel.h"
#include "native/fuse/uring_worker.h"

namespace penstock::fuse {

class UringChannel final : public Channel {
 public:
  // `depth` entries for each kernel queue; 0 chooses. Made before INIT is answered: what can fail for lack of
  // kernel, permission or memory fails here, while the device channel is still to be had.
  static Result<std::unique_ptr<UringChannel>> create(uint32_t threads, uint32_t depth);
  ~UringChannel() override;

  // Takes the mounted descriptor, after INIT was answered with over_io_uring.
  Result<void> open(Fd device);

  uint32_t queues() const override { return static_cast<uint32_t>(workers_.size()) + 1; }
  Received receive(uint32_t queue) override;
  void wait_until_received_from() override;
  std::span<std::byte> answer_room(uint32_t origin) override;
  int reply(uint32_t origin, uint64_t unique, int error, std::span<const iovec> parts) override;
  int notify(int32_t code, std::span<const iovec> parts) override { return device_->notify(code, parts); }
  void stop() override;
  int device() const override { return device_->device(); }
  ChannelState state() const override;

 private:
  // origin = worker << kEntryBits | entry; of the device: kFromDevice | queue.
  static constexpr uint32_t kEntryBits = 20;
  static constexpr uint32_t kFromDevice = 1U << 31;

  UringChannel() = default;
  void attach(uint32_t queue);
  void end();
  Received receive_from_device(uint32_t queue);

  std::vector<std::unique_ptr<UringWorker>> workers_;
  std::unique_ptr<DeviceChannel> device_;
  std::atomic<bool> ended_{false};     // of the rings: the connection's end, stop(), or a refusal
  std::atomic<bool> rung_{false};      // so that all of them know
  std::atomic<bool> stopping_{false};  // of everything

  mutable std::mutex mutex_;
  std::condition_variable attached_changed_;
  std::vector<uint8_t> attached_;  // by worker, once it has tried; each its own
  uint32_t attached_count_ = 0;
  std::string refusal_;
};

}  // namespace penstock::fuse

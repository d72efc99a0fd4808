// How requests arrive from the kernel and answers go back. The session above it does not know whether that is
// read(2) and writev(2) on /dev/fuse or entries of an io_uring.
//
// A channel has a fixed number of queues. Each queue is received from by one worker thread; an answer may
// come from any thread but must name the origin of its request: the kernel looks a request up where it was
// taken.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "native/base/result.h"

namespace penstock::fuse {

// Largest WRITE payload and READ answer, in bytes, and with it the page limit told to the kernel.
inline constexpr std::size_t kMaxTransfer = 1 << 20;
inline constexpr std::size_t kRequestBuffer = kMaxTransfer + 4096;
// Parts of one answer, not counting its header.
inline constexpr std::size_t kMaxReplyParts = 3;

enum class ChannelKind : uint8_t { device, io_uring };

struct ChannelState {
  ChannelKind kind = ChannelKind::device;
  std::string refusal;           // why io_uring was asked for and is not used; empty otherwise
  uint64_t entries = 0;          // of io_uring: requests that can be in our hands at once
  uint64_t handed_over = 0;      // answers that another thread than the queue's gave
  uint64_t rings = 0;            // wake-ups this took
  uint64_t commit_failures = 0;  // answers the kernel did not take
};

// A request, header first and contiguous; valid until the next call for the same queue. No bytes: the
// connection or the channel has ended.
struct Received {
  std::span<std::byte> bytes;
  uint32_t origin = 0;
};

class Channel {
 public:
  virtual ~Channel() = default;

  virtual uint32_t queues() const = 0;

  // Blocks until a request is there.
  virtual Received receive(uint32_t queue) = 0;

  // Takes a request without waiting for one, from a queue beside the numbered ones; no bytes: there is none,
  // or the channel cannot (`polls`). Thread: one, which is nobody's worker.
  virtual Received poll() { return {}; }
  virtual bool polls() const { return false; }

  // Blocks (for no longer than threads take to start) until every queue is being received from.
  virtual void wait_until_received_from() {}

  // Memory from which the kernel takes the answer to the request of `origin` without a copy; kMaxTransfer
  // bytes, or none. Its first byte must then be the first of the first part given to `reply`.
  virtual std::span<std::byte> answer_room(uint32_t origin) { return {}; }

  // `error` is 0 or a positive errno (then `parts` is ignored). The outcome is an errno: ENOENT means the
  // request was interrupted and is gone, which is no fault of ours. Thread: any.
  virtual int reply(uint32_t origin, uint64_t unique, int error, std::span<const iovec> parts) = 0;

  // Answers with [offset, offset + length) of the file `descriptor`, without a copy of it in our memory.
  // False: nothing was answered, `reply` is the way. Thread: the one that receives from `origin`.
  virtual bool reply_from_file(uint32_t origin, uint64_t unique, int descriptor, uint64_t offset,
                               std::size_t length) {
    return false;
  }

  // A notice (unique 0, a positive code). Thread: any that serves no request.
  virtual int notify(int32_t code, std::span<const iovec> parts) = 0;

  // Makes every `receive` return empty, now and later. Thread: any.
  virtual void stop() = 0;

  // The device, for ioctls.
  virtual int device() const = 0;

  virtual ChannelState state() const = 0;
};

}  // namespace penstock::fuse

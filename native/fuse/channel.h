// How requests arrive from the kernel and answers go back. The session above it does not know whether that is
// read(2) and writev(2) on /dev/fuse or entries of an io_uring.
//
// A channel has a fixed number of queues. Each queue is received from by one worker thread; an answer may
// come from any thread but must name the queue its request came from: the kernel looks a request up where it
// was taken.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/result.h"

namespace penstock::fuse {

// Largest WRITE payload and READ answer, in bytes, and with it the page limit told to the kernel.
inline constexpr std::size_t kMaxTransfer = 1 << 20;
inline constexpr std::size_t kRequestBuffer = kMaxTransfer + 4096;
// Parts of one answer, not counting its header.
inline constexpr std::size_t kMaxReplyParts = 3;

class Channel {
 public:
  virtual ~Channel() = default;

  virtual uint32_t queues() const = 0;

  // Blocks until a request is there; the bytes (header first, contiguous) stay valid until the next call for
  // the same queue. An empty span means the connection or the channel has ended.
  virtual std::span<std::byte> receive(uint32_t queue) = 0;

  // `error` is 0 or a positive errno (then `parts` is ignored). The outcome is an errno: ENOENT means the
  // request was interrupted and is gone, which is no fault of ours. Thread: any.
  virtual int reply(uint32_t queue, uint64_t unique, int error, std::span<const iovec> parts) = 0;

  // A notice (unique 0, a positive code). Thread: any that serves no request.
  virtual int notify(int32_t code, std::span<const iovec> parts) = 0;

  // Makes every `receive` return empty, now and later. Thread: any.
  virtual void stop() = 0;

  // The device, for ioctls.
  virtual int device() const = 0;
};

}  // namespace penstock::fuse

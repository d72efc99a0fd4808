#include "native/fuse/reply_pipe.h"

#include <fcntl.h>

#include <array>
#include <cerrno>

#include "native/fuse/channel.h"
#include "native/fuse/protocol.h"

namespace penstock::fuse {

namespace {

constexpr std::size_t kPage = 4096;
// A pipe has a slot for each page: one goes to the header, one to a range that does not begin with a page.
constexpr std::size_t kSlotsBeside = 2;
// What everybody may ask for unless the administrator says otherwise (/proc/sys/fs/pipe-max-size).
constexpr int kSizeForAll = 1 << 20;

}  // namespace

// Not blocking: a mistake in counting slots becomes a short splice, never a thread that waits for itself.
void ReplyPipe::open() {
  room_ = 0;
  in_.reset();
  out_.reset();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
  out_.reset(ends[0]);
  in_.reset(ends[1]);
  int size = ::fcntl(in_.get(), F_SETPIPE_SZ, static_cast<int>(kMaxTransfer + kSlotsBeside * kPage));
  if (size < 0) size = ::fcntl(in_.get(), F_SETPIPE_SZ, kSizeForAll);
  if (size < 0) size = ::fcntl(in_.get(), F_GETPIPE_SZ);
  const std::size_t slots = size < 0 ? 0 : static_cast<std::size_t>(size) / kPage;
  if (slots > kSlotsBeside) room_ = (slots - kSlotsBeside) * kPage;
}

bool ReplyPipe::reply(int device, uint64_t unique, int descriptor, uint64_t offset, std::size_t length) {
  if (length > room_) return false;
  const OutHeader header{static_cast<uint32_t>(sizeof(OutHeader) + length), 0, unique};
  if (fill(&header, sizeof(header), descriptor, offset, length)) {
    const ssize_t sent = ::splice(out_.get(), nullptr, device, nullptr, header.len, 0);
    if (sent == static_cast<ssize_t>(header.len)) return true;
    // ENOENT: the request was interrupted or aborted; nobody waits for another answer.
    const bool gone = sent < 0 && errno == ENOENT;
    open();
    return gone;
  }
  open();
  return false;
}

bool ReplyPipe::fill(const void* header, std::size_t header_length, int descriptor, uint64_t offset,
                     std::size_t length) const {
  if (::write(in_.get(), header, header_length) != static_cast<ssize_t>(header_length)) return false;
  auto at = static_cast<loff_t>(offset);
  while (length > 0) {
    const ssize_t moved = ::splice(descriptor, &at, in_.get(), nullptr, length, 0);
    if (moved <= 0) return false;  // the file ends, cannot be spliced, or cannot be read
    length -= static_cast<std::size_t>(moved);
  }
  return true;
}

}  // namespace penstock::fuse

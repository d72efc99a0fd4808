// Small conversions that both the answers of native code and those of JavaScript go through.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <ctime>

#include "native/fuse/file_io.h"
#include "native/fuse/protocol.h"

namespace penstock::fuse {

inline constexpr uint64_t kNsPerSecond = 1'000'000'000;

inline uint64_t monotonic_ns() {
  timespec value{};
  ::clock_gettime(CLOCK_MONOTONIC, &value);
  return static_cast<uint64_t>(value.tv_sec) * kNsPerSecond + static_cast<uint64_t>(value.tv_nsec);
}

// The moment a validity given in an answer ends; it saturates.
inline uint64_t deadline(uint64_t now, uint64_t seconds, uint32_t nanoseconds) {
  constexpr uint64_t kLongest = UINT64_MAX / kNsPerSecond / 2;
  if (seconds >= kLongest) return UINT64_MAX;
  return now + seconds * kNsPerSecond + nanoseconds;
}

struct Validity {
  uint64_t sec = 0;
  uint32_t nsec = 0;
};

inline Validity remaining(uint64_t now, uint64_t until) {
  if (until <= now) return {};
  constexpr uint64_t kLongest = 1U << 30;
  const uint64_t sec = (until - now) / kNsPerSecond;
  if (sec >= kLongest) return {kLongest, 0};
  return {sec, static_cast<uint32_t>((until - now) % kNsPerSecond)};
}

// Overlays what the holder of the data knows better. True when it had something to say.
inline bool overlay_local(FileIo& file_io, Attr& attr) {
  if (!S_ISREG(attr.mode)) return false;
  const auto local = file_io.attributes(attr.ino);
  if (!local) return false;
  attr.size = local->size;
  attr.blocks = local->pages * 8;
  attr.mtime = static_cast<uint64_t>(local->mtime.sec);
  attr.mtimensec = local->mtime.nsec;
  // What changes an inode's other attributes moves the service's ctime alone: the later one counts.
  const auto sec = static_cast<int64_t>(attr.ctime);
  if (local->ctime.sec > sec || (local->ctime.sec == sec && local->ctime.nsec > attr.ctimensec)) {
    attr.ctime = static_cast<uint64_t>(local->ctime.sec);
    attr.ctimensec = local->ctime.nsec;
  }
  return true;
}

}  // namespace penstock::fuse

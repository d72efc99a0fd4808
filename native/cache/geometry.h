// The sizes everything in the cache is counted in.
#pragma once

#include <cstdint>
#include <limits>

#include "native/base/page_io.h"

namespace penstock::cache {

inline constexpr uint64_t kPagesPerChunk = 1024;  // 4 MiB: one bitmap, one presence map from the store
inline constexpr uint64_t kFileBytesMax = uint64_t{1} << 52;  // a JavaScript number holds every offset
inline constexpr uint64_t kSmallPages = 16;                   // files up to 64 KiB live in the log
inline constexpr uint64_t kSmallBytes = kSmallPages * kPageSize;
inline constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

constexpr uint64_t pages_of(uint64_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize;
}

}  // namespace penstock::cache

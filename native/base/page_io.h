// The two ends of a transfer between the gateway's cache and a storage node's extents, so that neither
// includes the other: whoever stages pulls pages from a PageSource, whoever fetches pushes pages into a
// PageSink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/result.h"

namespace penstock {

inline constexpr std::size_t kPageSize = 4096;
inline constexpr std::size_t kBlockSize = 1 << 20;
inline constexpr std::size_t kPagesPerBlock = kBlockSize / kPageSize;

class PageSource {
 public:
  virtual ~PageSource() = default;
  // Copies `out.size() / kPageSize` pages of inode `ino`, from page `first_page` of the file, as one
  // consistent copy of each page (never a page half before and half after a concurrent write). Bytes beyond
  // the end of file are zero. Thread: any.
  virtual Result<void> read_pages(uint64_t ino, uint64_t first_page, std::span<std::byte> out) = 0;
};

class PageSink {
 public:
  virtual ~PageSink() = default;
  // Offers downloaded pages. Pages that are dirty, already valid or beyond the end of file keep what they
  // have. Thread: any.
  virtual Result<void> fill_pages(uint64_t ino, uint64_t first_page, std::span<const std::byte> pages) = 0;
};

}  // namespace penstock

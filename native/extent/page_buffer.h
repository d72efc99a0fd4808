// One file's pages in memory, as a source and a sink: what scripts and tests use where the gateway has its
// cache. Pages beyond the end are zeros to read and dropped when filled. Thread: any.
#pragma once

#include <algorithm>
#include <mutex>
#include <vector>

#include "native/base/page_io.h"

namespace penstock::extent {

class PageBuffer final : public PageSource, public PageSink {
 public:
  explicit PageBuffer(std::size_t bytes) : bytes_(bytes) {}

  Result<void> read_pages(uint64_t, uint64_t first_page, std::span<std::byte> out) override {
    read(first_page * kPageSize, out);
    return {};
  }

  Result<void> fill_pages(uint64_t, uint64_t first_page, std::span<const std::byte> pages) override {
    write(first_page * kPageSize, pages);
    return {};
  }

  std::size_t size() const { return bytes_.size(); }

  void read(uint64_t offset, std::span<std::byte> out) const {
    const std::scoped_lock lock(mutex_);
    const std::size_t there =
        offset < bytes_.size() ? std::min<std::size_t>(out.size(), bytes_.size() - offset) : 0;
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(there == 0 ? 0 : offset), there, out.begin());
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(there), out.end(), std::byte{0});
  }

  void write(uint64_t offset, std::span<const std::byte> data) {
    const std::scoped_lock lock(mutex_);
    if (offset >= bytes_.size()) return;
    const std::size_t fits = std::min<std::size_t>(data.size(), bytes_.size() - offset);
    std::copy_n(data.begin(), fits, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::byte> bytes_;
};

}  // namespace penstock::extent

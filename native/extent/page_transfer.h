// Fills the fresh pages of a plan: reads from the source (or, for a moved block, from its old extent),
// computes each page's checksum once, and writes in runs as long as the disk placement allows, up to 1 MiB.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "native/base/page_io.h"
#include "native/extent/stage_plan.h"

namespace penstock::extent {

struct TransferFailure {
  Error error;
  bool is_fatal = false;  // an extent failed in a way that puts everything on it in doubt
};

class PageTransfer {
 public:
  // `files` by extent id.
  PageTransfer(StagePlan& plan, std::span<const StageItem> items, PageSource& source,
               std::span<File* const> files);
  std::optional<TransferFailure> run();

 private:
  static constexpr uint32_t kBufferPages = 256;
  // Smaller writes are left to the host to gather.
  static constexpr uint32_t kUncachedPagesMin = 16;

  std::optional<TransferFailure> fill(const Transfer& transfer, uint32_t done, std::span<std::byte> out);
  std::optional<TransferFailure> flush();

  StagePlan& plan_;
  std::span<const StageItem> items_;
  PageSource& source_;
  std::span<File* const> files_;
  std::unique_ptr<std::byte[]> buffer_;
  uint32_t buffer_pages_;
  uint32_t used_ = 0;  // pages in the buffer, for extent_ from page_
  uint16_t extent_ = 0;
  uint32_t page_ = 0;
};

}  // namespace penstock::extent

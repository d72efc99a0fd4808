#include "native/extent/page_transfer.h"

#include <algorithm>

#include "native/base/crc32c.h"

namespace penstock::extent {

PageTransfer::PageTransfer(StagePlan& plan, std::span<const StageItem> items, PageSource& source,
                           std::span<File* const> files)
    : plan_(plan), items_(items), source_(source), files_(files) {
  buffer_pages_ = static_cast<uint32_t>(std::min<uint64_t>(kBufferPages, plan.pages_fresh));
  buffer_ = std::make_unique_for_overwrite<std::byte[]>(std::size_t{buffer_pages_} * kPageSize);
}

std::optional<TransferFailure> PageTransfer::run() {
  for (const Transfer& transfer : plan_.transfers) {
    for (uint32_t done = 0; done < transfer.to.count;) {
      const uint32_t page = transfer.to.page + done;
      if (used_ == buffer_pages_ || (used_ > 0 && (extent_ != transfer.extent || page_ + used_ != page))) {
        if (auto failure = flush()) return failure;
      }
      if (used_ == 0) {
        extent_ = transfer.extent;
        page_ = page;
      }
      const uint32_t count = std::min(buffer_pages_ - used_, transfer.to.count - done);
      const std::span out{buffer_.get() + std::size_t{used_} * kPageSize, std::size_t{count} * kPageSize};
      if (auto failure = fill(transfer, done, out)) return failure;
      used_ += count;
      done += count;
    }
  }
  return flush();
}

std::optional<TransferFailure> PageTransfer::fill(const Transfer& transfer, uint32_t done,
                                                  std::span<std::byte> out) {
  PlannedBlock& block = plan_.blocks[transfer.block];
  const StageItem& item = items_[block.item];
  const uint64_t stripe_page = uint64_t{block.index} * kPagesPerBlock + transfer.first_index + done;
  if (transfer.is_move) {
    const uint64_t offset = (uint64_t{transfer.from_page} + done) * kPageSize;
    const Result<std::size_t> got = files_[transfer.from_extent]->read(offset, out);
    if (!got) return TransferFailure{got.error(), true};
    if (got.value() != out.size()) return TransferFailure{{EIO, "an extent ends before its pages do"}, true};
  } else if (auto got = source_.read_pages(item.ino, item.file_page + stripe_page, out); !got) {
    return TransferFailure{got.error(), false};
  }
  for (uint32_t i = 0; i < out.size() / kPageSize; i++) {
    const uint32_t crc = crc32c(0, out.subspan(i * kPageSize, kPageSize));
    uint32_t& known = block.pages.crc[transfer.first_index + done + i];
    if (transfer.is_move && known != crc) {
      return TransferFailure{
          {EIO, "stripe " + std::to_string(item.stripe) + " version " + std::to_string(item.base_version) +
                    " page " + std::to_string(stripe_page + i) + " is damaged (checksum mismatch)"},
          false};
    }
    known = crc;
  }
  return std::nullopt;
}

std::optional<TransferFailure> PageTransfer::flush() {
  if (used_ == 0) return std::nullopt;
  const std::span<const std::byte> run{buffer_.get(), std::size_t{used_} * kPageSize};
  File& file = *files_[extent_];
  // The gateway's cache has these pages, and while it does nobody reads them here.
  const auto done = used_ < kUncachedPagesMin ? file.write(uint64_t{page_} * kPageSize, run)
                                              : file.write_uncached(uint64_t{page_} * kPageSize, run);
  used_ = 0;
  if (!done) return TransferFailure{done.error(), done.error().code != ENOSPC};
  return std::nullopt;
}

}  // namespace penstock::extent

// One file of a store, an array of pages that grows in steps, and the account of its pages:
//
//   free ──allocate──> taken, no owner yet ──hold──> owned (1..n block nodes) ──release──> retired
//   ──reclaim──> free
//             ^                   │
//             └─────abandon───────┘   (the stage failed before its journal record)
//
// Owners are counted because versions of a stripe share the pages they have in common. A retired page waits
// in limbo until no reader that could know it is left. Not thread-safe but for `file()`: the store's state
// lock guards it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "native/base/file_system.h"
#include "native/extent/page_allocator.h"

namespace penstock::extent {

class Extent {
 public:
  static constexpr uint16_t kOwnersMax = 60000;

  Extent(uint16_t id, std::unique_ptr<File> file, uint32_t pages);

  uint16_t id() const { return id_; }
  File& file() const { return *file_; }
  uint32_t pages() const { return allocator_.pages(); }
  uint32_t free_pages() const { return allocator_.free_pages(); }
  uint32_t owned_pages() const { return owned_pages_; }
  uint64_t limbo_pages() const { return limbo_pages_; }
  uint16_t owners(uint32_t page) const { return (*owners_[page / kChunk])[page % kChunk]; }
  bool is_free(uint32_t page) const { return allocator_.is_free(page); }

  void add_pages(uint32_t count);
  bool allocate(uint32_t count, std::vector<PageRun>& out) { return allocator_.allocate(count, out); }
  void abandon(PageRun run) { allocator_.free(run); }
  void hold(PageRun run);
  // `stamp`: the reader epoch closed after the pages were unlinked.
  void release(PageRun run, uint64_t stamp);
  void reclaim(uint64_t oldest_reader);
  // Ends recovery, during which nothing reads and `release` only counts: takes every page that has an owner.
  void finish_recovery();

 private:
  static constexpr uint32_t kChunk = 1 << 13;  // pages an allocation of the owner counts covers

  struct Retired {
    PageRun run;
    uint64_t stamp;
  };

  uint16_t& owners_of(uint32_t page) { return (*owners_[page / kChunk])[page % kChunk]; }
  void add_owner_chunks();

  uint16_t id_;
  bool recovering_ = true;
  std::unique_ptr<File> file_;
  PageAllocator allocator_;
  std::vector<std::unique_ptr<std::array<uint16_t, kChunk>>> owners_;
  std::deque<Retired> limbo_;
  uint64_t limbo_pages_ = 0;
  uint32_t owned_pages_ = 0;
};

}  // namespace penstock::extent

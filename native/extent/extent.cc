#include "native/extent/extent.h"

#include <cassert>

namespace penstock::extent {

Extent::Extent(uint16_t id, std::unique_ptr<File> file, uint32_t pages) : id_(id), file_(std::move(file)) {
  allocator_.grow(pages);
  add_owner_chunks();
}

void Extent::add_owner_chunks() {
  while (owners_.size() * kChunk < pages()) {
    owners_.push_back(std::make_unique<std::array<uint16_t, kChunk>>());
  }
}

void Extent::add_pages(uint32_t count) {
  allocator_.grow(pages() + count);
  add_owner_chunks();
}

void Extent::hold(PageRun run) {
  for (uint32_t page = run.page; page < run.page + run.count; page++) {
    assert(recovering_ || !is_free(page));
    uint16_t& owners = owners_of(page);
    assert(owners < UINT16_MAX);
    if (owners++ == 0) owned_pages_++;
  }
}

void Extent::release(PageRun run, uint64_t stamp) {
  for (uint32_t page = run.page; page < run.page + run.count; page++) {
    uint16_t& owners = owners_of(page);
    assert(owners > 0);
    if (--owners > 0) continue;
    owned_pages_--;
    if (recovering_) continue;
    limbo_pages_++;
    Retired* last = limbo_.empty() ? nullptr : &limbo_.back();
    if (last != nullptr && last->stamp == stamp && last->run.page + last->run.count == page) {
      last->run.count++;
    } else {
      limbo_.push_back({{page, 1}, stamp});
    }
  }
}

void Extent::reclaim(uint64_t oldest_reader) {
  while (!limbo_.empty() && limbo_.front().stamp < oldest_reader) {
    const PageRun run = limbo_.front().run;
    allocator_.free(run);
    limbo_pages_ -= run.count;
    limbo_.pop_front();
  }
}

void Extent::finish_recovery() {
  assert(recovering_);
  recovering_ = false;
  for (uint32_t page = 0; page < pages();) {
    uint32_t end = page;
    while (end < pages() && owners(end) > 0) end++;
    if (end > page) allocator_.take({page, end - page});
    page = end + 1;
  }
}

}  // namespace penstock::extent

#include "native/cache/inode.h"

#include <time.h>

#include <algorithm>
#include <cassert>

namespace penstock::cache {

uint64_t monotonic_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

Inode::Inode(uint64_t number) : ino(number) {
  totals().files.fetch_add(1, std::memory_order_relaxed);
}

Inode::~Inode() {
  update(0, kNoLimit, 0, kPresent | kValid | kDirty | kInFlight);
  if (unpublished) count_dirty(-1);
  if (sparse) totals().sparse_files.fetch_sub(1, std::memory_order_relaxed);
  totals().files.fetch_sub(1, std::memory_order_relaxed);
}

void Inode::count_dirty(int64_t change) {
  totals().dirty_files.fetch_add(change, std::memory_order_relaxed);
  if (sparse) totals().dirty_sparse_files.fetch_add(change, std::memory_order_relaxed);
}

// What the service will take from the reservation is max(0, pages - base pages) at each publish. With one
// under way, its outcome is open: either base may be the next one's.
uint64_t Inode::charge_with(uint64_t pages) const {
  const auto above = [](uint64_t a, uint64_t b) { return a > b ? a - b : 0; };
  if (!unpublished) return above(pages, attributes.pages);
  uint64_t charge = above(pages, unpublished->base_pages);
  if (unpublished->in_flight) {
    const uint64_t flying = unpublished->in_flight->attributes.pages;
    charge = std::max({charge, above(flying, unpublished->base_pages), above(pages, flying)});
  }
  return charge;
}

void Inode::set_location(uint64_t page, Location location) {
  if (page > 0 && locations_ == nullptr) {
    if (location == kNowhere) return;
    locations_ = std::make_unique<std::array<Location, kSmallPages - 1>>();
    locations_->fill(kNowhere);
  }
  Location& place = page == 0 ? first_location_ : (*locations_)[page - 1];
  log().retain(location);
  log().release(place);
  place = location;
}

void Inode::update(uint64_t first, uint64_t count, uint8_t set, uint8_t clear) {
  PageCounts delta;
  map.update(first, count, set, clear, delta);
  Totals& sums = totals();
  const auto count_in = [](std::atomic<int64_t>& sum, int64_t change) {
    if (change != 0) sum.fetch_add(change, std::memory_order_relaxed);
  };
  count_in(sums.valid_pages, delta.valid);
  count_in(sums.dirty_pages, delta.dirty_data);
  count_in(sums.in_flight_pages, delta.in_flight);
  if (unpublished) {
    unpublished->dirty = static_cast<uint64_t>(static_cast<int64_t>(unpublished->dirty) + delta.dirty);
    unpublished->dirty_data =
        static_cast<uint64_t>(static_cast<int64_t>(unpublished->dirty_data) + delta.dirty_data);
    unpublished->in_flight_pages =
        static_cast<uint64_t>(static_cast<int64_t>(unpublished->in_flight_pages) + delta.in_flight);
  } else {
    assert(delta.dirty == 0 && delta.in_flight == 0);
  }
  // A small page that is no longer valid lives nowhere.
  if ((clear & kValid) != 0 && (set & kValid) == 0 && map.is_small()) {
    const uint64_t end = count > kSmallPages ? kSmallPages : std::min(kSmallPages, first + count);
    for (uint64_t page = first; page < end; ++page) set_location(page, kNowhere);
  }
}

Unpublished& Inode::dirty() {
  if (!unpublished) {
    unpublished = std::make_unique<Unpublished>();
    unpublished->since_ms = monotonic_ms();
    // fallocate can have put pages beyond the end of file.
    unpublished->store_limit = std::max(pages_of(attributes.size), map.present_end());
    unpublished->base_pages = attributes.pages;
    count_dirty(1);
  }
  return *unpublished;
}

void Inode::settle() {
  if (!unpublished || unpublished->in_flight) return;
  if (unpublished->dirty > 0 || unpublished->attributes_dirty || unpublished->base_limit != kNoLimit) return;
  unpublished.reset();
  count_dirty(-1);
}

void Inode::apply_attributes(const Attributes& now) {
  dirty().attributes_dirty = true;
  attributes = now;
}

void Inode::apply_intent(uint64_t first, uint64_t count) {
  dirty();
  map.for_each_run(first, first + count, kPresent | kValid | kDirty, kPresent | kValid,
                   [this](uint64_t at, uint64_t length) { update(at, length, kDirty, 0); });
}

void Inode::apply_write(uint64_t first, uint64_t count, std::span<const Location> images) {
  dirty();
  update(first, count, kPresent | kValid | kDirty, 0);
  for (uint64_t index = 0; index < images.size(); ++index) set_location(first + index, images[index]);
}

void Inode::apply_fill(uint64_t first, uint64_t count, std::span<const Location> images) {
  update(first, count, kPresent | kValid, 0);
  for (uint64_t index = 0; index < images.size(); ++index) set_location(first + index, images[index]);
}

// A hole needs publishing only where the store has, or may soon have, a page.
void Inode::apply_holes(uint64_t first, uint64_t count) {
  Unpublished& state = dirty();
  const uint64_t end = count > kNoLimit - first ? kNoLimit : first + count;
  if (state.in_flight && map.next_run(first, end, kInFlight, kInFlight).count > 0)
    state.in_flight->cut = true;
  update(first, count, 0, kPresent | kValid | kDirty);
  const uint64_t stored_end = std::min(end, state.store_limit);
  if (first < stored_end) update(first, stored_end - first, kDirty, 0);
  if (stored_end < end) {
    const uint64_t from = std::max(first, stored_end);
    map.for_each_run(from, end, kInFlight, kInFlight,
                     [this](uint64_t at, uint64_t length) { update(at, length, kDirty, 0); });
  }
}

void Inode::apply_zeros(uint64_t first, uint64_t count) {
  dirty();
  update(first, count, kPresent | kValid | kDirty, 0);
  if (map.is_small()) {
    for (uint64_t page = first; page < first + count; ++page) set_location(page, kZeros);
  }
}

// Cut at `page`: nothing at or beyond it is anywhere any more, whatever the published layout says.
void Inode::apply_limit(uint64_t page) {
  Unpublished& state = dirty();
  if (state.in_flight && map.next_run(page, kNoLimit, kInFlight, kInFlight).count > 0)
    state.in_flight->cut = true;
  state.base_limit = std::min(state.base_limit, page);
  state.store_limit = std::min(state.store_limit, page);
  update(page, kNoLimit, 0, kPresent | kValid | kDirty);
}

void Inode::apply_begin(uint32_t publish_generation) {
  Unpublished& state = dirty();
  state.in_flight = InFlight{publish_generation, attributes, state.base_limit, state.store_limit, false};
  generation = publish_generation;
  map.for_each_run(0, kNoLimit, kDirty, kDirty,
                   [this](uint64_t at, uint64_t length) { update(at, length, kInFlight, kDirty); });
  // Pages of the snapshot will be in the store, up to its end, once it completes.
  state.base_limit = kNoLimit;
  state.attributes_dirty = false;
}

void Inode::apply_complete(uint32_t publish_generation, uint64_t new_version) {
  if (!in_flight() || unpublished->in_flight->generation != publish_generation) return;
  const InFlight done = *unpublished->in_flight;
  version = new_version;
  unpublished->in_flight.reset();
  unpublished->base_pages = done.attributes.pages;
  // What was cut meanwhile stays cut; else the store now ends where the snapshot did.
  unpublished->store_limit =
      std::min(unpublished->base_limit, std::max(pages_of(done.attributes.size), map.present_end()));
  map.for_each_run(0, kNoLimit, kInFlight, kInFlight,
                   [this](uint64_t at, uint64_t length) { update(at, length, 0, kInFlight); });
  if (unpublished->dirty > 0 || unpublished->attributes_dirty) {
    unpublished->since_ms = monotonic_ms();
    unpublished->order = 0;  // behind all who have waited longer
  }
  settle();
}

void Inode::apply_abort(uint32_t publish_generation) {
  if (!in_flight() || unpublished->in_flight->generation != publish_generation) return;
  const InFlight failed = *unpublished->in_flight;
  unpublished->in_flight.reset();
  unpublished->attributes_dirty = true;
  unpublished->store_limit = std::min(unpublished->store_limit, failed.store_limit);
  unpublished->base_limit = std::min(unpublished->base_limit, failed.base_limit);
  // The service may have committed it all the same, and then has pages beyond the limit. All of those are
  // dirty here, so the next publish starts there from nothing.
  if (pages_of(failed.attributes.size) > failed.store_limit)
    unpublished->base_limit = std::min(unpublished->base_limit, failed.store_limit);
  map.for_each_run(0, kNoLimit, kInFlight, kInFlight,
                   [this](uint64_t at, uint64_t length) { update(at, length, kDirty, kInFlight); });
}

void Inode::apply_drop(uint64_t first, uint64_t count) {
  const uint64_t end = count > kNoLimit - first ? kNoLimit : first + count;
  map.for_each_run(first, end, kValid | kDirty | kInFlight, kValid,
                   [this](uint64_t at, uint64_t length) { update(at, length, 0, kValid); });
}

void Inode::grow_beyond_small() {
  if (!map.is_small()) return;
  for (uint64_t page = 0; page < kSmallPages; ++page) set_location(page, kNowhere);
  locations_.reset();
  map.grow_beyond_small();
}

}  // namespace penstock::cache

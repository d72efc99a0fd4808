#include "native/fuse/pending_table.h"

#include <algorithm>
#include <utility>

namespace penstock::fuse {

PendingTable::PendingTable() : slots_(kSlots) {
  free_.reserve(kSlots);
  for (uint32_t slot = kSlots; slot-- > 0;) free_.push_back(slot);
}

std::optional<uint32_t> PendingTable::add(Pending pending, bool may_wait) {
  std::unique_lock lock(mutex_);
  if (may_wait) freed_.wait(lock, [this] { return closed_ || free_.size() > kKept; });
  if (closed_ || free_.empty()) return std::nullopt;
  const uint32_t slot = free_.back();
  free_.pop_back();
  pending.slot = slot;
  pending.live = true;
  slots_[slot % kSlots] = std::move(pending);
  return slot;
}

Pending* PendingTable::find(uint32_t slot) {
  Pending& pending = slots_[slot % kSlots];
  return pending.live && pending.slot == slot ? &pending : nullptr;
}

std::optional<Pending> PendingTable::take(uint32_t slot) {
  std::lock_guard lock(mutex_);
  Pending* pending = find(slot);
  if (pending == nullptr) return std::nullopt;
  Pending taken = std::exchange(*pending, Pending{});
  free_.push_back((slot + kSlots) & kNumberMax);
  if (free_.size() == kKept + 1) freed_.notify_all();
  return taken;
}

std::optional<uint32_t> PendingTable::interrupt(uint64_t unique) {
  std::lock_guard lock(mutex_);
  for (const Pending& pending : slots_) {
    if (pending.live && pending.announced && pending.unique == unique) return pending.slot;
  }
  early_[early_next_++ % kEarlyMax] = unique;
  early_any_ = true;
  return std::nullopt;
}

bool PendingTable::announce(uint32_t slot, uint64_t unique) {
  std::lock_guard lock(mutex_);
  Pending* pending = find(slot);
  if (pending == nullptr) return false;  // answered already
  pending->announced = true;
  return early_any_ && std::find(early_.begin(), early_.end(), unique) != early_.end();
}

uint32_t PendingTable::live() {
  std::lock_guard lock(mutex_);
  return kSlots - static_cast<uint32_t>(free_.size());
}

std::vector<Pending> PendingTable::close() {
  std::vector<Pending> taken;
  std::lock_guard lock(mutex_);
  closed_ = true;
  freed_.notify_all();
  for (Pending& pending : slots_) {
    if (!pending.live) continue;
    free_.push_back((pending.slot + kSlots) & kNumberMax);
    taken.push_back(std::exchange(pending, Pending{}));
  }
  return taken;
}

}  // namespace penstock::fuse

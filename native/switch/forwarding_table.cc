#include "native/switch/forwarding_table.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "native/packet/flow_key.h"

namespace penstock::net {
namespace {

constexpr uint64_t kStatic = 1ULL << 63;
constexpr uint64_t kPeer = 1ULL << 62;

uint64_t make_key(uint16_t network, Mac mac) {
  return uint64_t{network} << 48 | (mac & kMacMask);
}

uint64_t make_value(Target target, uint32_t seen, bool is_static) {
  return (is_static ? kStatic : 0) | (target.kind == TargetKind::peer ? kPeer : 0) |
         uint64_t{target.index} << 32 | seen;
}

Target target_of(uint64_t value) {
  return Target{(value & kPeer) != 0 ? TargetKind::peer : TargetKind::port,
                static_cast<uint16_t>(value >> 32)};
}

uint32_t seen_of(uint64_t value) {
  return static_cast<uint32_t>(value);
}

}  // namespace

ForwardingTable::ForwardingTable(ForwardingLimits limits, uint64_t seed)
    : limits_(limits),
      seed_(seed),
      slots_(std::make_unique<Slot[]>(limits.entries_max + kProbe)),
      per_network_(65536, 0) {
  assert((limits.entries_max & (limits.entries_max - 1)) == 0);
}

std::size_t ForwardingTable::home(uint64_t key) const {
  using namespace flow_hash_detail;
  return (mix(key ^ seed_, kA ^ std::rotl(seed_, 32)) >> 32) & (limits_.entries_max - 1);
}

bool ForwardingTable::aged(uint64_t value, uint32_t now_seconds) const {
  return (value & kStatic) == 0 && now_seconds - seen_of(value) > limits_.age_seconds_max;
}

ForwardingTable::Slot* ForwardingTable::locate(uint64_t key) const {
  Slot* slot = &slots_[home(key)];
  for (std::size_t i = 0; i < kProbe; ++i, ++slot)
    if (slot->key.load(std::memory_order_acquire) == key) return slot;
  return nullptr;
}

bool ForwardingTable::find(uint16_t network, Mac mac, uint32_t now_seconds, Target& target) const {
  const uint64_t key = make_key(network, mac);
  const Slot* slot = locate(key);
  if (slot == nullptr) return false;
  const uint64_t value = slot->value.load(std::memory_order_acquire);
  if (slot->key.load(std::memory_order_relaxed) != key || aged(value, now_seconds)) return false;
  target = target_of(value);
  return true;
}

void ForwardingTable::clear(Slot& slot) {
  const uint64_t key = slot.key.load(std::memory_order_relaxed);
  if ((slot.value.load(std::memory_order_relaxed) & kStatic) == 0) --per_network_[key >> 48];
  // The key goes first, and a new value is released after it: whoever acquires that value and then looks at
  // the key again finds that it is not the one it came for.
  slot.key.store(0, std::memory_order_relaxed);
  size_.fetch_sub(1, std::memory_order_relaxed);
}

// A free slot within reach of the key, or one whose entry has aged out. Under writers_.
ForwardingTable::Slot* ForwardingTable::claim(uint64_t key, uint32_t now_seconds) {
  Slot* first = &slots_[home(key)];
  for (std::size_t i = 0; i < kProbe; ++i)
    if (first[i].key.load(std::memory_order_relaxed) == 0) return &first[i];
  for (std::size_t i = 0; i < kProbe; ++i) {
    if (!aged(first[i].value.load(std::memory_order_relaxed), now_seconds)) continue;
    clear(first[i]);
    return &first[i];
  }
  return nullptr;
}

ForwardingTable::Learned ForwardingTable::learn(uint16_t network, Mac mac, Target target,
                                                uint32_t now_seconds) {
  const uint64_t key = make_key(network, mac);
  if (is_group(mac) || key == 0) return Learned::pinned;
  if (Slot* slot = locate(key)) {
    const uint64_t value = slot->value.load(std::memory_order_acquire);
    if ((value & kStatic) != 0) return target_of(value) == target ? Learned::known : Learned::pinned;
    if (target_of(value) == target && slot->key.load(std::memory_order_relaxed) == key) {
      // A lost race with a writer only loses a refresh, since the exchange expects the value that was read.
      uint64_t expected = value;
      if (seen_of(value) != now_seconds)
        slot->value.compare_exchange_strong(expected, make_value(target, now_seconds, false),
                                            std::memory_order_relaxed);
      return Learned::known;
    }
  }
  const std::lock_guard lock(writers_);
  if (Slot* slot = locate(key)) {
    const uint64_t value = slot->value.load(std::memory_order_relaxed);
    if ((value & kStatic) != 0) return Learned::pinned;
    const bool same = target_of(value) == target;
    slot->value.store(make_value(target, now_seconds, false), std::memory_order_release);
    if (!same) moved_.fetch_add(1, std::memory_order_relaxed);
    return same ? Learned::known : Learned::moved;
  }
  Slot* slot = per_network_[network] < limits_.entries_per_network_max ? claim(key, now_seconds) : nullptr;
  if (slot == nullptr) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return Learned::full;
  }
  slot->value.store(make_value(target, now_seconds, false), std::memory_order_release);
  slot->key.store(key, std::memory_order_release);
  ++per_network_[network];
  size_.fetch_add(1, std::memory_order_relaxed);
  learned_.fetch_add(1, std::memory_order_relaxed);
  return Learned::added;
}

void ForwardingTable::refresh(uint16_t network, Mac mac, Target target, uint32_t now_seconds) {
  Slot* slot = locate(make_key(network, mac));
  if (slot == nullptr) return;
  uint64_t value = slot->value.load(std::memory_order_acquire);
  if ((value & kStatic) != 0 || !(target_of(value) == target)) return;
  slot->value.compare_exchange_strong(value, make_value(target, now_seconds, false),
                                      std::memory_order_relaxed);
}

bool ForwardingTable::pin(uint16_t network, Mac mac, Target target) {
  const uint64_t key = make_key(network, mac);
  const std::lock_guard lock(writers_);
  Slot* slot = locate(key);
  if (slot != nullptr) {
    if ((slot->value.load(std::memory_order_relaxed) & kStatic) == 0) --per_network_[network];
  } else {
    slot = claim(key, 0);
    if (slot == nullptr) return false;
    size_.fetch_add(1, std::memory_order_relaxed);
  }
  slot->value.store(make_value(target, 0, true), std::memory_order_release);
  slot->key.store(key, std::memory_order_release);
  return true;
}

void ForwardingTable::unpin(uint16_t network, Mac mac) {
  const std::lock_guard lock(writers_);
  Slot* slot = locate(make_key(network, mac));
  if (slot != nullptr && (slot->value.load(std::memory_order_relaxed) & kStatic) != 0) clear(*slot);
}

std::size_t ForwardingTable::expire(uint32_t now_seconds) {
  const std::lock_guard lock(writers_);
  std::size_t removed = 0;
  for (std::size_t i = 0; i < limits_.entries_max + kProbe; ++i) {
    Slot& slot = slots_[i];
    if (slot.key.load(std::memory_order_relaxed) == 0) continue;
    if (!aged(slot.value.load(std::memory_order_relaxed), now_seconds)) continue;
    clear(slot);
    ++removed;
  }
  return removed;
}

std::size_t ForwardingTable::remove_if(const std::function<bool(uint16_t, Target)>& gone) {
  const std::lock_guard lock(writers_);
  std::size_t removed = 0;
  for (std::size_t i = 0; i < limits_.entries_max + kProbe; ++i) {
    Slot& slot = slots_[i];
    const uint64_t key = slot.key.load(std::memory_order_relaxed);
    if (key == 0) continue;
    if (!gone(static_cast<uint16_t>(key >> 48), target_of(slot.value.load(std::memory_order_relaxed))))
      continue;
    clear(slot);
    ++removed;
  }
  return removed;
}

std::vector<ForwardingTable::Entry> ForwardingTable::list(uint32_t now_seconds) const {
  const std::lock_guard lock(writers_);
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < limits_.entries_max + kProbe; ++i) {
    const uint64_t key = slots_[i].key.load(std::memory_order_relaxed);
    const uint64_t value = slots_[i].value.load(std::memory_order_relaxed);
    if (key == 0 || aged(value, now_seconds)) continue;
    const bool is_static = (value & kStatic) != 0;
    entries.push_back(Entry{static_cast<uint16_t>(key >> 48), key & kMacMask, target_of(value), is_static,
                            is_static ? 0 : now_seconds - seen_of(value)});
  }
  return entries;
}

}  // namespace penstock::net

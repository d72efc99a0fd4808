// Linear probing; erase shifts later entries back, so that there are no tombstones. Versions of one stripe
// share their hash and so lie in one probe sequence.
#include "native/extent/version_table.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace penstock::extent {
namespace {

constexpr std::size_t kSlotsMin = 16;
constexpr std::size_t kAbsent = SIZE_MAX;

uint64_t hash_of(uint64_t stripe) {
  // The finalizer of SplitMix64 (Steele, Lea, Flood 2014): consecutive ids spread over all bits.
  uint64_t value = stripe + 0x9E3779B97F4A7C15;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
  value = (value ^ value >> 27) * 0x94D049BB133111EB;
  return value ^ value >> 31;
}

std::size_t shard_of(uint64_t hash) {
  return hash % VersionTable::kShards;
}

}  // namespace

// The high bits, scaled to the number of slots, which need not be a power of two.
std::size_t VersionTable::home(const Shard& shard, uint64_t hash) {
  return static_cast<std::size_t>(static_cast<unsigned __int128>(hash) * shard.slots.size() >> 64);
}

std::size_t VersionTable::slot_of(const Shard& shard, uint64_t hash, uint64_t stripe, uint64_t version) {
  if (shard.slots.empty()) return kAbsent;
  for (std::size_t slot = home(shard, hash);; slot = slot + 1 == shard.slots.size() ? 0 : slot + 1) {
    const VersionEntry& entry = shard.slots[slot];
    if (entry.version == 0) return kAbsent;
    if (entry.stripe == stripe && entry.version == version) return slot;
  }
}

bool VersionTable::has_stripe(const Shard& shard, uint64_t hash, uint64_t stripe) {
  if (shard.slots.empty()) return false;
  for (std::size_t slot = home(shard, hash);; slot = slot + 1 == shard.slots.size() ? 0 : slot + 1) {
    const VersionEntry& entry = shard.slots[slot];
    if (entry.version == 0) return false;
    if (entry.stripe == stripe) return true;
  }
}

const VersionEntry* VersionTable::find(uint64_t stripe, uint64_t version) const {
  const uint64_t hash = hash_of(stripe);
  const Shard& shard = shards_[shard_of(hash)];
  const std::size_t slot = version == 0 ? kAbsent : slot_of(shard, hash, stripe, version);
  return slot == kAbsent ? nullptr : &shard.slots[slot];
}

VersionEntry* VersionTable::find(uint64_t stripe, uint64_t version) {
  return const_cast<VersionEntry*>(static_cast<const VersionTable*>(this)->find(stripe, version));
}

void VersionTable::place(Shard& shard, const VersionEntry& entry) {
  std::size_t slot = home(shard, hash_of(entry.stripe));
  while (shard.slots[slot].version != 0) slot = slot + 1 == shard.slots.size() ? 0 : slot + 1;
  shard.slots[slot] = entry;
}

void VersionTable::resize(Shard& shard, std::size_t slots) {
  std::vector<VersionEntry> before = std::move(shard.slots);
  shard.slots = std::vector<VersionEntry>(slots);
  for (const VersionEntry& entry : before) {
    if (entry.version != 0) place(shard, entry);
  }
}

void VersionTable::insert(const VersionEntry& entry) {
  assert(entry.version != 0 && find(entry.stripe, entry.version) == nullptr);
  const uint64_t hash = hash_of(entry.stripe);
  Shard& shard = shards_[shard_of(hash)];
  if ((shard.used + 1) * 100 > shard.slots.size() * 85) {
    resize(shard, std::max(kSlotsMin, shard.slots.size() * 5 / 4));
  }
  // As `place`, and whoever else of the stripe is there lies on the way.
  bool is_first = true;
  std::size_t slot = home(shard, hash);
  while (shard.slots[slot].version != 0) {
    if (shard.slots[slot].stripe == entry.stripe) is_first = false;
    slot = slot + 1 == shard.slots.size() ? 0 : slot + 1;
  }
  shard.slots[slot] = entry;
  if (is_first) stripes_++;
  shard.used++;
  versions_++;
}

void VersionTable::reserve(std::size_t versions) {
  // The hash spreads them, four deviations of it are allowed for.
  const std::size_t mean = versions / kShards + 1;
  const auto deviation = static_cast<std::size_t>(std::sqrt(static_cast<double>(mean))) + 1;
  const std::size_t slots = (mean + 4 * deviation) * 100 / 85 + 1;
  for (Shard& shard : shards_) {
    if (slots > std::max(kSlotsMin, shard.slots.size())) resize(shard, slots);
  }
}

void VersionTable::erase(uint64_t stripe, uint64_t version) {
  const uint64_t hash = hash_of(stripe);
  Shard& shard = shards_[shard_of(hash)];
  const std::size_t size = shard.slots.size();
  std::size_t hole = slot_of(shard, hash, stripe, version);
  assert(hole != kAbsent);
  for (std::size_t slot = hole;;) {
    slot = slot + 1 == size ? 0 : slot + 1;
    const VersionEntry& entry = shard.slots[slot];
    if (entry.version == 0) break;
    // An entry may fill the hole unless its home lies cyclically in (hole, slot].
    const std::size_t from = home(shard, hash_of(entry.stripe));
    const bool stays = hole < slot ? from > hole && from <= slot : from > hole || from <= slot;
    if (stays) continue;
    shard.slots[hole] = entry;
    hole = slot;
  }
  shard.slots[hole] = {};
  shard.used--;
  versions_--;
  if (!has_stripe(shard, hash, stripe)) stripes_--;
  if (size > kSlotsMin && shard.used * 4 < size) resize(shard, std::max(kSlotsMin, size / 2));
}

std::size_t VersionTable::bytes() const {
  std::size_t total = sizeof(*this);
  for (const Shard& shard : shards_) total += shard.slots.capacity() * sizeof(VersionEntry);
  return total;
}

}  // namespace penstock::extent

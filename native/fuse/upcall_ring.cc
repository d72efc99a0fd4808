#include "native/fuse/upcall_ring.h"

#include <bit>
#include <cassert>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace penstock::fuse {

namespace {
constexpr auto kFullRingPause = std::chrono::microseconds(200);

constexpr uint32_t round_up(std::size_t bytes) {
  return static_cast<uint32_t>((bytes + 7) & ~std::size_t{7});
}
}  // namespace

bool UpcallRing::usable(std::span<std::byte> memory) {
  if (memory.size() < kDataOffset + kMinCapacity || memory.size() > kDataOffset + (1U << 30)) return false;
  return std::has_single_bit(memory.size() - kDataOffset) &&
         reinterpret_cast<uintptr_t>(memory.data()) % 8 == 0;
}

UpcallRing::UpcallRing(std::span<std::byte> memory, std::function<void()> wake)
    : memory_(memory), capacity_(static_cast<uint32_t>(memory.size() - kDataOffset)), wake_(std::move(wake)) {
  assert(usable(memory));
}

std::optional<uint32_t> UpcallRing::space_for(uint32_t size, uint32_t limit) const {
  const uint32_t rest = capacity_ - (head_ & (capacity_ - 1));
  const uint32_t skip = rest < size ? rest : 0;
  const uint32_t used = head_ - control(kTailOffset).load(std::memory_order_acquire);
  if (used + skip + size > limit) return std::nullopt;
  return skip;
}

void UpcallRing::put(const UpcallRecord& record, std::span<const std::byte> payload, uint32_t skip) {
  std::byte* data = memory_.data() + kDataOffset;
  uint32_t at = head_ & (capacity_ - 1);
  if (skip != 0) {
    // `skip` is a multiple of eight, so size and kind always fit.
    const uint32_t words[2] = {skip, kRecordSkip};
    std::memcpy(data + at, words, sizeof(words));
    at = 0;
  }
  std::memcpy(data + at, &record, sizeof(record));
  if (!payload.empty()) std::memcpy(data + at + sizeof(record), payload.data(), payload.size());
  head_ += skip + record.size;
  control(kHeadOffset).store(head_, std::memory_order_seq_cst);
}

bool UpcallRing::sleep() {
  control(kSleepingOffset).store(1, std::memory_order_seq_cst);
  if (empty()) return true;
  // Whoever takes the flag back first decides: if a producer did, its wake-up is on the way.
  return !stay_awake();
}

// A full ring means JavaScript is behind by thousands of requests; a pause of a fifth of a millisecond is
// then no loss, and spares the consumer a signal per record.
bool UpcallRing::push(UpcallRecord record, std::span<const std::byte> payload) {
  assert(!too_large(payload.size()));
  record.length = static_cast<uint32_t>(payload.size());
  record.size = round_up(sizeof(record) + payload.size());
  const bool own = on_consumer_thread();
  for (bool stalled = false;;) {
    if (closed_.load(std::memory_order_acquire)) return false;
    {
      std::lock_guard lock(producers_);
      if (const auto skip = space_for(record.size, own ? capacity_ : capacity_ / 2)) {
        put(record, payload, *skip);
        break;
      }
    }
    assert(!own);
    if (!std::exchange(stalled, true)) stalls_.fetch_add(1, std::memory_order_relaxed);
    std::this_thread::sleep_for(kFullRingPause);
  }
  if (control(kSleepingOffset).exchange(0, std::memory_order_seq_cst) == 1) {
    wakes_.fetch_add(1, std::memory_order_relaxed);
    wake_();
  }
  return true;
}

}  // namespace penstock::fuse

// A bounded queue from any number of producer threads to one consumer thread, over memory that the caller
// gives.
//
//   slot i    +----------+-----------+      turn == i              free for the producer that claims cursor i
//             | turn     | element   |      turn == i + 1          filled, the consumer may take it
//             +----------+-----------+      turn == i + capacity   taken, free for the next lap
//
// A producer claims a cursor by compare-and-swap on tail, fills the slot, then stores the turn with release.
// The consumer reads turns in order and stops at the first that is not filled: a producer stopped half-way
// delays what was claimed after it, loses nothing, and blocks no other producer until the ring is full. (D.
// Vyukov, bounded MPMC queue, with one consumer.)
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

namespace penstock {

template <typename T>
class MpscRing {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t bytes_needed(uint32_t capacity) {
    return sizeof(Header) + capacity * sizeof(Slot);
  }

  // As SpscRing: aligned memory that outlives the ring, capacity a power of two of at least 2.
  MpscRing(void* memory, uint32_t capacity)
      : header_(::new (memory) Header),
        slots_(reinterpret_cast<Slot*>(static_cast<std::byte*>(memory) + sizeof(Header))),
        mask_(capacity - 1) {
    assert(capacity > 1 && (capacity & mask_) == 0);
    assert(reinterpret_cast<uintptr_t>(memory) % kAlignment == 0);
    for (uint64_t i = 0; i < capacity; ++i)
      (::new (&slots_[i]) Slot)->turn.store(i, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
  }
  MpscRing(const MpscRing&) = delete;
  MpscRing& operator=(const MpscRing&) = delete;

  // Any thread. False when the ring is full.
  bool push(const T& element) {
    uint64_t tail = header_->tail.load(std::memory_order_relaxed);
    while (true) {
      Slot& slot = slots_[tail & mask_];
      const uint64_t turn = slot.turn.load(std::memory_order_acquire);
      if (turn == tail) {
        if (!header_->tail.compare_exchange_weak(tail, tail + 1, std::memory_order_relaxed)) continue;
        slot.element = element;
        slot.turn.store(tail + 1, std::memory_order_release);
        return true;
      }
      // Behind us by a lap: the consumer has not taken it yet. Ahead of us: another producer claimed it.
      if (static_cast<int64_t>(turn - tail) < 0) return false;
      tail = header_->tail.load(std::memory_order_relaxed);
    }
  }

  // Consumer.
  std::size_t pop(std::span<T> into) {
    uint64_t head = header_->head.load(std::memory_order_relaxed);
    std::size_t count = 0;
    for (; count < into.size(); ++count, ++head) {
      Slot& slot = slots_[head & mask_];
      if (slot.turn.load(std::memory_order_acquire) != head + 1) break;
      into[count] = slot.element;
      slot.turn.store(head + capacity(), std::memory_order_release);
    }
    header_->head.store(head, std::memory_order_relaxed);
    return count;
  }

  // Consumer: nothing can be taken now.
  bool empty() const {
    const uint64_t head = header_->head.load(std::memory_order_relaxed);
    return slots_[head & mask_].turn.load(std::memory_order_acquire) != head + 1;
  }
  std::size_t capacity() const { return mask_ + 1; }

 private:
  struct Header {
    alignas(64) std::atomic<uint64_t> tail{0};
    alignas(64) std::atomic<uint64_t> head{0};
  };
  struct Slot {
    std::atomic<uint64_t> turn;
    T element;
  };

  Header* header_;
  Slot* slots_;
  uint64_t mask_;
};

}  // namespace penstock

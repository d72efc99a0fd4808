// A bounded queue from one producer thread to one consumer thread, over memory that the caller gives (so that
// it may lie in a shared mapping or an ArrayBuffer).
//
//   memory   0               64              128             192
//            +---------------+---------------+---------------+-----------------------------+
//            | tail          | head          | capacity      | slots: capacity x T          |
//            +---------------+---------------+---------------+-----------------------------+
//              producer writes  consumer writes
//
// Cursors count up for ever; slot = cursor mod capacity, a power of two. tail - head is what is queued. Each
// side keeps its own cursor and a copy of the other's, and looks at the other's cache line only when the copy
// says full (or empty): under load a cache line moves once a batch, not once an element.
//
// Ordering: the producer fills slots, then stores tail with release; the consumer loads tail with acquire,
// then reads the slots. The same holds for head and the reuse of a slot. Whether the consumer is asleep is
// the parker's business.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

namespace penstock {

template <typename T>
class SpscRing {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t bytes_needed(uint32_t capacity) {
    return sizeof(Header) + capacity * sizeof(T);
  }

  // A new, empty ring in `memory`, which is aligned to kAlignment, has bytes_needed(capacity) bytes and
  // outlives the ring. `capacity` is a power of two.
  SpscRing(void* memory, uint32_t capacity)
      : header_(::new (memory) Header),
        slots_(reinterpret_cast<T*>(static_cast<std::byte*>(memory) + sizeof(Header))),
        mask_(capacity - 1) {
    assert(capacity > 0 && (capacity & mask_) == 0);
    assert(reinterpret_cast<uintptr_t>(memory) % kAlignment == 0);
    header_->capacity = capacity;
  }
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer: takes elements from the front of `elements`; how many fitted.
  std::size_t push(std::span<const T> elements) {
    const uint64_t tail = header_->tail.load(std::memory_order_relaxed);
    if (capacity() - (tail - producer_.head_seen) < elements.size())
      producer_.head_seen = header_->head.load(std::memory_order_acquire);
    const std::size_t room = capacity() - static_cast<std::size_t>(tail - producer_.head_seen);
    const std::size_t count = std::min(room, elements.size());
    for (std::size_t i = 0; i < count; ++i) slots_[(tail + i) & mask_] = elements[i];
    if (count > 0) header_->tail.store(tail + count, std::memory_order_release);
    return count;
  }
  bool push(const T& element) { return push(std::span<const T>(&element, 1)) == 1; }

  // Consumer: moves up to into.size() elements out, oldest first; how many.
  std::size_t pop(std::span<T> into) {
    const uint64_t head = header_->head.load(std::memory_order_relaxed);
    if (consumer_.tail_seen - head < into.size())
      consumer_.tail_seen = header_->tail.load(std::memory_order_acquire);
    const std::size_t count = std::min(static_cast<std::size_t>(consumer_.tail_seen - head), into.size());
    for (std::size_t i = 0; i < count; ++i) into[i] = slots_[(head + i) & mask_];
    if (count > 0) header_->head.store(head + count, std::memory_order_release);
    return count;
  }

  // Exact for "is there something" on the consumer's thread, and for "is there room" on the producer's; a
  // recent value elsewhere.
  std::size_t size() const {
    const uint64_t head = header_->head.load(std::memory_order_acquire);
    const uint64_t tail = header_->tail.load(std::memory_order_acquire);
    return static_cast<std::size_t>(tail - head);
  }
  bool empty() const { return size() == 0; }
  std::size_t capacity() const { return mask_ + 1; }

 private:
  struct Header {
    alignas(64) std::atomic<uint64_t> tail{0};
    alignas(64) std::atomic<uint64_t> head{0};
    alignas(64) uint64_t capacity = 0;
  };

  Header* header_;
  T* slots_;
  uint64_t mask_;
  struct alignas(64) {
    uint64_t head_seen = 0;
  } producer_;
  struct alignas(64) {
    uint64_t tail_seen = 0;
  } consumer_;
};

}  // namespace penstock

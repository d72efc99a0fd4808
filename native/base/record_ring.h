// The producer's side of a bounded ring of records of different lengths, over memory and cursors that the
// caller gives: the consumer is usually JavaScript, which reads records where they lie.
//
//   record, a multiple of 16 bytes         0        4      6
//                                          +--------+------+-------------- ...
//                                          | length | kind | the record's own
//                                          +--------+------+-------------- ...
//
// Cursors count bytes for ever, modulo 2^32; the producer writes tail, the consumer head. A record does not
// wrap: a record of kind kSkip fills the end of the ring. A consumer that writes nonsense into its cursor
// gets nothing more.
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

namespace penstock {

struct RecordHeader {
  uint32_t length;
  uint16_t kind;
};

class RecordRing {
 public:
  static constexpr uint16_t kSkip = 0xffff;
  static constexpr uint32_t padded(std::size_t bytes) {
    return static_cast<uint32_t>((bytes + 15) & ~std::size_t{15});
  }

  // `records` is aligned to 16 and `bytes` long, a power of two. Everything outlives the ring.
  RecordRing(std::byte* records, uint32_t bytes, std::atomic<uint32_t>& tail,
             const std::atomic<uint32_t>& head)
      : records_(records), bytes_(bytes), tail_(tail), head_(head) {}

  // A record of `length` bytes (padded), its header filled in; null: no room. It is seen by nobody until
  // publish().
  std::byte* reserve(uint32_t length, uint16_t kind) {
    assert(length == padded(length) && length <= bytes_ / 2);
    const uint32_t to_end = bytes_ - (cursor_ & (bytes_ - 1));
    const uint32_t skip = length > to_end ? to_end : 0;
    if (!fits(skip + length)) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (!fits(skip + length)) return nullptr;
    }
    if (skip != 0) put(skip, kSkip);
    return put(length, kind);
  }
  // Where the next record begins: the end of the last one.
  uint32_t cursor() const { return cursor_; }
  std::byte* at(uint32_t cursor) const { return records_ + (cursor & (bytes_ - 1)); }

  // Shows the consumer what was reserved; false when there was nothing new.
  bool publish() {
    if (cursor_ == tail_.load(std::memory_order_relaxed)) return false;
    tail_.store(cursor_, std::memory_order_release);
    return true;
  }

  // After publish(): whether the consumer had said that it rests and is now to be woken, by whoever is told
  // so. The consumer sets the word, then looks at tail once more; both sides are sequentially consistent.
  static bool take_sleeper(std::atomic<uint32_t>& asleep) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return asleep.load(std::memory_order_relaxed) != 0 && asleep.exchange(0) != 0;
  }

 private:
  bool fits(uint32_t length) const {
    const uint32_t used = cursor_ - head_seen_;
    return used <= bytes_ && length <= bytes_ - used;
  }
  std::byte* put(uint32_t length, uint16_t kind) {
    std::byte* record = at(cursor_);
    auto* header = reinterpret_cast<RecordHeader*>(record);
    header->length = length;
    header->kind = kind;
    cursor_ += length;
    return record;
  }

  std::byte* const records_;
  const uint32_t bytes_;
  std::atomic<uint32_t>& tail_;
  const std::atomic<uint32_t>& head_;
  uint32_t cursor_ = 0;
  uint32_t head_seen_ = 0;
};

}  // namespace penstock

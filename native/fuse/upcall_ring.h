// Requests on their way to JavaScript: a ring of variable-length records in memory that JavaScript made (a
// SharedArrayBuffer), many producers (FUSE workers), one consumer (the JavaScript main thread).
//
//   0        64       128        256                                    256 + capacity
//   | head   | tail   | sleeping | record | record | ... | (unused tail) |
//     u32      u32      u32
//     native   JS       1 from before JS waits for events until a producer, or JS, takes it back to 0
//     writes   writes
//
//   record, 8-byte aligned, never split across the end of the ring:
//   0      4       8      12    16    20    24       32        36      40
//   | size | kind  | slot | uid | gid | pid | nodeid | length  | group | payload of `length` bytes ...
//
// head and tail count bytes and wrap at 2^32; capacity is a power of two. A record that does not fit before
// the end is preceded by one of kind kRecordSkip that fills the rest.
//
// Sleep and wake: the consumer, about to wait for events, stores sleeping = 1 and looks at head once more.
// The producer stores head, then swaps sleeping to 0 and signals if it was 1. Both are sequentially
// consistent, so at least one of the two sees the other's store: no wake-up is lost, and a busy consumer is
// never signalled.
//
// The consumer's thread may push too (a request that it took off the kernel itself). It can't wait for
// itself, so half of the ring is kept for it: it pushes at most two records, an eighth of the ring each, into
// a ring it found empty.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

namespace penstock::fuse {

struct UpcallRecord {
  uint32_t size;  // this header, the payload and its padding
  uint32_t kind;  // an Opcode, or one of kRecord*
  uint32_t slot;  // names the request in the answer
  uint32_t uid;
  uint32_t gid;
  uint32_t pid;
  uint64_t nodeid;
  uint32_t length;
  uint32_t group;
};
static_assert(sizeof(UpcallRecord) == 40);

// In place of a slot: the request is answered already, JavaScript is only told.
inline constexpr uint32_t kNoSlot = UINT32_MAX;

inline constexpr uint32_t kRecordSkip = 0x10000;
inline constexpr uint32_t kRecordEnded = 0x10001;      // the kernel connection is gone; the last record
inline constexpr uint32_t kRecordDataNeed = 0x10002;   // payload: DataNeedPayload
inline constexpr uint32_t kRecordForgotten = 0x10003;  // Session::take_forgotten has something

struct DataNeedPayload {
  uint32_t kind;  // DataNeedKind
  uint32_t padding;
  uint64_t offset;
  uint64_t length;
};
static_assert(sizeof(DataNeedPayload) == 24);

// `offset` of a kill_privileges need: suid and sgid go as well, not the capability alone (which every write
// takes, a privileged one too).
inline constexpr uint64_t kSetId = 1;

enum class DataNeedKind : uint32_t {
  attach = 1,
  map = 2,
  fetch = 3,
  grant = 4,
  kill_privileges = 5,
  clean = 6
};

class UpcallRing {
 public:
  static constexpr std::size_t kHeadOffset = 0;
  static constexpr std::size_t kTailOffset = 64;
  static constexpr std::size_t kSleepingOffset = 128;
  static constexpr std::size_t kDataOffset = 256;
  static constexpr std::size_t kMinCapacity = 1 << 18;

  // `memory` outlives the ring; its size is kDataOffset plus a power of two of at least kMinCapacity.
  // `wake` may be called from any worker.
  UpcallRing(std::span<std::byte> memory, std::function<void()> wake);

  static bool usable(std::span<std::byte> memory);
  // A record of this payload length is never accepted by push.
  bool too_large(std::size_t payload) const { return payload > capacity_ / 8; }

  // Blocks while the ring is full, but on the thread that made the ring, the consumer's; false once `close`
  // was called. `record.size` and `record.length` are filled here.
  bool push(UpcallRecord record, std::span<const std::byte> payload);
  // The consumer does not sleep; an estimate.
  bool awake() const { return control(kSleepingOffset).load(std::memory_order_relaxed) == 0; }
  // Lets blocked producers go; later pushes fail.
  void close() { closed_.store(true, std::memory_order_release); }

  // ---- For the consumer's thread.
  bool on_consumer_thread() const { return std::this_thread::get_id() == consumer_; }
  bool empty() const {
    return control(kHeadOffset).load(std::memory_order_seq_cst) ==
           control(kTailOffset).load(std::memory_order_relaxed);
  }
  // Takes back the request for a wake-up: true when it still stood, so that none is on its way.
  bool stay_awake() { return control(kSleepingOffset).exchange(0, std::memory_order_seq_cst) == 1; }
  // Asks for a wake-up. False when something arrived meanwhile and no wake-up is on its way.
  bool sleep();

  uint64_t wakes() const { return wakes_.load(std::memory_order_relaxed); }
  uint64_t stalls() const { return stalls_.load(std::memory_order_relaxed); }

 private:
  // Bytes to skip before a record of `size`, or nothing while it does not fit.
  std::optional<uint32_t> space_for(uint32_t size, uint32_t limit) const;
  void put(const UpcallRecord& record, std::span<const std::byte> payload, uint32_t skip);
  std::atomic_ref<uint32_t> control(std::size_t offset) const {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(memory_.data() + offset));
  }

  std::span<std::byte> memory_;
  uint32_t capacity_;
  std::thread::id consumer_ = std::this_thread::get_id();
  std::function<void()> wake_;
  std::mutex producers_;
  uint32_t head_ = 0;  // under producers_
  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> wakes_{0};
  std::atomic<uint64_t> stalls_{0};
};

}  // namespace penstock::fuse

// What JavaScript's thread does between its last answer and its sleep: for a moment (anticipation.h says how
// long) it is one more worker.
//
//   app ──request──> kernel ──poll──> JavaScript's thread ──┬─ known natively ──> answered at once, watch on
//                       │                                   └─ else ──> ring, and back to JavaScript
//                       └──read──> a worker, if it was faster ──> ring ──> seen here
//
// An application that works file by file waits for each answer, so a request that need not wake a worker, and
// a worker that need not wake this thread, save it two context switches. Workers stay in read(2) all the
// while: whatever comes when this thread is busy is theirs.
//
// With two CPUs (session.cc) it takes nothing itself and watches the ring alone: a worker runs on the CPU
// that the application has just left, and writes the answer there too (answer_relay.h).
#include <cstring>
#include <utility>

#include "native/base/clock.h"
#include "native/fuse/attributes.h"
#include "native/fuse/session.h"

namespace penstock::fuse {

namespace {

// How long this thread may go on without a turn of the event loop, in ns: what timers, sockets and the pool's
// results wait for it at most on our account.
constexpr uint64_t kTurnMax = 2'000'000;
// Requests in a row that native code answers. More of them are no work for this thread: the workers take
// over.
constexpr uint32_t kServedMax = 8;
// Moving more than this is no work for this thread either.
constexpr uint32_t kDataMax = 64 << 10;

struct Kind {
  bool forget = false;  // nobody waits for it
  bool bulk = false;
};

Kind kind_of(std::span<const std::byte> bytes) {
  InHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const auto opcode = static_cast<Opcode>(header.opcode);
  Kind kind;
  kind.forget = opcode == Opcode::forget || opcode == Opcode::batch_forget;
  if (opcode == Opcode::write) kind.bulk = header.len > kDataMax;
  if (opcode == Opcode::read && bytes.size() >= sizeof(header) + sizeof(ReadIn)) {
    ReadIn in;
    std::memcpy(&in, bytes.data() + sizeof(header), sizeof(in));
    kind.bulk = in.size > kDataMax;
  }
  return kind;
}

}  // namespace

// Whatever this thread takes it may have to keep for itself to answer: it never takes more than there is room
// for.
bool Session::may_take_requests() {
  return look_out_buffer_ != nullptr && pending_.live() <= PendingTable::kLockWaitLimit &&
         data_path_->has_room();
}

// True when the ring has something.
bool Session::watch(uint64_t began, uint64_t window) {
  const bool takes = may_take_requests();
  uint64_t seen = served_natively_.load(std::memory_order_relaxed);
  uint32_t served = 0;
  for (uint64_t until = began + window;;) {
    if (!ring_->empty()) return true;
    if (takes) {
      const Received received = channel_->poll();
      if (!received.bytes.empty()) {
        const Kind kind = kind_of(received.bytes);
        take(received, *look_out_buffer_);
        if (!ring_->empty()) return true;
        // Forgets begin no new window: there can be a million of them.
        if (!kind.forget) {
          if (kind.bulk || ++served == kServedMax) return false;
          until = monotonic_ns() + window;
          anticipation_.served(until - window);
        }
      }
    } else {
      for (int i = 0; i < 8; ++i) relax();
      // Workers that relay take everything: what they answer themselves shows in their count.
      const uint64_t count = served_natively_.load(std::memory_order_relaxed);
      if (std::exchange(seen, count) != count) {
        if (++served == kServedMax) return false;
        until = monotonic_ns() + window;
        anticipation_.served(until - window);
      }
    }
    const uint64_t now = monotonic_ns();
    if (now > until || !anticipation_.still_running(now)) return false;
  }
}

LookOut Session::look_out(bool fresh) {
  const uint64_t began = monotonic_ns();
  if (fresh) turn_began_ = began;
  if (const uint64_t came = next_request_at_.exchange(0, std::memory_order_relaxed); came != 0)
    anticipation_.arrived(came);
  const uint64_t window = anticipation_.begin(began);
  if (window == 0) return LookOut::sleep;
  // A wake-up that is on its way all the same comes to nothing.
  ring_->stay_awake();
  if (began - turn_began_ > kTurnMax) return LookOut::turn;
  watching_.store(true, std::memory_order_relaxed);
  const bool hit = watch(began, window);
  watching_.store(false, std::memory_order_relaxed);
  const uint64_t now = monotonic_ns();
  if (hit) anticipation_.arrived(now);
  anticipation_.end(now, hit);
  return hit || !ring_->empty() ? LookOut::request : LookOut::sleep;
}

}  // namespace penstock::fuse

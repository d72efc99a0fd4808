// Requests that are in JavaScript's hands, by slot number. What native code must know when the answer comes
// is kept here, so that the answer is three integers: slot, errno, length.
//
// The table is bounded. A full table makes the worker wait, as a full ring does; lock waits, which may last
// for ever, are refused well before that (ENOLCK), so that the request that would end them always finds a
// slot.
//
//   number of a slot: | 0 | times it was used | index |
//
// An interrupt goes on the ring after its request and may be overtaken there by the answer and the next
// request. That one gets another number, so the interrupt meets nobody.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "native/fuse/request.h"

namespace penstock::fuse {

struct Pending {
  uint64_t unique = 0;
  uint64_t nodeid = 0;
  uint64_t clock = 0;  // NameCache clock when the request was taken
  Opcode opcode{};
  uint32_t queue = 0;
  std::string name;          // parent = nodeid, or newdir for link
  std::string new_name;      // rename
  uint64_t newdir = 0;       // rename; copy_file_range: target inode
  uint64_t handle = 0;       // with our tag bits
  uint64_t lock_owner = 0;   // flush, and who asked for a POSIX lock; 0: none
  uint64_t locks_asked = 0;  // flush: of all owners, when the request was taken
  uint64_t offset = 0;       // readdir
  uint32_t flags = 0;        // open, rename, lock type, ...
  uint32_t capacity = 0;     // largest payload the kernel accepts
  uint32_t slot = 0;         // its number
  bool live = false;
  bool announced = false;
};

class PendingTable {
 public:
  static constexpr uint32_t kSlots = 8192;
  static constexpr uint32_t kNumberMax = INT32_MAX;  // a small integer of JavaScript
  static constexpr uint32_t kLockWaitLimit = kSlots / 2;
  static constexpr uint32_t kKept = 16;  // for whoever may not wait

  PendingTable();

  // Blocks while full, unless told that the caller is the one who empties it: then, and once closed, nothing.
  // That one finds room whenever no more than kLockWaitLimit slots were in use just before.
  std::optional<uint32_t> add(Pending pending, bool may_wait = true);
  // Empties the slot. Nothing when no request has it.
  std::optional<Pending> take(uint32_t slot);
  // An interrupt of `unique`: its slot if the request was announced to JavaScript. Otherwise the interrupt is
  // kept for announce(), since it may have overtaken its request: it comes on another way.
  std::optional<uint32_t> interrupt(uint64_t unique);
  // The request is on the ring. True: an interrupt of it came before, and must follow now.
  bool announce(uint32_t slot, uint64_t unique);
  uint32_t live();
  // Nothing is added from now on. Takes all there are.
  std::vector<Pending> close();

 private:
  // The request of that number, or nullptr.
  Pending* find(uint32_t slot);

  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<Pending> slots_;
  std::vector<uint32_t> free_;  // the numbers they have next
  // Interrupts of requests that were not announced, the oldest overwritten. Most are of requests that native
  // code answers; a unique number never comes again.
  static constexpr std::size_t kEarlyMax = 64;
  std::array<uint64_t, kEarlyMax> early_{};
  std::size_t early_next_ = 0;
  bool early_any_ = false;
  bool closed_ = false;
};

}  // namespace penstock::fuse

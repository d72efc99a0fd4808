// One mounted file system: its channel, its workers, and the split between what native code answers and what
// crosses to JavaScript.
//
//   kernel ──channel──> worker ──┬─ READ, WRITE ─────────────> DataPath (FileIo)
//                                ├─ known from NameCache ────> answered here      (worker.cc)
//                                └─ everything else ─────────> PendingTable + UpcallRing
//   JavaScript ── reply(slot, error, payload) ──> settle (overlay, caches; settle.cc) ──> channel
//
// Order of life: mount() -> start() -> … -> stop() (or the kernel ends it: kRecordEnded). The destructor
// stops.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "native/fuse/answer_relay.h"
#include "native/fuse/anticipation.h"
#include "native/fuse/channel.h"
#include "native/fuse/channel_choice.h"
#include "native/fuse/data_path.h"
#include "native/fuse/file_io.h"
#include "native/fuse/halt_poll.h"
#include "native/fuse/handshake.h"
#include "native/fuse/held_inodes.h"
#include "native/fuse/mount.h"
#include "native/fuse/name_cache.h"
#include "native/fuse/notifier.h"
#include "native/fuse/pending_table.h"
#include "native/fuse/request.h"
#include "native/fuse/upcall_ring.h"

namespace penstock::fuse {

struct SessionOptions {
  MountOptions mount;
  HandshakeOptions handshake;
  uint32_t workers = 2;
  ChannelChoice channel;
  uint32_t inode_capacity = 1 << 16;
  uint32_t dentry_capacity = 1 << 16;
  // May keep a CPU from halting where that is measured to pay (halt_poll.h).
  bool halt_poll = true;
  // Nobody else changes the volume: a directory made here is known completely, and so are its misses.
  bool exclusive = false;
};

// Marks in the file handle that the kernel hands back; a handle of JavaScript's is below 2^62.
inline constexpr uint64_t kHandleSimple = 1ULL << 63;       // RELEASE needs no JavaScript
inline constexpr uint64_t kHandlePassthrough = 1ULL << 62;  // RELEASE drops a share of the inode's backing
inline constexpr uint64_t kHandleMask = kHandlePassthrough - 1;

// In OpenOut::open_flags between JavaScript and here only.
inline constexpr uint32_t kOpenSimpleRelease = 1U << 31;

struct SessionCounters {
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> upcalls{0};
  std::atomic<uint64_t> forgets{0};
  std::atomic<uint64_t> interrupts{0};
  std::atomic<uint64_t> native_xattr{0};
  std::atomic<uint64_t> native_flush{0};
  std::atomic<uint64_t> native_release{0};
  std::atomic<uint64_t> told_release{0};
  std::atomic<uint64_t> unsupported{0};
  std::atomic<uint64_t> malformed{0};
  std::atomic<uint64_t> lock_waits_refused{0};
  std::atomic<uint64_t> reply_failures{0};
  std::atomic<uint64_t> passthrough_opens{0};
  std::atomic<uint64_t> passthrough_refused{0};
};

// An inode that lost a name.
struct LostName {
  uint64_t ino = 0;  // 0: none, or not known
  // It was its last: kRecordForgotten says when the kernel has dropped it. The kernel has looked it up, or it
  // could not have named it, so a FORGET will come.
  bool held = false;
};

// What JavaScript's thread does next.
enum class LookOut : uint32_t {
  sleep = 0,    // nobody came; before the event loop waits, a wake-up is asked for (may_sleep)
  request = 1,  // one is there
  turn = 2,     // let the event loop turn, then come back: nobody will signal before
};

class Session {
 public:
  // Mounts and shakes hands; no request is taken before start(). Blocks: not for the JavaScript thread.
  static Result<std::unique_ptr<Session>> mount(SessionOptions options, std::shared_ptr<FileIo> file_io);
  ~Session();

  // `ring_memory` outlives the session; `wake` may be called from any worker.
  void start(std::span<std::byte> ring_memory, std::function<void()> wake);
  void stop();

  // ---- From JavaScript.
  // `payload` is the whole result for error 0; it may be modified. `annex` holds AttrOut records of the
  // directories the operation changed, as it left them; they stay here. `lost` is the inode that an unlink,
  // rmdir or rename took a name from. False when the slot holds no request.
  bool reply(uint32_t slot, int error, std::span<std::byte> payload, std::span<std::byte> annex,
             LostName lost = {});
  // Nothing is left to answer: waits a bounded moment (anticipation.h) for the next request. `fresh`: the
  // event loop has turned since the last call.
  LookOut look_out(bool fresh);
  // JavaScript's thread is about to wait for events. False: something has come meanwhile, and it must not.
  bool may_sleep() { return ring_->sleep(); }
  bool resume(uint32_t id) { return data_path_->resume(id); }
  bool fail(uint32_t id, int error) { return data_path_->fail(id, error); }
  // Forget what is cached here, not what the kernel has cached.
  void forget_inode(uint64_t ino);
  void forget_entry(uint64_t parent, std::string_view name);
  void set_exclusive(bool exclusive);
  std::vector<uint64_t> take_forgotten() { return held_.take_forgotten(); }
  // Forget here, then have the kernel forget.
  void invalidate_inode(uint64_t ino, int64_t offset, int64_t length);
  void invalidate_entry(uint64_t parent, std::string_view name);

  const Negotiated& negotiated() const { return negotiated_; }
  // Final once start() has returned. An empty refusal: what was asked for is used, or was not to be used.
  ChannelState channel() const;
  std::vector<std::pair<std::string, uint64_t>> stats();

 private:
  struct Backing {
    int32_t id = 0;
    uint32_t handles = 0;
  };

  Session(SessionOptions options, std::shared_ptr<FileIo> file_io);

  // worker.cc
  void work(uint32_t queue);
  void take(const Received& received, const TransferBuffer& buffer);
  void serve(uint32_t queue, const Request& request, const TransferBuffer& buffer);
  bool serve_natively(uint32_t queue, const Request& request);
  bool serve_lookup(uint32_t queue, const Request& request);
  bool serve_getattr(uint32_t queue, const Request& request);
  bool serve_xattr(uint32_t queue, const Request& request);
  bool serve_flush(uint32_t queue, const Request& request);
  bool serve_release(uint32_t queue, const Request& request);
  void serve_interrupt(uint32_t queue, const Request& request);
  void serve_forget(const Request& request);
  // look_out.cc
  bool watch(uint64_t began, uint64_t window);
  bool may_take_requests();

  void upcall(uint32_t queue, const Request& request);
  bool may_relay(Opcode opcode);
  void note_served(const Request& request);
  void note_lock_owner(uint64_t ino, uint64_t owner);
  void forget_lock_owner(const Pending& flush);
  uint64_t locks_asked();
  void answer(uint32_t queue, uint64_t unique, int error, const void* data = nullptr, std::size_t length = 0);

  // settle.cc
  void settle(const Pending& pending, int error, std::span<std::byte> payload, uint64_t lost);
  void settle_entry(const Pending& pending, std::span<std::byte> payload, bool made);
  void settle_attr(const Pending& pending, std::span<std::byte> payload, bool changed);
  void settle_open(const Pending& pending, OpenOut& open);
  void settle_listing(const Pending& pending, std::span<std::byte> payload);
  void note_listing(const Pending& pending, bool at_end, uint64_t last_offset);
  void settle_removal(const Pending& pending, uint64_t lost);
  void settle_rename(const Pending& pending, uint64_t lost);
  void settle_uncertain(const Pending& pending);
  void change_directory(std::size_t index, uint64_t ino, uint64_t since);
  void settle_annex(std::span<std::byte> annex);
  void keep_attr(Attr& attr, uint64_t valid_until, uint64_t since, bool keep);
  void keep_entry(EntryOut& entry, uint64_t parent, std::string_view name, uint64_t since, bool keep);
  bool open_backing(uint64_t ino, OpenOut& open);
  void release_backing(uint64_t ino);

  SessionOptions options_;
  std::shared_ptr<FileIo> file_io_;
  Negotiated negotiated_;
  std::unique_ptr<Channel> channel_;
  std::string uring_refusal_;
  std::unique_ptr<UpcallRing> ring_;
  NameCache names_;
  HeldInodes held_;
  PendingTable pending_;
  std::unique_ptr<DataPath> data_path_;
  std::unique_ptr<Notifier> notifier_;
  std::vector<std::thread> workers_;
  std::atomic<uint32_t> running_{0};
  Anticipation anticipation_;  // JavaScript's thread alone
  uint64_t turn_began_ = 0;    // likewise
  // When the first request came that a worker took since this thread last looked out; 0: none yet.
  std::atomic<uint64_t> next_request_at_{0};
  // Likewise; none where the channel does not poll, or workers relay.
  std::unique_ptr<TransferBuffer> look_out_buffer_;
  bool relays_ = false;  // fixed by start()
  AnswerRelay relay_;
  std::unique_ptr<HaltPoller> halt_poller_;  // none unless relays_: fixed by start()
  // JavaScript's thread is in its look-out, so it will answer soon. Nothing hangs on it: relaxed.
  std::atomic<bool> watching_{false};
  // Requests answered without JavaScript (a FORGET has no answer) where workers relay. For watch(), which
  // takes it for a sign of life: relaxed.
  std::atomic<uint64_t> served_natively_{0};
  std::atomic<bool> exclusive_;
  SessionCounters counters_;

  // Directories changed by the answer being settled. Used by JavaScript's thread alone.
  struct ChangedDirectory {
    uint64_t ino = 0;
    bool alone = false;  // nothing else changed it since the request was taken
    uint64_t clock = 0;  // after the change
  };
  std::array<ChangedDirectory, 2> changed_directories_{};

  // Listings under way, by directory (whichever handle reads on: what counts is that the ranges cover it):
  // one that ran from the start to the end, with no change of the directory in between, makes it known
  // completely. Used by JavaScript's thread alone.
  struct Listing {
    uint64_t since = 0;
    uint64_t next_offset = 0;
  };
  static constexpr std::size_t kListingsMax = 256;
  std::unordered_map<uint64_t, Listing> listings_;

  // Who asked for a POSIX lock, by inode and owner, with the number of the last time: a FLUSH by anybody else
  // has no lock to release, and after one there is none of its owner unless that asked again meanwhile.
  static constexpr std::size_t kLockOwnersMax = 1 << 16;
  std::mutex lock_owners_mutex_;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> lock_owners_;
  uint64_t locks_asked_ = 0;
  bool lock_owners_overflowed_ = false;

  std::mutex backings_mutex_;
  std::unordered_map<uint64_t, Backing> backings_;
};

}  // namespace penstock::fuse

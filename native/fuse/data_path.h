// READ and WRITE: from the request buffer to FileIo and back, without JavaScript.
//
//   worker: run ── done / error ──────────────────────────────> reply
//             └── need_* ──> park (copy of the request) ──> DataNeed record to JavaScript
//   JavaScript: resume(id) ──> resume thread: run again ──> reply, or park once more
//               fail(id, errno) ─────────────────────────> reply
//
// The parking place is bounded in requests and bytes; a worker that finds it full waits. The resume thread
// never waits there (what it parks again already has its place), so whoever waits is freed by progress.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "native/fuse/channel.h"
#include "native/fuse/file_io.h"
#include "native/fuse/name_cache.h"
#include "native/fuse/request.h"
#include "native/fuse/upcall_ring.h"

namespace penstock::fuse {

// A page-aligned buffer of kMaxTransfer bytes for one thread's READ answers.
class TransferBuffer {
 public:
  TransferBuffer();
  ~TransferBuffer();
  TransferBuffer(const TransferBuffer&) = delete;
  TransferBuffer& operator=(const TransferBuffer&) = delete;
  std::span<std::byte> first(std::size_t length) const { return {memory_, length}; }

 private:
  std::byte* memory_;
};

struct DataPathCounters {
  std::atomic<uint64_t> reads{0};
  std::atomic<uint64_t> read_bytes{0};
  std::atomic<uint64_t> spliced_reads{0};
  std::atomic<uint64_t> writes{0};
  std::atomic<uint64_t> written_bytes{0};
  std::atomic<uint64_t> parked{0};
  std::atomic<uint64_t> park_waits{0};
  std::atomic<uint64_t> gave_up{0};
};

class DataPath {
 public:
  static constexpr uint32_t kParkedMax = 1024;
  static constexpr uint32_t kParkedKept = 16;  // for the thread that must not wait
  static constexpr uint64_t kParkedBytesMax = 64ULL << 20;
  // A request that asks this often without getting further is answered EIO: something evicts as fast as it
  // fetches.
  static constexpr uint32_t kAttemptsMax = 100;

  // READs from this size on are answered out of the file itself where they can be: one system call more and
  // one copy less. Level at 16 KiB, a fifth faster at 32.
  static constexpr uint32_t kSpliceMin = 32 << 10;

  DataPath(Channel& channel, FileIo& file_io, UpcallRing& ring, NameCache& names);
  ~DataPath();

  // From the worker of `queue`; the request's bytes need to live only during the call.
  void read(uint32_t queue, const Request& request, const TransferBuffer& buffer);
  void write(uint32_t queue, const Request& request);

  // Room for a request of JavaScript's thread, which must never wait here for itself.
  bool has_room();

  // From JavaScript, once for each DataNeed. False when `id` is not parked.
  bool resume(uint32_t id);
  bool fail(uint32_t id, int error);

  // Frees waiting workers and ends the resume thread; parked requests, and those that would be, are refused.
  void stop();

  const DataPathCounters& counters() const { return counters_; }

 private:
  struct Parked {
    InHeader header{};
    uint32_t queue = 0;
    uint64_t offset = 0;
    uint32_t size = 0;
    bool is_write = false;
    bool kill_suidgid = false;  // WRITE by someone whose writes clear suid and sgid
    bool privileges_cleared = false;
    DataNeedKind asked{};
    bool asked_set_id = false;  // of kill_privileges: suid and sgid too
    uint64_t clock = 0;         // NameCache clock when last asked
    uint32_t attempts = 0;
    uint32_t group = kNoGroup;
    std::vector<std::byte> data;  // WRITE
    bool waiting = false;         // for JavaScript
    bool live = false;
  };

  // Replies with bytes that never pass through here; false: it did not.
  bool splice_read(const Parked& request);
  // Runs once and replies, or says what is needed.
  std::optional<DataNeedPayload> run_read(const Parked& request, const TransferBuffer& buffer);
  std::optional<DataNeedPayload> run_write(const Parked& request, std::span<const std::byte> data);
  std::optional<DataNeedPayload> privileges_needed(const Parked& request);
  void park(Parked request, std::span<const std::byte> data, const DataNeedPayload& need);
  void announce(uint32_t id, const DataNeedPayload& need);
  void release(uint32_t id);
  void resume_loop();
  void finish(const Parked& request, int error, std::span<const iovec> parts);

  Channel& channel_;
  FileIo& file_io_;
  UpcallRing& ring_;
  NameCache& names_;
  DataPathCounters counters_;

  std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable work_;
  std::vector<Parked> parked_;
  std::vector<uint32_t> free_;
  uint64_t parked_bytes_ = 0;
  std::deque<uint32_t> resumed_;
  bool stopping_ = false;
  std::thread resume_thread_;
};

}  // namespace penstock::fuse

// One thread's share of FUSE over io_uring: its ring, and the kernel queues (one for each possible CPU) whose
// requests come to it.
//
//   entry = one mapping:  | UringReqHeader ...  InHeader | arguments | payload, kMaxTransfer bytes ... |
//                         0                             '- lead ----'4096
//
//   REGISTER ─> kernel holds the entry ─> completion: a request lies in it ─> receive()
//                        ^                                                       │ served here, or elsewhere
//                        └────────────── COMMIT_AND_FETCH <── HandOver <── reply()
//
// The kernel fills header block and payload; header and fixed arguments are then moved to just before the
// payload, so that a request is contiguous as it is on the device and a WRITE's data is not copied. An answer
// is put into the payload (a READ's is read there) and committed.
//
// An answer of another thread is handed over to this one and committed by it, together with whatever else is
// due. The other way, submitting from the answering thread, would bind the entry to that thread: the kernel
// copies the *next* request of an entry in the context of whoever committed the last one, so the JavaScript
// thread would be interrupted for requests that are none of its business. (docs/fuse-transport.md has the
// measurement.)
//
// Entries are the bound of requests in our hands: `depth` for each kernel queue. Waiting locks do not count:
// for each one that is taken another entry is registered, or the UNLOCK that ends the wait might find none
// free.
//
// Registering is not enough. The kernel (6.18) gives a request that had to queue to an entry that is
// committed, not to one that is registered; with nothing but waiting locks in our hands none is committed,
// and what queued would stay there. So a registration is followed by a nudge: a notice to which the kernel
// answers with a request of its own, on the CPU where the notice is given. That request takes a free entry,
// and its commit the first that queued. Each further waiting lock is followed by a nudge too, until one finds
// nothing queued.
#pragma once

#include <pthread.h>

#include <atomic>
#include <memory>
#include <vector>

#include "native/base/hand_over.h"
#include "native/base/io_ring.h"
#include "native/fuse/channel.h"
#include "native/fuse/device_channel.h"
#include "native/fuse/protocol.h"

namespace penstock::fuse {

class UringWorker {
 public:
  static Result<std::unique_ptr<UringWorker>> create(std::vector<uint16_t> kernel_queues, uint32_t depth);

  // ---- Of the worker's thread.
  // Binds the ring to this thread and registers the entries. The errno of a refusal: nothing will come here.
  int attach(DeviceChannel& device);
  // Blocks for a request; none once `ended` is set (by anybody who then calls ring(), or by what comes from
  // the kernel). `origin` is the entry's number.
  Received receive(std::atomic<bool>& ended);

  // ---- Of any thread.
  int reply(uint32_t entry, uint64_t unique, int error, std::span<const iovec> parts);
  std::span<std::byte> answer_room(uint32_t entry) const;
  void ring();

  uint64_t entries() const { return registered_.load(std::memory_order_relaxed); }
  uint64_t handed_over() const { return handed_over_count_.load(std::memory_order_relaxed); }
  uint64_t rings() const { return rings_.load(std::memory_order_relaxed); }
  uint64_t commit_failures() const { return commit_failures_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    explicit Entry(uint32_t in_queue) : queue(in_queue) {}
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry();
    bool map();
    UringReqHeader* header() const { return reinterpret_cast<UringReqHeader*>(memory); }
    std::byte* payload() const { return memory + kLead; }

    std::byte* memory = nullptr;
    uint32_t queue;  // index in queues_
    uint64_t commit_id = 0;
    bool committed = false;  // at least once: a completion with an error refuses an answer, not the entry
    bool waits_for_lock = false;
  };
  struct Queue {
    uint16_t kernel_queue;
    uint32_t registered = 0;
    uint32_t lock_waits = 0;
    bool backlog_possible = false;  // an entry was registered since a nudge last found nothing queued
    bool nudge_due = false;
    uint64_t nudge_inode = 0;  // a file the kernel surely knows: one whose lock is waited for
  };
  static constexpr std::size_t kLead = 4096;
  static constexpr std::size_t kEntryBytes = kLead + kMaxTransfer;

  UringWorker(IoRing ring, std::vector<uint16_t> kernel_queues, uint32_t depth);

  bool add_entry(uint32_t queue);
  void register_entry(uint32_t number);
  void commit(uint32_t number);
  void commit_handed_over();
  IoSubmission* prepare(UringCmd command, uint32_t number);
  // The request that lies in the entry, if that is what the completion says.
  Received take(const IoCompletion& completion, std::atomic<bool>& ended);
  Received request_in(uint32_t number);
  void refused(uint32_t number, int error);
  void note_lock_wait(Entry& entry, uint64_t inode);
  void nudge();
  void nudge_returned(uint32_t number);

  IoRing ring_;
  std::vector<Queue> queues_;
  uint32_t depth_;
  // Reserved in full, so that other threads may use an entry they were given while this one adds another.
  std::vector<std::unique_ptr<Entry>> entries_;
  pthread_t owner_{};
  DeviceChannel* device_ = nullptr;
  bool nudge_due_ = false;  // of any queue
  uint64_t nudges_ = 0;
  std::vector<IoCompletion> early_;  // taken from the ring before their turn
  std::vector<uint32_t> due_;        // handed over, about to be committed
  HandOver handed_over_;
  std::atomic<uint64_t> registered_{0};
  std::atomic<uint64_t> handed_over_count_{0};
  std::atomic<uint64_t> rings_{0};
  std::atomic<uint64_t> commit_failures_{0};
};

}  // namespace penstock::fuse

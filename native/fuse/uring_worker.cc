#include "native/fuse/uring_worker.h"

#include <sched.h>
#include <sys/mman.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

#include "native/fuse/pending_table.h"

namespace penstock::fuse {

namespace {

// Submissions between two system calls: answers that were handed over at once. More are submitted in turns.
constexpr uint32_t kSubmissions = 64;
// Unique numbers of our nudges; the kernel's own count from 2 and never get there.
constexpr uint64_t kNudge = 1ULL << 62;
constexpr uint32_t kCompletions = 1024;  // more are kept by the kernel until there is room

// A request comes to the queue of the CPU it was made on, and whoever made it sleeps until it is answered:
// served on that same CPU it costs two context switches and no wake-up of another CPU. Left to the scheduler
// the thread is put on an idle one, which is half as fast for a single reader. A CPU that the process may not
// use is left out.
template <typename Queues>
void stay_near(const Queues& queues) {
  cpu_set_t allowed;
  cpu_set_t near;
  CPU_ZERO(&near);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  for (const auto& queue : queues) {
    if (queue.kernel_queue < CPU_SETSIZE && CPU_ISSET(queue.kernel_queue, &allowed))
      CPU_SET(queue.kernel_queue, &near);
  }
  if (CPU_COUNT(&near) > 0) static_cast<void>(::sched_setaffinity(0, sizeof(near), &near));
}

bool connection_ended(int error) {
  return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED || error == ENODEV;
}

}  // namespace

UringWorker::Entry::~Entry() {
  if (memory != nullptr) ::munmap(memory, kEntryBytes);
}

bool UringWorker::Entry::map() {
  void* mapped = ::mmap(nullptr, kEntryBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  memory = static_cast<std::byte*>(mapped);
  // Not copied on write for a child that is about to execute something else.
  return ::madvise(memory, kEntryBytes, MADV_DONTFORK) == 0;
}

Result<std::unique_ptr<UringWorker>> UringWorker::create(std::vector<uint16_t> kernel_queues,
                                                         uint32_t depth) {
  assert(!kernel_queues.empty() && depth > 0);
  auto ring = IoRing::create(kSubmissions, kCompletions);
  if (!ring) return ring.error();
  return std::unique_ptr<UringWorker>(new UringWorker(std::move(*ring), std::move(kernel_queues), depth));
}

UringWorker::UringWorker(IoRing ring, std::vector<uint16_t> kernel_queues, uint32_t depth)
    : ring_(std::move(ring)),
      depth_(depth),
      handed_over_(std::size_t{depth} * kernel_queues.size() + PendingTable::kLockWaitLimit) {
  for (const uint16_t kernel_queue : kernel_queues) queues_.push_back({kernel_queue});
  entries_.reserve(std::size_t{depth} * kernel_queues.size() + PendingTable::kLockWaitLimit);
}

int UringWorker::attach(DeviceChannel& device) {
  owner_ = ::pthread_self();
  device_ = &device;
  stay_near(queues_);
  if (const int error = ring_.register_file(device.device())) return error;
  if (const int error = ring_.enable()) return error;
  for (uint32_t turn = 0; turn < depth_; ++turn) {
    for (uint32_t queue = 0; queue < queues_.size(); ++queue) {
      if (!add_entry(queue)) return ENOMEM;
    }
  }
  if (const int error = ring_.submit(false)) return error;
  while (const auto completion = ring_.complete()) {
    if (completion->user_data != IoRing::kRung && completion->result < 0) return -completion->result;
    early_.push_back(*completion);
  }
  return 0;
}

bool UringWorker::add_entry(uint32_t queue) {
  if (entries_.size() == entries_.capacity()) return false;
  auto entry = std::make_unique<Entry>(queue);
  if (!entry->map()) return false;
  entries_.push_back(std::move(entry));
  ++queues_[queue].registered;
  registered_.fetch_add(1, std::memory_order_relaxed);
  register_entry(static_cast<uint32_t>(entries_.size() - 1));
  return true;
}

IoSubmission* UringWorker::prepare(UringCmd command, uint32_t number) {
  IoSubmission* submission = ring_.prepare();
  while (submission == nullptr) {
    // The kernel takes all that is prepared; it refuses only while it is out of memory for a moment.
    static_cast<void>(ring_.submit(false));
    submission = ring_.prepare();
  }
  submission->opcode = io_opcode::command;
  submission->flags = IoRing::kFixedFile;
  submission->command = static_cast<uint32_t>(command);
  submission->user_data = number;
  UringCmdReq arguments{};
  arguments.qid = queues_[entries_[number]->queue].kernel_queue;
  arguments.commit_id = entries_[number]->commit_id;
  static_assert(sizeof(arguments) <= sizeof(submission->payload));
  std::memcpy(submission->payload, &arguments, sizeof(arguments));
  return submission;
}

void UringWorker::register_entry(uint32_t number) {
  Entry& entry = *entries_[number];
  entry.commit_id = 0;
  entry.committed = false;
  // The kernel reads the vector when it takes the submission; the lead, unused until then, keeps it that
  // long.
  auto* buffers = reinterpret_cast<iovec*>(entry.memory + kLead / 2);
  buffers[0] = {entry.header(), sizeof(UringReqHeader)};
  buffers[1] = {entry.payload(), kMaxTransfer};
  IoSubmission* submission = prepare(UringCmd::register_entry, number);
  submission->address = reinterpret_cast<uint64_t>(buffers);
  submission->length = 2;
}

Received UringWorker::receive(std::atomic<bool>& ended) {
  while (!ended.load(std::memory_order_acquire)) {
    commit_handed_over();
    if (nudge_due_) nudge();
    if (!early_.empty()) {
      const IoCompletion completion = early_.back();
      early_.pop_back();
      const Received request = take(completion, ended);
      if (!request.bytes.empty()) return request;
      continue;
    }
    // Answers go out before the next request is begun, in the call that waits for it.
    const bool idle = !ring_.has_completion();
    if (idle || ring_.prepared() > 0) {
      const bool sleep = idle && handed_over_.begin_sleep();
      if (sleep && ended.load(std::memory_order_seq_cst)) break;
      const int error = ring_.submit(sleep);
      if (sleep) handed_over_.end_sleep();
      if (error != 0 && error != EAGAIN && error != EBUSY) break;
    }
    const auto completion = ring_.complete();
    if (!completion) continue;
    const Received request = take(*completion, ended);
    if (!request.bytes.empty()) return request;
  }
  return {};
}

Received UringWorker::take(const IoCompletion& completion, std::atomic<bool>& ended) {
  if (completion.user_data == IoRing::kRung) return {};
  const auto number = static_cast<uint32_t>(completion.user_data);
  if (completion.result == 0) return request_in(number);
  if (connection_ended(-completion.result)) {
    ended.store(true, std::memory_order_seq_cst);
  } else {
    refused(number, -completion.result);
  }
  return {};
}

// The answer of an entry was refused (its request is gone, and the entry, for the kernel, still ours): it is
// registered anew. A refused registration is one entry less.
void UringWorker::refused(uint32_t number, int error) {
  Entry& entry = *entries_[number];
  if (entry.committed || error == EAGAIN) {
    if (entry.committed) commit_failures_.fetch_add(1, std::memory_order_relaxed);
    register_entry(number);
    queues_[entry.queue].backlog_possible = queues_[entry.queue].nudge_due = nudge_due_ = true;
  } else {
    --queues_[entry.queue].registered;
    registered_.fetch_sub(1, std::memory_order_relaxed);
  }
}

Received UringWorker::request_in(uint32_t number) {
  Entry& entry = *entries_[number];
  const UringEntInOut& sizes = entry.header()->ring_ent_in_out;
  InHeader header;
  std::memcpy(&header, entry.header()->in_out, sizeof(header));
  entry.commit_id = sizes.commit_id;
  const std::size_t fixed = std::size_t{header.len} - sizeof(header) - sizes.payload_sz;
  // What does not add up is passed on as far as it is sure, for the session to refuse.
  const bool sane = header.len >= sizeof(header) + sizes.payload_sz &&
                    fixed <= sizeof(UringReqHeader::op_in) && sizes.payload_sz <= kMaxTransfer;
  std::byte* arguments = entry.payload() - (sane ? fixed : 0);
  if (sane) std::memcpy(arguments, entry.header()->op_in, fixed);
  std::byte* begin = arguments - sizeof(header);
  std::memcpy(begin, &header, sizeof(header));

  if (header.opcode == static_cast<uint32_t>(Opcode::setlkw)) note_lock_wait(entry, header.nodeid);
  if (header.opcode == static_cast<uint32_t>(Opcode::notify_reply)) {
    nudge_returned(number);
    return {};
  }
  return {{begin, sane ? header.len : sizeof(header)}, number};
}

void UringWorker::note_lock_wait(Entry& entry, uint64_t inode) {
  Queue& queue = queues_[entry.queue];
  queue.nudge_inode = inode;
  entry.waits_for_lock = true;
  ++queue.lock_waits;
  if (queue.registered - queue.lock_waits < depth_ && add_entry(entry.queue)) queue.backlog_possible = true;
  if (queue.backlog_possible) queue.nudge_due = nudge_due_ = true;
}

void UringWorker::nudge() {
  nudge_due_ = false;
  static_cast<void>(ring_.submit(false));  // what was registered is there for the kernel's request
  cpu_set_t before;
  const bool known = ::sched_getaffinity(0, sizeof(before), &before) == 0;
  for (Queue& queue : queues_) {
    if (!std::exchange(queue.nudge_due, false) || queue.nudge_inode == 0) continue;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(queue.kernel_queue, &only);
    // On a CPU that we may not use, and for a directory, somebody else's next request has to do.
    if (!known || ::sched_setaffinity(0, sizeof(only), &only) != 0) continue;
    NotifyRetrieveOut notice{kNudge + 2 * ++nudges_, queue.nudge_inode, 0, 0, 0};
    const std::array parts{iovec{&notice, sizeof(notice)}};
    static_cast<void>(
        device_->notify(static_cast<int32_t>(NotifyCode::retrieve), parts));  // else: it has ended
  }
  if (known) static_cast<void>(::sched_setaffinity(0, sizeof(before), &before));
}

// A request that had queued comes with the commit itself.
void UringWorker::nudge_returned(uint32_t number) {
  reply(number, entries_[number]->commit_id, 0, {});
  static_cast<void>(ring_.submit(false));
  bool found = false;
  while (const auto completion = ring_.complete()) {
    found = found || completion->user_data == number;
    early_.push_back(*completion);
  }
  if (!found) queues_[entries_[number]->queue].backlog_possible = false;
}

int UringWorker::reply(uint32_t number, uint64_t unique, int error, std::span<const iovec> parts) {
  Entry& entry = *entries_[number];
  OutHeader header{sizeof(OutHeader), -error, unique};
  std::size_t length = 0;
  for (const iovec& part : error == 0 ? parts : std::span<const iovec>{}) {
    if (part.iov_len == 0) continue;
    if (part.iov_len > kMaxTransfer - length) {
      header.error = -EIO;
      length = 0;
      break;
    }
    std::byte* target = entry.payload() + length;
    if (part.iov_base != target) std::memcpy(target, part.iov_base, part.iov_len);
    length += part.iov_len;
  }
  header.len = static_cast<uint32_t>(sizeof(header) + length);
  std::memcpy(entry.header()->in_out, &header, sizeof(header));
  entry.header()->ring_ent_in_out.payload_sz = static_cast<uint32_t>(length);
  if (::pthread_equal(owner_, ::pthread_self()) != 0) {
    commit(number);
  } else {
    handed_over_count_.fetch_add(1, std::memory_order_relaxed);
    if (handed_over_.leave(number)) ring();
  }
  return header.error == -EIO && error == 0 ? E2BIG : 0;
}

void UringWorker::commit_handed_over() {
  if (handed_over_.empty()) return;
  handed_over_.take(due_);
  for (const uint32_t number : due_) commit(number);
  due_.clear();
}

void UringWorker::commit(uint32_t number) {
  Entry& entry = *entries_[number];
  if (std::exchange(entry.waits_for_lock, false)) --queues_[entry.queue].lock_waits;
  entry.committed = true;
  prepare(UringCmd::commit_and_fetch, number);
}

std::span<std::byte> UringWorker::answer_room(uint32_t number) const {
  return {entries_[number]->payload(), kMaxTransfer};
}

void UringWorker::ring() {
  rings_.fetch_add(1, std::memory_order_relaxed);
  static_cast<void>(ring_.ring());  // not yet enabled: it looks again before it sleeps
}

}  // namespace penstock::fuse

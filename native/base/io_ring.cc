#include "native/base/io_ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

namespace penstock {

namespace {

struct SubmissionOffsets {
  uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, reserved;
  uint64_t user_address;
};
struct CompletionOffsets {
  uint32_t head, tail, ring_mask, ring_entries, overflow, entries, flags, reserved;
  uint64_t user_address;
};
struct Parameters {
  uint32_t submission_entries, completion_entries, flags, thread_cpu, thread_idle, features, worker_fd;
  uint32_t reserved[3];
  SubmissionOffsets submission;
  CompletionOffsets completion;
};
static_assert(sizeof(Parameters) == 120);

constexpr uint32_t kSetupCompletionSize = 1 << 3;
constexpr uint32_t kSetupDisabled = 1 << 6;
constexpr uint32_t kSetupSubmitAll = 1 << 7;
constexpr uint32_t kSetupTaskrunFlag = 1 << 9;
constexpr uint32_t kSetupSubmission128 = 1 << 10;
constexpr uint32_t kSetupSingleIssuer = 1 << 12;
constexpr uint32_t kSetupDeferTaskrun = 1 << 13;
constexpr uint32_t kSetupNoArray = 1 << 16;

constexpr uint32_t kFeatureSingleMapping = 1 << 0;
constexpr uint32_t kFeatureNoIowait = 1 << 17;

constexpr uint32_t kEnterGetEvents = 1 << 0;
constexpr uint32_t kEnterNoIowait = 1 << 7;

constexpr unsigned kRegisterFiles = 2;
constexpr unsigned kRegisterEnable = 12;
constexpr unsigned kRegisterSendMessage = 31;

constexpr uint64_t kOffsetQueues = 0;
constexpr uint64_t kOffsetSubmissions = 0x10000000;

int errno_of(long result) {
  return result < 0 ? errno : 0;
}

int register_with(int fd, unsigned operation, const void* argument, unsigned count) {
  return errno_of(::syscall(SYS_io_uring_register, fd, operation, argument, count));
}

uint32_t load(uint32_t* word) {
  return std::atomic_ref(*word).load(std::memory_order_acquire);
}

void store(uint32_t* word, uint32_t value) {
  std::atomic_ref(*word).store(value, std::memory_order_release);
}

}  // namespace

IoRing::Mapping::Mapping(Mapping&& other) noexcept
    : memory(std::exchange(other.memory, nullptr)), length(std::exchange(other.length, 0)) {}

IoRing::Mapping& IoRing::Mapping::operator=(Mapping&& other) noexcept {
  std::swap(memory, other.memory);
  std::swap(length, other.length);
  return *this;
}

IoRing::Mapping::~Mapping() {
  if (memory != nullptr) ::munmap(memory, length);
}

int IoRing::Mapping::map(int fd, std::size_t bytes, uint64_t offset) {
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                        static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return errno;
  memory = static_cast<std::byte*>(mapped);
  length = bytes;
  // A child that inherited the mapping would keep the ring alive, and with it everything the kernel holds for
  // it, after our own death.
  return ::madvise(memory, length, MADV_DONTFORK) == 0 ? 0 : errno;
}

IoRing::IoRing(IoRing&& other) noexcept = default;
IoRing::~IoRing() = default;

Result<IoRing> IoRing::create(uint32_t submissions, uint32_t completions) {
  Parameters parameters{};
  parameters.completion_entries = completions;
  parameters.flags = kSetupCompletionSize | kSetupDisabled | kSetupSubmitAll | kSetupTaskrunFlag |
                     kSetupSubmission128 | kSetupSingleIssuer | kSetupDeferTaskrun | kSetupNoArray;
  IoRing ring;
  ring.fd_.reset(static_cast<int>(::syscall(SYS_io_uring_setup, submissions, &parameters)));
  if (!ring.fd_.valid()) return Error::from_errno(errno, "cannot set up an io_uring");
  if ((parameters.features & kFeatureSingleMapping) == 0) return Error{ENOSYS, "io_uring is too old here"};
  if ((parameters.features & kFeatureNoIowait) != 0) ring.enter_flags_ = kEnterNoIowait;

  const SubmissionOffsets& out = parameters.submission;
  const CompletionOffsets& in = parameters.completion;
  const std::size_t bytes = in.entries + std::size_t{parameters.completion_entries} * sizeof(IoCompletion);
  int error = ring.queues_.map(ring.fd_.get(), bytes, kOffsetQueues);
  if (error == 0) {
    error = ring.submissions_.map(ring.fd_.get(), parameters.submission_entries * sizeof(IoSubmission),
                                  kOffsetSubmissions);
  }
  if (error != 0) return Error::from_errno(error, "cannot map an io_uring");
  const auto word = [&](uint32_t offset) {
    return reinterpret_cast<uint32_t*>(ring.queues_.memory + offset);
  };
  ring.submission_head_ = word(out.head);
  ring.submission_tail_ = word(out.tail);
  ring.completion_head_ = word(in.head);
  ring.completion_tail_ = word(in.tail);
  ring.completions_ = reinterpret_cast<IoCompletion*>(ring.queues_.memory + in.entries);
  ring.submission_mask_ = parameters.submission_entries - 1;
  ring.completion_mask_ = parameters.completion_entries - 1;
  return ring;
}

int IoRing::register_file(int fd) {
  return register_with(fd_.get(), kRegisterFiles, &fd, 1);
}

int IoRing::enable() {
  return register_with(fd_.get(), kRegisterEnable, nullptr, 0);
}

IoSubmission* IoRing::prepare() {
  if (tail_ - load(submission_head_) > submission_mask_) return nullptr;
  auto* all = reinterpret_cast<IoSubmission*>(submissions_.memory);
  IoSubmission* entry = &all[tail_++ & submission_mask_];
  std::memset(entry, 0, sizeof(*entry));
  return entry;
}

int IoRing::submit(bool wait) {
  store(submission_tail_, tail_);
  // Getting events is asked for also without waiting: deferred work runs only then.
  const uint32_t flags = kEnterGetEvents | enter_flags_;
  const long taken =
      ::syscall(SYS_io_uring_enter, fd_.get(), tail_ - submitted_, wait ? 1 : 0, flags, nullptr, 0);
  const int error = errno_of(taken);
  submitted_ = load(submission_head_);
  return error == EINTR ? 0 : error;
}

std::optional<IoCompletion> IoRing::complete() {
  const uint32_t head = *completion_head_;
  if (head == load(completion_tail_)) return std::nullopt;
  const IoCompletion completion = completions_[head & completion_mask_];
  store(completion_head_, head + 1);
  return completion;
}

bool IoRing::has_completion() const {
  return *completion_head_ != load(completion_tail_);
}

// The synchronous form of IORING_OP_MSG_RING, which needs no ring of the sender's own.
int IoRing::ring() const {
  IoSubmission message{};
  message.opcode = io_opcode::message;
  message.fd = fd_.get();
  std::memcpy(reinterpret_cast<std::byte*>(&message) + 8, &kRung,
              sizeof(kRung));  // the completion's user data
  return register_with(-1, kRegisterSendMessage, &message, 1);
}

}  // namespace penstock

// One io_uring: a queue of submissions and a queue of completions shared with the kernel. Only what the FUSE
// channel needs of it, straight over the system calls, since the distribution's <linux/io_uring.h> is older
// than the kernels that have it.
//
//   prepare() ... prepare() ──submit(wait)──> kernel ──> complete() ... complete()
//
// A ring belongs to one thread (IORING_SETUP_SINGLE_ISSUER | DEFER_TASKRUN): whoever first calls enable().
// The kernel finishes the thread's commands only inside submit(), in that thread, which is what makes one
// system call enough to hand over an answer, wait, and have the next request copied in. Every other thread
// may only ring(): post a completion that carries no result and ends the wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock {

// A submission of 128 bytes. Fields by their meaning for IORING_OP_URING_CMD.
struct IoSubmission {
  uint8_t opcode;
  uint8_t flags;
  uint16_t priority;
  int32_t fd;
  uint32_t command;
  uint32_t padding;
  uint64_t address;
  uint32_t length;
  uint32_t operation_flags;
  uint64_t user_data;
  uint8_t unused[8];
  std::byte payload[80];  // the command's own arguments
};
static_assert(sizeof(IoSubmission) == 128 && offsetof(IoSubmission, payload) == 48);

struct IoCompletion {
  uint64_t user_data;
  int32_t result;  // of the command; negative: an errno
  uint32_t flags;
};
static_assert(sizeof(IoCompletion) == 16);

namespace io_opcode {
inline constexpr uint8_t nop = 0;
inline constexpr uint8_t message = 40;
inline constexpr uint8_t command = 46;
}  // namespace io_opcode

class IoRing {
 public:
  // Completions of ring() carry this.
  static constexpr uint64_t kRung = UINT64_MAX;

  // ENOSYS and EINVAL where the kernel is too old (before 6.13), EPERM where it is forbidden.
  static Result<IoRing> create(uint32_t submissions, uint32_t completions);
  IoRing(IoRing&& other) noexcept;
  IoRing& operator=(IoRing&&) = delete;
  ~IoRing();

  // The one file that submissions name as fd 0 with kFixedFile. Before enable().
  static constexpr uint8_t kFixedFile = 1;
  int register_file(int fd);

  // ---- Of the owning thread.
  // Binds the ring to this thread. An errno.
  int enable();
  // A zeroed submission, or nullptr while `submissions` of them wait for submit().
  IoSubmission* prepare();
  uint32_t prepared() const { return tail_ - submitted_; }
  // Hands over what is prepared and, if `wait`, sleeps until there is a completion. An errno; EINTR is none.
  int submit(bool wait);
  std::optional<IoCompletion> complete();
  bool has_completion() const;

  // ---- Of any thread. An errno: EBADFD before enable().
  int ring() const;

 private:
  struct Mapping {
    std::byte* memory = nullptr;
    std::size_t length = 0;
    Mapping() = default;
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();
    int map(int fd, std::size_t bytes, uint64_t offset);
  };

  IoRing() = default;

  Fd fd_;
  Mapping queues_;
  Mapping submissions_;
  uint32_t* submission_head_ = nullptr;  // the kernel's
  uint32_t* submission_tail_ = nullptr;
  uint32_t* completion_head_ = nullptr;
  uint32_t* completion_tail_ = nullptr;  // the kernel's
  IoCompletion* completions_ = nullptr;
  uint32_t submission_mask_ = 0;
  uint32_t completion_mask_ = 0;
  uint32_t tail_ = 0;       // prepared up to here
  uint32_t submitted_ = 0;  // taken by the kernel up to here
  uint32_t enter_flags_ = 0;
};

}  // namespace penstock

// Locks of open file descriptions (fcntl OFD) and of flock: both conflict between two handles of one process,
// so that a program can meet its own locks. Never waited for.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <functional>

#include "fsop.h"

namespace fsop {
namespace {

constexpr int kReleaseMsMax = 100;

// Through FUSE a close is told to the file system after close(2) returned: the locks of a handle just closed
// may be seen for a moment. They are given that moment, once after each close.
std::string try_lock(const std::function<int()>& lock) {
  int outcome = lock();
  for (int waited = 0; closed_lately && outcome != 0 && errno == EAGAIN && waited < kReleaseMsMax; ++waited) {
    usleep(1000);
    outcome = lock();
  }
  if (outcome != 0 && errno == EAGAIN) {
    closed_lately = false;
    errno = EAGAIN;
  }
  return result(outcome);
}

std::string lock_range(Arguments a) {
  struct flock range {};
  range.l_type = a[1] == "r" ? F_RDLCK : a[1] == "w" ? F_WRLCK : F_UNLCK;
  range.l_whence = SEEK_SET;
  range.l_start = number(a[2]);
  range.l_len = number(a[3]);
  int const fd = slot_of(a[0]).fd;
  return try_lock([&] { return fcntl(fd, F_OFD_SETLK, &range); });
}

std::string lock_file(Arguments a) {
  int const kind = a[1] == "r" ? LOCK_SH : a[1] == "w" ? LOCK_EX : LOCK_UN;
  int const fd = slot_of(a[0]).fd;
  return try_lock([&] { return flock(fd, kind | LOCK_NB); });
}

// Who would be in the way: kind and range, not the process.
std::string query_range(Arguments a) {
  struct flock range {};
  range.l_type = a[1] == "r" ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = number(a[2]);
  range.l_len = number(a[3]);
  if (fcntl(slot_of(a[0]).fd, F_OFD_GETLK, &range) != 0) return failure();
  // Which of several conflicting locks is named is free; that there is one is not.
  return ok(range.l_type == F_UNLCK ? "free" : "taken");
}

}  // namespace

void add_lock_operations(std::map<std::string, Operation>& operations) {
  operations["lock"] = lock_range;
  operations["flock"] = lock_file;
  operations["getlock"] = query_range;
}

}  // namespace fsop

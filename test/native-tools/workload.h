// What the workloads share: random operations on a mount, one system call each, noted outside of it, until
// the daemon below it is gone.
//
//   B <operation>              begun
//   A <number> [<more>]        returned
//   F <number> <errno>         refused, though it should not be
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "daemon_gone.h"

namespace workload {

// Bytes that tell of which write they are and where they belong, and are never zero.
inline void pattern(uint8_t* bytes, std::size_t length, uint64_t seed, uint64_t offset) {
  for (std::size_t i = 0; i < length; ++i) {
    const uint64_t position = offset + i;
    uint64_t word = (position / 8 + 1) * 0x9e3779b97f4a7c15 + seed * 0xd1342543de82ef95;
    word ^= word >> 31;
    bytes[i] = static_cast<uint8_t>((word >> (8 * (position % 8))) | 1);
  }
}

// Writes the pattern at `offset`, or at the end of a file opened to append, where `offset` is. A write may
// come back short when the daemon dies between two requests of it; the rest then says so.
inline int write_pattern(int fd, uint64_t offset, uint64_t length, uint64_t seed, bool at_end) {
  std::vector<uint8_t> bytes(length);
  pattern(bytes.data(), bytes.size(), seed, offset);
  for (uint64_t done = 0; done < length;) {
    const uint8_t* from = bytes.data() + done;
    const ssize_t count = at_end ? write(fd, from, length - done)
                                 : pwrite(fd, from, length - done, static_cast<off_t>(offset + done));
    if (count <= 0) return -1;
    done += static_cast<uint64_t>(count);
  }
  return 0;
}

// Makes the directory that the workload lives in; answers the log, or -1 when it has said why not.
inline int begin(const std::string& root, const std::string& log) {
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd >= 0 && mkdir(root.c_str(), 0755) == 0) return fd;
  std::perror(root.c_str());
  if (fd >= 0) close(fd);
  return -1;
}

// `Operation` has a number and a line().
template <typename Operation>
class Workload {
 public:
  Workload(std::string root, int log, uint64_t seed) : root_(std::move(root)), log_(log), random_(seed) {}
  virtual ~Workload() = default;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  // Until the file system goes away: 0. 3: an operation that must succeed failed. 4: the log can't be
  // written.
  int loop() {
    for (;;) {
      Operation operation = choose();
      operation.number = ++number_;
      if (!note(operation.line())) return 4;
      if (perform(operation) != 0) {
        const int error = errno;
        if (is_daemon_gone(error)) return 0;
        note("F " + std::to_string(number_) + " " + std::to_string(error) + "\n");
        return 3;
      }
      if (!note("A " + std::to_string(number_) + outcome() + "\n")) return 4;
      remember(operation);
    }
  }

 protected:
  virtual Operation choose() = 0;
  // 0, or -1 with errno, as the system call answered.
  virtual int perform(const Operation& operation) = 0;
  // What else the log is to say of the operation that has just returned.
  virtual std::string outcome() const { return ""; }
  virtual void remember(const Operation& operation) = 0;

  uint64_t below(uint64_t bound) { return random_() % bound; }
  std::string full(const std::string& path) const { return root_ + "/" + path; }
  uint64_t number() const { return number_; }

 private:
  bool note(const std::string& text) {
    return write(log_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }

  const std::string root_;
  const int log_;
  std::mt19937_64 random_;
  uint64_t number_ = 0;
};

}  // namespace workload

// Operations on the bytes of files through handles: a handle lives in a numbered slot; an empty slot answers
// EBADF.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fsop.h"

namespace fsop {
namespace {

struct Range {
  int64_t offset;
  size_t length;
};

// O_DIRECT wants alignment on some file systems and not on others: programs are aligned here, alike on both
// sides.
Range aligned(const Slot& slot, int64_t offset, int64_t length) {
  if (!slot.direct) return {offset, static_cast<size_t>(length)};
  return {offset & ~int64_t{4095}, static_cast<size_t>(std::max<int64_t>(4096, length & ~int64_t{4095}))};
}

std::string open_file(Arguments a) {
  Slot& slot = slot_of(a[0]);
  if (slot.fd >= 0) return "err SLOTBUSY";
  std::string const& letters = a[2];
  auto const has = [&letters](char c) { return letters.find(c) != std::string::npos; };
  int flags = has('b') ? O_RDWR : has('w') ? O_WRONLY : O_RDONLY;
  // A fifo must not block the server.
  flags |= O_NONBLOCK | O_CLOEXEC;
  if (has('c')) flags |= O_CREAT;
  if (has('x')) flags |= O_EXCL;
  if (has('t')) flags |= O_TRUNC;
  if (has('a')) flags |= O_APPEND;
  if (has('d')) flags |= O_DIRECT;
  if (has('n')) flags |= O_NOFOLLOW;
  if (has('D')) flags |= O_DIRECTORY;
  if (has('p')) flags |= O_PATH;
  int const fd = open(decode(a[1]).c_str(), flags, static_cast<mode_t>(std::stoul("0" + a[3], nullptr, 8)));
  if (fd < 0) return failure();
  slot.fd = fd;
  slot.direct = has('d');
  return ok();
}

std::string read_at(Arguments a) {
  Slot const& slot = slot_of(a[0]);
  Range const range = aligned(slot, number(a[1]), number(a[2]));
  uint8_t* const bytes = scratch(range.length);
  // A short read in the middle of a file is legal but no file system here does it; it would show as a
  // difference.
  ssize_t const count = pread(slot.fd, bytes, range.length, range.offset);
  return count < 0 ? failure() : ok(digest({bytes, static_cast<size_t>(count)}));
}

std::string write_at(Arguments a) {
  Slot const& slot = slot_of(a[0]);
  Range const range = aligned(slot, number(a[1]), number(a[2]));
  uint8_t* const bytes = scratch(range.length);
  fill({bytes, range.length}, static_cast<uint64_t>(number(a[3])), static_cast<uint64_t>(range.offset));
  return result(pwrite(slot.fd, bytes, range.length, range.offset));
}

std::string read_here(Arguments a) {
  Slot const& slot = slot_of(a[0]);
  if (slot.direct) return "ok direct";
  size_t const length = static_cast<size_t>(number(a[1]));
  uint8_t* const bytes = scratch(length);
  ssize_t const count = read(slot.fd, bytes, length);
  return count < 0 ? failure() : ok(digest({bytes, static_cast<size_t>(count)}));
}

std::string write_here(Arguments a) {
  Slot const& slot = slot_of(a[0]);
  if (slot.direct) return "ok direct";
  size_t const length = static_cast<size_t>(number(a[1]));
  uint8_t* const bytes = scratch(length);
  fill({bytes, length}, static_cast<uint64_t>(number(a[2])), 0);
  ssize_t const count = write(slot.fd, bytes, length);
  if (count < 0) return failure();
  // Where O_APPEND put it.
  return ok(std::to_string(count) + "@" + std::to_string(lseek(slot.fd, 0, SEEK_CUR)));
}

std::string allocate(Arguments a) {
  int mode = 0;
  if (a[1] == "keep") mode = FALLOC_FL_KEEP_SIZE;
  if (a[1] == "punch") mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (a[1] == "zero") mode = FALLOC_FL_ZERO_RANGE;
  if (a[1] == "zerokeep") mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  return result(fallocate(slot_of(a[0]).fd, mode, number(a[2]), number(a[3])));
}

std::string copy_range(Arguments a) {
  // The kernel may copy through pages of its own and then wants the alignment of O_DIRECT or not, as it
  // likes.
  if (slot_of(a[0]).direct || slot_of(a[2]).direct) return "ok direct";
  off_t from = number(a[1]);
  off_t to = number(a[3]);
  int64_t left = number(a[4]);
  int64_t copied = 0;
  while (left > 0) {
    ssize_t const count =
        copy_file_range(slot_of(a[0]).fd, &from, slot_of(a[2]).fd, &to, static_cast<size_t>(left), 0);
    if (count < 0) return failure();
    if (count == 0) break;
    left -= count;
    copied += count;
  }
  return ok(std::to_string(copied));
}

// With PLANT=tail in the environment a file that grows shows a stale byte behind its old end: the fault that
// the harness must find to be believed.
std::string set_size(Arguments a) {
  static const char* const plant = getenv("PLANT");
  int const fd = slot_of(a[0]).fd;
  struct stat before;
  bool const known = fstat(fd, &before) == 0;
  int64_t const size = number(a[1]);
  int const outcome = ftruncate(fd, size);
  std::string const answer = result(outcome);
  if (plant != nullptr && std::string(plant) == "tail" && outcome == 0 && known && size > before.st_size &&
      before.st_size % 4096 != 0 && pwrite(fd, "!", 1, before.st_size) < 0) {
    return failure();
  }
  return answer;
}

// Walks data and holes. Their boundaries are the file system's own business; that every hole reads as zeros,
// that the pieces cover the file in order, and that there is nothing beyond the end, is not.
std::string seek_map(Arguments a) {
  Slot const& slot = slot_of(a[0]);
  struct stat status;
  if (fstat(slot.fd, &status) != 0) return failure();
  if (!S_ISREG(status.st_mode)) return "ok special";
  if ((fcntl(slot.fd, F_GETFL) & O_ACCMODE) == O_WRONLY) return "ok write-only";
  off_t const position = lseek(slot.fd, 0, SEEK_CUR);
  if (position < 0) return failure();
  // Stores through a mapping reach a file system in user space at writeback; until then it cannot know of
  // them.
  if (fsync(slot.fd) != 0) return failure();
  std::string verdict = ok();
  off_t at = 0;
  while (at < status.st_size && verdict == "ok") {
    off_t data = lseek(slot.fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) data = status.st_size;
    if (data < at) return "err BADDATA " + std::to_string(at);
    for (off_t hole = at & ~off_t{4095}; hole < data; hole += 4096) {
      uint8_t* const bytes = scratch(4096);
      ssize_t const count = pread(slot.fd, bytes, 4096, hole);
      for (ssize_t i = std::max<off_t>(0, at - hole); i < std::min<off_t>(count, data - hole); ++i) {
        if (bytes[i] != 0) verdict = "err DATAINHOLE " + std::to_string(hole + i);
      }
    }
    if (data >= status.st_size) break;
    at = lseek(slot.fd, data, SEEK_HOLE);
    if (at <= data || at > status.st_size) return "err BADHOLE " + std::to_string(data);
  }
  if (lseek(slot.fd, status.st_size, SEEK_DATA) >= 0 || errno != ENXIO) return "err SEEKPASTEND";
  lseek(slot.fd, position, SEEK_SET);
  return verdict;
}

// `count` processes write interleaved blocks of one file through handles of their own and read theirs back.
std::string parallel(Arguments a) {
  std::string const path = decode(a[0]);
  int64_t const count = std::clamp<int64_t>(number(a[1]), 1, 8);
  int64_t const blocks = number(a[2]);
  int64_t const size = number(a[3]);
  uint64_t const seed = static_cast<uint64_t>(number(a[4]));
  std::vector<pid_t> children;
  for (int64_t child = 0; child < count; ++child) {
    pid_t const pid = fork();
    if (pid < 0) return failure();
    if (pid == 0) {
      int const fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      if (fd < 0) _exit(200);
      std::vector<uint8_t> wrote(static_cast<size_t>(size));
      std::vector<uint8_t> read_back(wrote.size());
      for (int64_t i = 0; i < blocks; ++i) {
        // 7 is coprime with the even block counts in use: a scattered order that visits each block once.
        int64_t const block = (i * 7 + child) % blocks;
        if (block % count != child) continue;
        fill(wrote, seed, static_cast<uint64_t>(block * size));
        if (pwrite(fd, wrote.data(), wrote.size(), block * size) != size) _exit(errno);
        if (pread(fd, read_back.data(), read_back.size(), block * size) != size) _exit(202);
        if (wrote != read_back) _exit(203);
      }
      _exit(close(fd) == 0 ? 0 : 204);
    }
    children.push_back(pid);
  }
  std::string verdict;
  for (pid_t const pid : children) {
    int status = 0;
    waitpid(pid, &status, 0);
    verdict += (verdict.empty() ? "" : ",") + std::to_string(WEXITSTATUS(status));
  }
  return ok(verdict);
}

}  // namespace

void add_data_operations(std::map<std::string, Operation>& operations) {
  operations["open"] = open_file;
  operations["close"] = [](Arguments a) {
    Slot& slot = slot_of(a[0]);
    int const fd = slot.fd;
    slot.fd = -1;
    slot.direct = false;
    closed_lately = true;
    return result(close(fd));
  };
  operations["pread"] = read_at;
  operations["pwrite"] = write_at;
  operations["read"] = read_here;
  operations["write"] = write_here;
  operations["lseek"] = [](Arguments a) { return result(lseek(slot_of(a[0]).fd, number(a[1]), SEEK_SET)); };
  operations["ftruncate"] = set_size;
  operations["truncate"] = [](Arguments a) { return result(truncate(decode(a[0]).c_str(), number(a[1]))); };
  operations["fallocate"] = allocate;
  operations["copy"] = copy_range;
  operations["fsync"] = [](Arguments a) { return result(fsync(slot_of(a[0]).fd)); };
  operations["fdatasync"] = [](Arguments a) { return result(fdatasync(slot_of(a[0]).fd)); };
  operations["seekmap"] = seek_map;
  operations["parallel"] = parallel;
}

}  // namespace fsop

// The random workload. It ends with 0 when the daemon below it is gone, with 3 when an operation that must
// succeed failed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "powerload.h"
#include "workload.h"

namespace powerload {
namespace {

constexpr uint64_t kDirectories = 4;
constexpr uint64_t kNames = 8;  // in each
constexpr uint64_t kSmallBytes = 40'000;
constexpr uint64_t kLargeBytes = 4 << 20;
constexpr uint64_t kWriteBytes = 200 << 10;

class PowerWorkload final : public workload::Workload<Operation> {
 public:
  using Workload::Workload;
  ~PowerWorkload() override {
    for (auto& [inode, fd] : open_) close(fd);
  }

 private:
  bool exists(const std::string& path) const { return model_.names.contains(path); }
  std::string some_directory() { return "d" + std::to_string(below(kDirectories)); }

  Operation choose() override {
    Operation operation;
    operation.seed = 1 + below(1'000'000'000);
    const std::string directory = some_directory();
    operation.path = directory;
    if (!exists(directory)) {
      operation.verb = "mkdir";
      return operation;
    }
    const uint64_t kind = below(100);
    if (kind < 4) {
      operation.verb = "fsync";  // of the directory
      return operation;
    }
    operation.other = some_directory();
    if (kind < 5 && !exists(operation.other)) {
      operation.verb = "rename";
      return operation;
    }
    operation.other = "-";
    const uint64_t which = below(kNames);
    operation.path += "/f" + std::to_string(which);
    if (!exists(operation.path)) {
      operation.verb = "create";
      return operation;
    }
    choose_for_file(operation, which % 2 == 0);
    return operation;
  }

  void choose_for_file(Operation& operation, bool small) {
    const uint64_t size = model_.file(operation.path).bytes.size();
    const uint64_t dice = below(100);
    if (dice < 5) {
      operation.verb = "unlink";
    } else if (dice < 12) {
      const std::string directory = some_directory();
      operation.verb = exists(directory) ? "rename" : "fsync";
      if (exists(directory)) operation.other = directory + "/f" + std::to_string(below(kNames));
    } else if (dice < 24) {
      operation.verb = "fsync";
    } else if (dice < 31) {
      operation.verb = "truncate";
      operation.length = below(4) == 0 ? 0 : below(size + 10'000);
    } else if (dice < 35) {
      operation.verb = "punch";
      operation.offset = below(size + 1);
      operation.length = 1 + below(100'000);
    } else {
      const uint64_t bound = small ? kSmallBytes : kLargeBytes;
      operation.verb = below(3) == 0 && size < bound ? "append" : "write";
      operation.length = 1 + below(small ? 9000 : kWriteBytes);
      operation.offset = operation.verb == "append" ? size : below(bound);
    }
  }

  // Every second inode keeps a handle, the others are opened anew each time.
  int handle(const std::string& path, int flags, uint64_t inode, bool& is_kept) {
    const auto found = open_.find(inode);
    is_kept = flags == O_RDWR && inode % 2 == 0;
    if (is_kept && found != open_.end()) return found->second;
    const int fd = open(full(path).c_str(), flags | O_CLOEXEC);
    if (fd >= 0 && is_kept) open_[inode] = fd;
    return fd;
  }

  int perform(const Operation& operation) override {
    made_ = 0;
    const std::string& verb = operation.verb;
    const std::string path = full(operation.path);
    if (verb == "unlink") return unlink(path.c_str());
    if (verb == "rename") return rename(path.c_str(), full(operation.other).c_str());
    if (verb == "mkdir" || verb == "create") {
      if (verb == "mkdir" && mkdir(path.c_str(), 0755) != 0) return -1;
      const int flags = verb == "mkdir" ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT | O_EXCL;
      const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
      struct stat status {};
      if (fd < 0 || fstat(fd, &status) != 0) return -1;
      made_ = status.st_ino;
      return close(fd);
    }
    const uint64_t target = model_.names.at(operation.path);
    const bool is_directory = model_.files.at(target).is_directory;
    const int flags = is_directory ? O_RDONLY | O_DIRECTORY : verb == "append" ? O_RDWR | O_APPEND : O_RDWR;
    bool is_kept = false;
    const int fd = handle(operation.path, flags, target, is_kept);
    if (fd < 0) return -1;
    const int result = change(fd, operation);
    const int error = errno;
    // What `close` says is no news of this operation; it may fail because the daemon has gone since.
    if (!is_kept) close(fd);
    errno = error;
    return result;
  }

  int change(int fd, const Operation& operation) {
    const std::string& verb = operation.verb;
    if (verb == "fsync") return below(2) == 0 ? fsync(fd) : fdatasync(fd);
    if (verb == "truncate") return ftruncate(fd, static_cast<off_t>(operation.length));
    if (verb == "punch") {
      return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(operation.offset),
                       static_cast<off_t>(operation.length));
    }
    return workload::write_pattern(fd, operation.offset, operation.length, operation.seed, verb == "append");
  }

  std::string outcome() const override { return " " + std::to_string(made_); }

  // The workload needs sizes and names only; older states are the verifier's matter.
  void remember(const Operation& operation) override {
    model_.apply(operation, made_);
    const auto found = model_.names.find(operation.path);
    if (found != model_.names.end()) model_.files.at(found->second).sync();
  }

  uint64_t made_ = 0;  // the inode of what the operation made
  Model model_;
  std::map<uint64_t, int> open_;
};

}  // namespace

int run(const std::string& root, const std::string& log, uint64_t seed) {
  const int fd = workload::begin(root, log);
  if (fd < 0) return 2;
  // The directory itself is there whenever anything below it was ever acknowledged.
  const int directory = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || fsync(directory) != 0) {
    std::perror(root.c_str());
    return is_daemon_gone(errno) ? 0 : 2;
  }
  close(directory);
  const int outcome = PowerWorkload(root, fd, seed).loop();
  close(fd);
  return outcome;
}

}  // namespace powerload

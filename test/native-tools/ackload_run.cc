// The random workload. It ends with 0 when the daemon below it is gone, with 3 when an operation that must
// succeed failed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "ackload.h"
#include "daemon_gone.h"

namespace ackload {
namespace {

constexpr int kNames = 20;
constexpr int64_t kSmallBytes = 40'000;
constexpr int64_t kLargeBytes = 6 << 20;
constexpr int64_t kWriteBytes = 256 << 10;

class Workload {
 public:
  Workload(std::string root, int log, uint64_t seed) : root_(std::move(root)), log_(log), random_(seed) {}
  ~Workload() {
    for (auto& [name, fd] : open_) close(fd);
  }

  // Until the file system goes away.
  int loop() {
    for (;;) {
      Operation operation = choose();
      operation.number = ++number_;
      if (!note(operation.line())) return 4;
      if (perform(operation) != 0) {
        int const error = errno;
        if (is_daemon_gone(error)) return 0;
        note("F " + std::to_string(number_) + " " + std::to_string(error) + "\n");
        return 3;
      }
      if (!note("A " + std::to_string(number_) + "\n")) return 4;
      remember(operation);
    }
  }

 private:
  uint64_t below(uint64_t bound) { return random_() % bound; }
  std::string some_name() { return "f" + std::to_string(below(kNames)); }
  bool note(const std::string& text) {
    return write(log_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }
  std::string path(const std::string& name) const { return root_ + "/" + name; }

  Operation choose() {
    Operation operation;
    operation.name = some_name();
    operation.seed = 1 + below(1'000'000);
    auto const size = sizes_.find(operation.name);
    if (size == sizes_.end()) {
      operation.verb = below(20) == 0 ? "symlink" : "create";
      if (operation.verb == "symlink") operation.other = "target" + std::to_string(operation.seed);
      return operation;
    }
    uint64_t const dice = below(100);
    if (links_.contains(operation.name) || dice < 6) {
      operation.verb = "unlink";
    } else if (dice < 14) {
      operation.verb = "rename";
      operation.other = some_name();
    } else if (dice < 17) {
      operation.other = some_name();
      operation.verb = sizes_.contains(operation.other) ? "fsync" : "link";
    } else if (dice < 23) {
      operation.verb = "fsync";
    } else if (dice < 28) {
      operation.verb = "truncate";
      operation.length = static_cast<int64_t>(below(static_cast<uint64_t>(size->second) + 10'000));
    } else if (dice < 31) {
      operation.verb = "chmod";
      operation.length = static_cast<int64_t>(0600 + below(0100));
    } else if (dice < 35) {
      operation.verb = "punch";
      operation.offset = static_cast<int64_t>(below(static_cast<uint64_t>(size->second) + 1));
      operation.length = static_cast<int64_t>(1 + below(100'000));
    } else {
      operation.verb = "write";
      // Half the names stay small, half become large.
      bool const small = operation.name.back() % 2 == 0;
      operation.length = static_cast<int64_t>(1 + below(small ? 9000 : kWriteBytes));
      bool const append = below(3) == 0 && size->second < (small ? kSmallBytes : kLargeBytes);
      operation.offset =
          append ? size->second : static_cast<int64_t>(below(small ? kSmallBytes : kLargeBytes));
    }
    return operation;
  }

  // Every second file is written through a handle that stays open, every other one through a new handle each
  // time.
  int handle(const std::string& name) {
    auto const found = open_.find(name);
    if (found != open_.end()) return found->second;
    int const fd = open(path(name).c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) open_[name] = fd;
    return fd;
  }

  int perform(const Operation& operation) {
    std::string const& verb = operation.verb;
    std::string const file = path(operation.name);
    if (verb == "create") {
      int const fd = open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (fd < 0) return -1;
      open_[operation.name] = fd;
      return 0;
    }
    if (verb == "symlink") return symlink(operation.other.c_str(), file.c_str());
    if (verb == "link") return link(file.c_str(), path(operation.other).c_str());
    if (verb == "rename") return rename(file.c_str(), path(operation.other).c_str());
    if (verb == "unlink") return unlink(file.c_str());
    if (verb == "chmod") return chmod(file.c_str(), static_cast<mode_t>(operation.length));
    int const fd = handle(operation.name);
    if (fd < 0) return -1;
    if (verb == "fsync") return fsync(fd);
    if (verb == "truncate") return ftruncate(fd, operation.length);
    if (verb == "punch") {
      int const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      return fallocate(fd, mode, operation.offset, operation.length);
    }
    std::vector<uint8_t> bytes(static_cast<size_t>(operation.length));
    pattern(bytes.data(), bytes.size(), operation.seed, static_cast<uint64_t>(operation.offset));
    // A short write is no error: the next one tells whether the file system is full or gone.
    for (size_t at = 0; at < bytes.size();) {
      off_t const place = operation.offset + static_cast<off_t>(at);
      ssize_t const count = pwrite(fd, bytes.data() + at, bytes.size() - at, place);
      if (count < 0) return -1;
      at += static_cast<size_t>(count);
    }
    return 0;
  }

  void drop_handle(const std::string& name) {
    auto const found = open_.find(name);
    if (found == open_.end()) return;
    close(found->second);
    open_.erase(found);
  }

  void remember(const Operation& operation) {
    model_.apply(operation);
    std::string const& verb = operation.verb;
    if (verb == "unlink" || verb == "rename") drop_handle(operation.name);
    if (verb == "rename") drop_handle(operation.other);
    if ((number_ & 1) == 0) drop_handle(operation.name);
    sizes_.clear();
    links_.clear();
    for (const auto& [name, file] : model_.names) {
      sizes_[name] = static_cast<int64_t>(file->bytes.size());
      if (!file->target.empty()) links_.insert({name, file->target});
    }
  }

  std::string const root_;
  int const log_;
  std::mt19937_64 random_;
  uint64_t number_ = 0;
  Model model_;
  std::map<std::string, int64_t> sizes_;
  std::map<std::string, std::string> links_;
  std::map<std::string, int> open_;
};

}  // namespace

int run(const std::string& root, const std::string& log, uint64_t seed) {
  int const fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0 || mkdir(root.c_str(), 0755) != 0) {
    std::perror(root.c_str());
    return 2;
  }
  int const outcome = Workload(root, fd, seed).loop();
  close(fd);
  return outcome;
}

}  // namespace ackload

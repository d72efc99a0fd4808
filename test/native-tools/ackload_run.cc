// The random workload. It ends with 0 when the daemon below it is gone, with 3 when an operation that must
// succeed failed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ackload.h"
#include "workload.h"

namespace ackload {
namespace {

constexpr int kNames = 20;
constexpr int64_t kSmallBytes = 40'000;
constexpr int64_t kLargeBytes = 6 << 20;
constexpr int64_t kWriteBytes = 256 << 10;

class AckWorkload final : public workload::Workload<Operation> {
 public:
  using Workload::Workload;
  ~AckWorkload() override {
    for (auto& [name, fd] : open_) close(fd);
  }

 private:
  std::string some_name() { return "f" + std::to_string(below(kNames)); }

  Operation choose() override {
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
    int const fd = open(full(name).c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) open_[name] = fd;
    return fd;
  }

  int perform(const Operation& operation) override {
    std::string const& verb = operation.verb;
    std::string const file = full(operation.name);
    if (verb == "create") {
      int const fd = open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (fd < 0) return -1;
      open_[operation.name] = fd;
      return 0;
    }
    if (verb == "symlink") return symlink(operation.other.c_str(), file.c_str());
    if (verb == "link") return link(file.c_str(), full(operation.other).c_str());
    if (verb == "rename") return rename(file.c_str(), full(operation.other).c_str());
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
    return workload::write_pattern(fd, static_cast<uint64_t>(operation.offset),
                                   static_cast<uint64_t>(operation.length), operation.seed, false);
  }

  void drop_handle(const std::string& name) {
    auto const found = open_.find(name);
    if (found == open_.end()) return;
    close(found->second);
    open_.erase(found);
  }

  void remember(const Operation& operation) override {
    model_.apply(operation);
    std::string const& verb = operation.verb;
    if (verb == "unlink" || verb == "rename") drop_handle(operation.name);
    if (verb == "rename") drop_handle(operation.other);
    if ((number() & 1) == 0) drop_handle(operation.name);
    sizes_.clear();
    links_.clear();
    for (const auto& [name, file] : model_.names) {
      sizes_[name] = static_cast<int64_t>(file->bytes.size());
      if (!file->target.empty()) links_.insert({name, file->target});
    }
  }

  Model model_;
  std::map<std::string, int64_t> sizes_;
  std::map<std::string, std::string> links_;
  std::map<std::string, int> open_;
};

}  // namespace

int run(const std::string& root, const std::string& log, uint64_t seed) {
  int const fd = workload::begin(root, log);
  if (fd < 0) return 2;
  int const outcome = AckWorkload(root, fd, seed).loop();
  close(fd);
  return outcome;
}

}  // namespace ackload

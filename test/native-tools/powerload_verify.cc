// Compares a directory with what the log allows it to be after a power loss.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "powerload.h"

namespace powerload {
namespace {

constexpr std::size_t kHistoryBytesMax = 1500;

using Names = std::map<std::string, uint64_t>;

bool list(const std::string& root, const std::string& below, Names& names) {
  DIR* const directory = opendir((root + below).c_str());
  if (directory == nullptr) {
    std::printf("%s%s: %s\n", root.c_str(), below.c_str(), std::strerror(errno));
    return false;
  }
  bool good = true;
  while (const dirent* const entry = readdir(directory)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string path = below + "/" + name;
    struct stat status {};
    if (lstat((root + path).c_str(), &status) != 0) {
      std::printf("%s%s is listed: %s\n", root.c_str(), path.c_str(), std::strerror(errno));
      good = false;
      continue;
    }
    names[path.substr(1)] = status.st_ino;
    if (S_ISDIR(status.st_mode)) good = list(root, path, names) && good;
  }
  closedir(directory);
  return good;
}

std::string read_file(const std::string& path, std::vector<uint8_t>& bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd < 0 || fstat(fd, &status) != 0) return std::string("open: ") + std::strerror(errno);
  bytes.resize(static_cast<std::size_t>(status.st_size));
  std::size_t at = 0;
  std::string problem;
  while (at < bytes.size() && problem.empty()) {
    const ssize_t count = read(fd, bytes.data() + at, bytes.size() - at);
    if (count > 0) at += static_cast<std::size_t>(count);
    if (count == 0) problem = "read at " + std::to_string(at) + ": early end";
    if (count < 0) problem = "read at " + std::to_string(at) + ": " + std::strerror(errno);
  }
  close(fd);
  return problem;
}

std::string text_of(const Names& names) {
  std::string text;
  for (const auto& [path, inode] : names) text += path + "=" + std::to_string(inode) + " ";
  return text;
}

// The names in doubt of an operation that makes something: its inode is whatever is found there.
bool matches(const Names& found, const Names& expected, const Operation& in_doubt) {
  if (found == expected) return true;
  if (in_doubt.verb != "create" && in_doubt.verb != "mkdir") return false;
  Names with = expected;
  const auto made = found.find(in_doubt.path);
  if (made == found.end()) return false;
  with[in_doubt.path] = made->second;
  return found == with;
}

class Verifier {
 public:
  Verifier(std::string root, Names found)
      : root_(std::move(root)), found_(std::move(found)), names_seen_(found_.empty()) {}

  // False when the log itself says that something was refused.
  bool replay(const std::string& log) {
    std::ifstream input(log);
    std::string text;
    while (std::getline(input, text)) {
      std::istringstream words(text);
      std::string kind;
      uint64_t number = 0;
      words >> kind >> number;
      if (kind == "B") {
        Operation begun;
        begun.number = number;
        words >> begun.verb >> begun.path >> begun.other >> begun.offset >> begun.length >> begun.seed;
        if (words) in_doubt_ = begun;
      } else if (kind == "A" && in_doubt_ && in_doubt_->number == number) {
        uint64_t inode = 0;
        words >> inode;
        acknowledge(*in_doubt_, inode);
        in_doubt_.reset();
      } else if (kind == "F") {
        std::printf("refused: %s: %s", text.c_str(), in_doubt_ ? in_doubt_->line().c_str() : "\n");
        return false;
      }
    }
    if (in_doubt_) doubt(*in_doubt_);
    return true;
  }

  int judge() {
    if (!names_seen_) {
      std::printf(
          "%s: names are as never since the last sync (operation %llu of %llu)\nfound    %s\nsynced   "
          "%s\nlast     %s\n",
          root_.c_str(), static_cast<unsigned long long>(synced_at_),
          static_cast<unsigned long long>(acknowledged_), text_of(found_).c_str(), text_of(synced_).c_str(),
          text_of(model_.names).c_str());
      if (in_doubt_) std::printf("in doubt: %s", in_doubt_->line().c_str());
      return 1;
    }
    int wrong = 0;
    std::size_t bytes_read = 0;
    for (const auto& [path, inode] : found_) {
      const auto file = model_.files.find(inode);
      if (file == model_.files.end() || file->second.is_directory) continue;
      std::vector<uint8_t> bytes;
      std::string problem = read_file(root_ + "/" + path, bytes);
      if (problem.empty()) problem = file->second.judge(bytes);
      bytes_read += bytes.size();
      if (problem.empty()) continue;
      ++wrong;
      std::printf("%s/%s (inode %llu): %s\n", root_.c_str(), path.c_str(),
                  static_cast<unsigned long long>(inode), problem.c_str());
      std::string& done = history_[inode];
      if (done.size() > kHistoryBytesMax) done.erase(0, done.find('\n', done.size() - kHistoryBytesMax) + 1);
      std::printf("%slast sync of anything: %llu\n", done.c_str(),
                  static_cast<unsigned long long>(synced_at_));
    }
    if (wrong > 0) return 1;
    std::printf("%llu acknowledged, %llu syncs, %llu operations lost, %zu names, %zu bytes\n",
                static_cast<unsigned long long>(acknowledged_), static_cast<unsigned long long>(syncs_),
                static_cast<unsigned long long>(acknowledged_ - std::min(acknowledged_, names_at_)),
                found_.size(), bytes_read);
    return 0;
  }

 private:
  void acknowledge(const Operation& operation, uint64_t inode) {
    acknowledged_ = operation.number;
    remember(operation);
    model_.apply(operation, inode);
    if (operation.verb == "fsync") {
      ++syncs_;
      if (!model_.file(operation.path).is_directory) model_.file(operation.path).sync();
      synced_at_ = operation.number;
      synced_ = model_.names;
      names_seen_ = false;
    }
    if (found_ == model_.names) {
      names_seen_ = true;
      names_at_ = operation.number;
    }
  }

  // What was done to each file, for the report of a finding.
  void remember(const Operation& operation) {
    const auto target = model_.names.find(operation.path);
    if (target != model_.names.end()) history_[target->second] += operation.line();
  }

  // Begun and not acknowledged: it may have happened, or not, or a write in part.
  void doubt(const Operation& operation) {
    remember(operation);
    const std::string& verb = operation.verb;
    const bool is_content = verb == "write" || verb == "append" || verb == "truncate" || verb == "punch";
    if (is_content) {
      File& file = model_.file(operation.path);
      const uint64_t before = file.bytes.size();
      model_.apply(operation, 0);
      file.any_size_between(std::min<uint64_t>(before, file.bytes.size()),
                            std::max<uint64_t>(before, file.bytes.size()));
      return;
    }
    if (verb == "fsync") return;
    Model after = model_;
    after.apply(operation, 0);
    if (!names_seen_ && matches(found_, after.names, operation)) names_seen_ = true;
    if (names_seen_ && names_at_ == 0) names_at_ = operation.number;
  }

  const std::string root_;
  const Names found_;
  Model model_;
  std::optional<Operation> in_doubt_;
  std::map<uint64_t, std::string> history_;
  Names synced_;
  bool names_seen_;
  uint64_t names_at_ = 0;
  uint64_t synced_at_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t syncs_ = 0;
};

}  // namespace

int verify(const std::string& root, const std::string& log) {
  // The log begins after the directory was synced: before that it may be missing.
  if (std::ifstream(log).peek() == std::ifstream::traits_type::eof()) {
    std::printf("0 acknowledged\n");
    return 0;
  }
  Names found;
  if (!list(root, "", found)) return 1;
  Verifier verifier(root, std::move(found));
  if (!verifier.replay(log)) return 1;
  return verifier.judge();
}

}  // namespace powerload

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "run" && argc == 5)
    return powerload::run(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10));
  if (mode == "verify" && argc == 4) return powerload::verify(argv[2], argv[3]);
  std::fprintf(stderr, "usage: powerload run DIRECTORY LOG SEED | verify DIRECTORY LOG\n");
  return 2;
}

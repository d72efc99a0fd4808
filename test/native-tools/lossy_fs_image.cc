// From a directory to a disk, and from a disk that lost power to a directory.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "lossy_fs.h"

namespace lossy {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0)
      : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (fd_ < 0) fail(path);
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void load_file(Inode& file, const std::string& path) {
  const Descriptor fd(path, O_RDONLY);
  const off_t size = lseek(fd.get(), 0, SEEK_END);
  for (off_t at = 0; at < size;) {
    const off_t data = lseek(fd.get(), at, SEEK_DATA);
    if (data < 0) break;
    off_t const hole = lseek(fd.get(), data, SEEK_HOLE);
    for (at = data / 4096 * 4096; at < hole; at += static_cast<off_t>(kPageBytes)) {
      auto page = std::make_shared<PageBytes>();
      if (pread(fd.get(), page->data(), kPageBytes, at) < 0) fail(path);
      file.pages[static_cast<uint64_t>(at) / kPageBytes] = page;
    }
  }
  file.size = static_cast<uint64_t>(size);
}

struct CutRule {
  uint64_t journal_end;  // entries up to it survive
  double kept_share;     // of pages, in the version written last
};

// What became of one file. Walks its unsynced changes in order; `blocked`: pages that a lost truncate or
// punch gave new blocks to, which nothing points at.
void survive(const Inode& file, const CutRule& rule, std::mt19937_64& random, Pages& pages, uint64_t& size,
             CutReport& report) {
  const auto chance = [&](double share) { return std::uniform_real_distribution<>(0, 1)(random) < share; };
  // Each page was written back for the last time after this one of its writes.
  std::unordered_map<uint64_t, std::vector<uint64_t>> writes;
  for (const Change& change : file.changes) {
    if (change.kind == ChangeKind::write) writes[change.page].push_back(change.sequence);
  }
  std::unordered_map<uint64_t, uint64_t> written_back;
  for (const auto& [page, sequences] : writes) {
    const std::size_t kept = chance(rule.kept_share) ? sequences.size() : random() % (sequences.size() + 1);
    written_back[page] = kept == 0 ? 0 : sequences[kept - 1];
    report.unsynced_pages += 1;
    report.lost_pages += kept < sequences.size();
  }
  uint64_t blocked_from = UINT64_MAX;
  std::vector<std::pair<uint64_t, uint64_t>> blocked;
  const auto is_blocked = [&](uint64_t page) {
    return page >= blocked_from || std::any_of(blocked.begin(), blocked.end(), [&](const auto& range) {
             return page >= range.first && page < range.second;
           });
  };
  pages = file.durable_pages;
  size = file.durable_size;
  for (const Change& change : file.changes) {
    const bool committed = change.sequence <= rule.journal_end;
    switch (change.kind) {
      case ChangeKind::write:
        if (is_blocked(change.page)) break;
        if (change.sequence <= written_back[change.page]) {
          pages[change.page] = change.bytes;
          size = std::max(size, change.size);
        } else if (chance(0.1)) {
          size = std::max(size, change.size);
        }
        break;
      case ChangeKind::truncate:
        if (committed) {
          cut_pages(pages, change.size);
          size = change.size;
        } else {
          blocked_from = std::min(blocked_from, (change.size + kPageBytes - 1) / kPageBytes);
        }
        break;
      case ChangeKind::punch:
        if (committed) {
          pages.erase(pages.lower_bound(change.page), pages.lower_bound(change.page_end));
        } else {
          blocked.emplace_back(change.page, change.page_end);
        }
        break;
      case ChangeKind::grow:
        if (committed) size = std::max(size, change.size);
        break;
    }
  }
  cut_pages(pages, size);
}

}  // namespace

void Disk::load(const std::string& directory) {
  load_directory(root_, directory);
  root_->durable_entries = root_->entries;
}

void Disk::load_directory(const InodePtr& directory, const std::string& path) {
  DIR* const stream = opendir(path.c_str());
  if (stream == nullptr) fail(path);
  while (const dirent* const entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string below = path + "/" + name;
    struct stat status {};
    if (lstat(below.c_str(), &status) != 0) fail(below);
    const InodePtr inode = create(directory, name, status.st_mode);
    if (S_ISDIR(status.st_mode)) {
      load_directory(inode, below);
    } else {
      load_file(*inode, below);
    }
    inode->mtime = status.st_mtim;
    sync(*inode);
  }
  closedir(stream);
}

CutReport Disk::cut(uint64_t seed, const std::string& image) {
  std::mt19937_64 random(seed);
  CutReport report;
  for (const JournalEntry& entry : journal_) report.unsynced_names += entry.names.size();
  // The extremes are as interesting as what lies between.
  constexpr std::array kShares{0.0, 0.1, 0.5, 0.9, 1.0};
  kept_share_ = kShares[random() % kShares.size()];
  const uint64_t span = sequence_ - committed_;
  const uint64_t dice = random() % 4;
  commit(dice == 0 ? committed_ : dice == 1 ? sequence_ : committed_ + random() % (span + 1));
  for (const JournalEntry& entry : journal_) report.lost_names += entry.names.size();
  dump_directory(*root_, image, random, report);
  return report;
}

void Disk::dump_directory(const Inode& directory, const std::string& path, std::mt19937_64& random,
                          CutReport& report) {
  if (mkdir(path.c_str(), directory.mode & 07777) != 0) fail(path);
  for (const auto& [name, inode] : directory.durable_entries) {
    const std::string below = path + "/" + name;
    if (inode->is_directory()) {
      dump_directory(*inode, below, random, report);
    } else {
      dump_file(*inode, below, random, report);
    }
  }
}

void Disk::dump_file(const Inode& file, const std::string& path, std::mt19937_64& random,
                     CutReport& report) const {
  constexpr std::array kShares{0.0, 0.5, 1.0};
  // Half the files share the cut's character, the others have one of their own.
  const double share = random() % 2 == 0 ? kept_share_ : kShares[random() % kShares.size()];
  Pages pages;
  uint64_t size = 0;
  survive(file, {committed_, share}, random, pages, size, report);
  const Descriptor fd(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fchmod(fd.get(), file.mode & 07777) != 0) fail(path);
  for (const auto& [page, bytes] : pages) {
    if (pwrite(fd.get(), bytes->data(), kPageBytes, static_cast<off_t>(page * kPageBytes)) !=
        static_cast<ssize_t>(kPageBytes))
      fail(path);
  }
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) fail(path);
}

}  // namespace lossy

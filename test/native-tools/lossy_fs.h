// A disk that can lose power: a file system in memory that knows of every change whether it was synced, and
// at a cut leaves a directory with what a journalling file system may have kept.
//
//   durable state ── fsync ──<── unsynced changes, in order ──<── now (what programs see)
//        │                             │
//        └──────── cut: + a subset ────┘ ──> image directory, from which the next life loads
//
// The rules of a cut are those of ext4 in its default mode, the weaker choice wherever programs must not rely
// on more:
//   - Data goes page by page (4 KiB, atomic) in any order, each page as it was after any one of its writes
//   since
//     the last sync. A file grows with the pages that survive; it may also have grown without them and reads
//     as zeros there.
//   - Names (create, mkdir, unlink, rmdir, rename), truncate, hole punching and fallocate go through one
//   ordered
//     journal: any prefix of it survives. Data written where a lost truncate or punch took pages away is lost
//     too.
//   - Rename without fsync of the file may leave a new name with old, partial or no content.
//   - fsync and fdatasync make the file's data durable, and the journal up to the last entry about that file;
//   the
//     same for a directory. Entries about others after that are not promised.
//   - Modes and times are not part of the simulation: they are durable at once.
// Pages that a program dirtied through a shared mapping count from when the kernel writes them back.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace lossy {

inline constexpr uint64_t kPageBytes = 4096;
using PageBytes = std::array<uint8_t, kPageBytes>;
using Page = std::shared_ptr<const PageBytes>;  // null: a hole
using Pages = std::map<uint64_t, Page>;

// Pages beyond `size` go, and the rest of the last one becomes zero.
void cut_pages(Pages& pages, uint64_t size);

enum class ChangeKind : uint8_t { write, truncate, punch, grow };

// One unsynced change of a file's content. All but `write` are journal entries.
struct Change {
  ChangeKind kind = ChangeKind::write;
  uint64_t sequence = 0;
  uint64_t page = 0;      // write, punch: the first page
  uint64_t page_end = 0;  // punch
  uint64_t size = 0;      // write: its end; truncate, grow: the new size
  Page bytes;             // write
};

struct Inode;
using InodePtr = std::shared_ptr<Inode>;

struct Inode {
  uint64_t number = 0;
  mode_t mode = 0;
  timespec mtime{};
  uint64_t lookups = 0;
  uint64_t links = 0;  // as programs see it; directories have one

  uint64_t size = 0;
  Pages pages;
  std::map<std::string, InodePtr> entries;
  Inode* parent = nullptr;  // of a directory

  uint64_t durable_size = 0;
  Pages durable_pages;
  std::map<std::string, InodePtr> durable_entries;
  std::vector<Change> changes;
  uint64_t last_journal_sequence = 0;

  bool is_directory() const;
};

// Names that change together; a null inode removes the name.
struct NameChange {
  InodePtr directory;
  std::string name;
  InodePtr inode;
};
struct JournalEntry {
  uint64_t sequence = 0;
  std::vector<NameChange> names;
};

// What a cut did, for a test to judge whether it proves anything.
struct CutReport {
  uint64_t unsynced_pages = 0;
  uint64_t lost_pages = 0;
  uint64_t unsynced_names = 0;
  uint64_t lost_names = 0;
};

class Disk {
 public:
  Disk();
  const InodePtr& root() const { return root_; }

  InodePtr create(const InodePtr& directory, const std::string& name, mode_t mode);
  void remove(const InodePtr& directory, const std::string& name);
  void rename(const InodePtr& from, const std::string& name, const InodePtr& to, const std::string& new_name,
              bool exchange);
  void write(Inode& file, uint64_t offset, const uint8_t* bytes, uint64_t length);
  void read(const Inode& file, uint64_t offset, uint8_t* out, uint64_t length) const;
  void truncate(Inode& file, uint64_t size);
  void grow(Inode& file, uint64_t size);
  void punch(Inode& file, uint64_t offset, uint64_t length);
  void sync(Inode& inode);

  // Fills the disk from a directory, all of it durable; writes the durable image of a cut into another.
  void load(const std::string& directory);
  CutReport cut(uint64_t seed, const std::string& image);

 private:
  void load_directory(const InodePtr& directory, const std::string& path);
  void record(std::vector<NameChange> names);
  void commit(uint64_t sequence);
  void store_page(Inode& file, uint64_t page, uint64_t from, const uint8_t* bytes, uint64_t length);
  void note(Inode& file, Change change);
  void dump_directory(const Inode& directory, const std::string& path, std::mt19937_64& random,
                      CutReport& report);
  void dump_file(const Inode& file, const std::string& path, std::mt19937_64& random,
                 CutReport& report) const;

  InodePtr root_;
  uint64_t next_number_ = 1;
  uint64_t sequence_ = 0;
  uint64_t committed_ = 0;  // of the journal
  double kept_share_ = 0.5;
  std::deque<JournalEntry> journal_;
};

}  // namespace lossy

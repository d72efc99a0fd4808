// A workload that knows what was synced. `run` performs random operations below one directory and logs each
// of them outside the file system under test; `verify` replays the log and compares what a mount shows after
// a power loss with what it may show.
//
//   B <number> <verb> <path> <other> <offset> <length> <seed>      begun
//   A <number> <inode>                                             returned; the inode of what was made, else
//   0 F <number> <errno>                                             refused, though it should not be
//
// What may be there, by what a journalling file system promises and this one must too:
//   - Names: all of them exactly as after some operation that is not older than the last sync of any file or
//     directory: the past is consistent, and a sync covers every name that was acknowledged before it.
//   - Each page of a file: as it was at the file's last sync, or after any later write, truncate or punch.
//   - The size: the one at the last sync or after any later operation; a write may have happened in part, up
//     to a page's end.
// Bytes that the user never wrote to that place of that file are in none of these states, nor are zeros where
// there was data.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace powerload {

inline constexpr uint64_t kPageBytes = 4096;

struct Operation {
  uint64_t number = 0;
  std::string verb;
  std::string path;
  std::string other = "-";
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t seed = 0;

  std::string line() const;
};

// One file: its bytes now, and what its pages and size were since its last sync.
class File {
 public:
  bool is_directory = false;
  std::vector<uint8_t> bytes;

  void write(uint64_t offset, uint64_t length, uint64_t seed);
  void truncate(uint64_t size);
  void punch(uint64_t offset, uint64_t length);
  void sync();
  // Empty, or what is wrong with `found`.
  std::string judge(const std::vector<uint8_t>& found) const;
  // An operation that may have happened in part: any size between.
  void any_size_between(uint64_t low, uint64_t high) { size_ranges_.push_back({low, high, true}); }

 private:
  void remember(uint64_t first_page, uint64_t end_page);
  std::vector<uint8_t> page(uint64_t number) const;

  std::map<uint64_t, std::vector<std::vector<uint8_t>>> older_;
  struct SizeRange {
    uint64_t low = 0;
    uint64_t high = 0;
    bool is_any = true;  // else multiples of a page only
  };
  std::vector<SizeRange> size_ranges_;
};

// Paths to inodes, as they are after the operations applied so far.
struct Model {
  std::map<std::string, uint64_t> names;
  std::map<uint64_t, File> files;

  // `inode`: of what the operation makes.
  void apply(const Operation& operation, uint64_t inode);
  File& file(const std::string& path) { return files.at(names.at(path)); }
};

int run(const std::string& root, const std::string& log, uint64_t seed);
int verify(const std::string& root, const std::string& log);

}  // namespace powerload

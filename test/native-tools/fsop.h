// A system-call server: reads one operation a line on standard input, performs it below the root given as
// argument, answers one line. Node has no renameat2, fallocate, mmap or lseek(SEEK_HOLE), and a random
// program must cost milliseconds; two of these servers, one per root, run the same program and their answers
// are compared as text.
//
//   request   verb arg arg ...        names are bytes, percent-encoded (an empty one is a lone "%")
//   answer    ok value value ...      or   err ENOENT
//
// Nothing that differs between two right file systems may enter an answer: no inode numbers, no block counts,
// no times that are not set explicitly, no directory sizes, no order of directory entries.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace fsop {

using Arguments = std::span<const std::string>;

struct Slot {
  int fd = -1;
  bool direct = false;
  void* mapping = nullptr;
  size_t mapping_length = 0;
  // A mapping outlives the handle it was made by, and another may have taken its place.
  bool mapping_writable = false;
  ino_t mapped_file = 0;
};

inline constexpr size_t kSlots = 16;
// Times before this second were set by the program; later ones are "now".
inline constexpr int64_t kExplicitTimeLimit = 1'300'000'000;

extern std::array<Slot, kSlots> slots;
// A handle was closed since a lock was last refused.
extern bool closed_lately;

Slot& slot_of(const std::string& text);
int64_t number(const std::string& text);
std::string encode(std::string_view bytes);
std::string decode(std::string_view text);

std::string ok(const std::string& value = "");
std::string failure(int error = errno);
// `ok value` for a result >= 0, `err NAME` for -1.
std::string result(int64_t value);

// One description of a file for stat, fstat and the final tree. `follow` is not part of it.
std::string describe(const struct stat& status);

// Digests of each 4 KiB of `bytes`, comma-separated, runs of equal ones written once as digest*count; a page
// of zeros is "0". The answer then says which page differs and whether one side read zeros.
std::string digest(std::span<const uint8_t> bytes);
// Byte `offset + i` of the pattern `seed`: depends on the position in the file, so that misplaced data is
// seen.
void fill(std::span<uint8_t> bytes, uint64_t seed, uint64_t offset);
// Page-aligned scratch space of at least `size` bytes, for O_DIRECT; valid until the next call.
uint8_t* scratch(size_t size);

void close_all();
std::string remove_tree(const std::string& path);
std::string tree();

using Operation = std::function<std::string(Arguments)>;
void add_data_operations(std::map<std::string, Operation>& operations);
void add_mapping_operations(std::map<std::string, Operation>& operations);
void add_lock_operations(std::map<std::string, Operation>& operations);
void add_name_operations(std::map<std::string, Operation>& operations);
void add_attribute_operations(std::map<std::string, Operation>& operations);

}  // namespace fsop

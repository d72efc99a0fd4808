// Operations on shared mappings. A store beyond the end of the file is left out (what becomes of it is
// undefined), a touch of a page that a truncate took away is SIGBUS and answered as such.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstring>

#include "fsop.h"

namespace fsop {
namespace {

sigjmp_buf bus_error;

void on_bus_error(int) {
  siglongjmp(bus_error, 1);
}

// The part of [offset, offset + length) that lies inside both the mapping and the file.
size_t inside(const Slot& slot, int64_t offset, int64_t length) {
  struct stat status;
  if (fstat(slot.fd, &status) != 0 || status.st_ino != slot.mapped_file) return 0;
  int64_t const end =
      std::min({offset + length, static_cast<int64_t>(slot.mapping_length), int64_t{status.st_size}});
  return end > offset ? static_cast<size_t>(end - offset) : 0;
}

std::string map(Arguments a) {
  Slot& slot = slot_of(a[0]);
  if (slot.mapping != nullptr) return "err MAPPED";
  bool const writable = (fcntl(slot.fd, F_GETFL) & O_ACCMODE) == O_RDWR;
  size_t const length = static_cast<size_t>(std::max<int64_t>(4096, number(a[1])));
  void* const mapping =
      mmap(nullptr, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, slot.fd, 0);
  struct stat status;
  if (mapping == MAP_FAILED || fstat(slot.fd, &status) != 0) return failure();
  slot.mapping_writable = writable;
  slot.mapped_file = status.st_ino;
  slot.mapping = mapping;
  slot.mapping_length = length;
  return ok();
}

std::string touch(Arguments a, bool store) {
  Slot& slot = slot_of(a[0]);
  if (slot.mapping == nullptr || slot.fd < 0) return "err UNMAPPED";
  if (store && !slot.mapping_writable) return "err READONLY";
  int64_t const offset = number(a[1]);
  size_t const length = inside(slot, offset, number(a[2]));
  uint8_t* const bytes = scratch(length);
  uint8_t* const mapped = static_cast<uint8_t*>(slot.mapping) + offset;
  if (length == 0) return "ok 0";
  if (store) fill({bytes, length}, static_cast<uint64_t>(number(a[3])), static_cast<uint64_t>(offset));
  if (sigsetjmp(bus_error, 1) != 0) return "err SIGBUS";
  if (store) {
    std::memcpy(mapped, bytes, length);
    return ok(std::to_string(length));
  }
  std::memcpy(bytes, mapped, length);
  return ok(digest({bytes, length}));
}

std::string unmap(Arguments a) {
  Slot& slot = slot_of(a[0]);
  if (slot.mapping == nullptr) return "err UNMAPPED";
  int const synced = msync(slot.mapping, slot.mapping_length, MS_SYNC);
  munmap(slot.mapping, slot.mapping_length);
  slot.mapping = nullptr;
  slot.mapping_length = 0;
  return result(synced);
}

}  // namespace

void add_mapping_operations(std::map<std::string, Operation>& operations) {
  struct sigaction action {};
  action.sa_handler = on_bus_error;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGBUS, &action, nullptr);
  operations["mmap"] = map;
  operations["mread"] = [](Arguments a) { return touch(a, false); };
  operations["mwrite"] = [](Arguments a) { return touch(a, true); };
  operations["msync"] = [](Arguments a) {
    Slot const& slot = slot_of(a[0]);
    return slot.mapping == nullptr ? "err UNMAPPED"
                                   : result(msync(slot.mapping, slot.mapping_length, MS_SYNC));
  };
  operations["munmap"] = unmap;
}

}  // namespace fsop

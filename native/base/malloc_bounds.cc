#include "native/base/malloc_bounds.h"

#include <malloc.h>

namespace penstock {

#ifdef __GLIBC__
namespace {

// By default every thread up to eight a processor gets an arena of its own, and each keeps its own free
// memory. Threads that serve I/O take theirs from pools of ours; what is left is not worth more.
constexpr int kArenasMax = 2;
// From this size on memory is mapped, and goes back to the kernel when it is freed. By default the bound
// rises with what is freed, up to 32 MiB: tables that grow leave holes of every size they once had. Pieces of
// a RocksDB memtable are just as long.
constexpr int kMappedBytesMin = 256 << 10;
constexpr int kTrimBytes = 1 << 20;

}  // namespace

std::size_t malloc_bytes_in_use() {
#if __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 told = mallinfo2();
  return told.uordblks + told.hblkhd;
#else
  return 0;
#endif
}

void bound_malloc() {
  mallopt(M_ARENA_MAX, kArenasMax);
  mallopt(M_MMAP_THRESHOLD, kMappedBytesMin);
  mallopt(M_TRIM_THRESHOLD, kTrimBytes);
}
#else
void bound_malloc() {}
std::size_t malloc_bytes_in_use() {
  return 0;
}
#endif

}  // namespace penstock

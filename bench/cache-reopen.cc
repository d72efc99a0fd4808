// Reopening a cache of many small files after a kill: time and resident memory. Run by cache-reopen.ts.
//
//   cache-reopen fill DIRECTORY FILES BYTES      writes and publishes them all, then ends without closing
//   cache-reopen open DIRECTORY FILES [maintain] opens it; prints milliseconds, bytes of memory a file,
//   records
//                                                replayed; `maintain`: writes the indexes, as a mount does
//                                                soon
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "native/cache/cache.h"

using namespace penstock;
using namespace penstock::cache;

namespace {

constexpr uint64_t kFirstIno = 5000;
constexpr uint64_t kInoStep = 4096;  // inode numbers of one shard
constexpr uint64_t kGiB = uint64_t{1} << 30;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "cache-reopen: %s\n", what.c_str());
  std::exit(1);
}

uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::shared_ptr<Cache> open_cache(const char* directory) {
  CacheOptions options;
  options.directory = directory;
  options.identity = "bench";
  options.budget_bytes = 64 * kGiB;
  options.dirty_budget_bytes = 64 * kGiB;
  auto opened = Cache::open(options);
  if (!opened) fail(opened.error().message);
  return *opened;
}

void fill(Cache& cache, uint64_t files, std::size_t bytes) {
  const std::vector<std::byte> data(bytes, std::byte{'x'});
  cache.grant(files * pages_of(bytes));
  for (uint64_t index = 0; index < files; ++index) {
    const uint64_t ino = kFirstIno + index * kInoStep;
    cache.attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
    if (cache.write(ino, 0, data).status != IoStatus::done) fail("write");
    if (index % 512 != 511 && index + 1 != files) continue;
    for (const PublishSnapshot& snapshot : cache.begin_publish({})) {
      if (!cache.complete_publish(snapshot.ino, snapshot.generation, 1)) fail("complete");
      cache.detach(snapshot.ino);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) fail("usage: cache-reopen fill DIRECTORY FILES BYTES | open DIRECTORY FILES [maintain]");
  const uint64_t files = std::strtoull(argv[3], nullptr, 10);
  if (std::strcmp(argv[1], "fill") == 0) {
    fill(*open_cache(argv[2]), files, argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 100);
    _exit(0);  // as a kill does
  }
  const uint64_t before = resident_bytes();
  const auto start = std::chrono::steady_clock::now();
  const auto cache = open_cache(argv[2]);
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (cache->recovery().files != files) fail(std::to_string(cache->recovery().files) + " files found");
  malloc_trim(0);
  std::printf("%.1f %.1f %llu\n", ms,
              static_cast<double>(resident_bytes() - before) / static_cast<double>(files),
              static_cast<unsigned long long>(cache->recovery().records));
  std::fflush(stdout);
  if (argc > 4) {
    if (auto done = cache->maintain(); !done) fail(done.error().message);
  }
  _exit(0);
}

// What taking a page costs, by how full and how old the extent is (driven by page-allocation.ts). An extent
// of 16 GiB. The fill level is kept: each batch taken is paid for with frees, outside the timed part.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "native/extent/page_allocator.h"

using penstock::extent::PageAllocator;
using penstock::extent::PageRun;
using Clock = std::chrono::steady_clock;

namespace {

constexpr uint32_t kPages = 4 << 20;

// Every page free with probability `percent` / 100, on its own: the most broken-up extent at that level.
PageAllocator scattered(uint32_t percent, std::mt19937& random) {
  PageAllocator allocator;
  allocator.grow(kPages);
  for (uint32_t page = 0; page < kPages; page++) {
    if (random() % 100 >= percent) allocator.take({page, 1});
  }
  return allocator;
}

// Filled to 95 % by writes of 1 to 512 pages, then lived in: the extent turned over three times at random.
PageAllocator aged(std::vector<PageRun>& held, std::mt19937& random) {
  PageAllocator allocator;
  allocator.grow(kPages);
  const auto fill = [&] {
    while (allocator.free_pages() > kPages / 20 + 512) {
      allocator.allocate(1U << random() % 10, held);
    }
  };
  fill();
  for (uint64_t turned = 0; turned < uint64_t{kPages} * 3;) {
    for (int i = 0; i < 1000; i++) {
      std::swap(held[random() % held.size()], held.back());
      allocator.free(held.back());
      turned += held.back().count;
      held.pop_back();
    }
    fill();
  }
  return allocator;
}

// The nanoseconds of each batch, and how many runs there were in all.
struct Pass {
  std::vector<double> ns;
  uint64_t runs = 0;
};

Pass one_pass(PageAllocator allocator, uint32_t batch, std::vector<PageRun> held) {
  std::mt19937 random(7);
  Pass pass;
  std::vector<PageRun> runs;
  runs.reserve(batch);
  const uint32_t rounds = std::max(2000U, 100000 / batch);
  for (uint32_t round = 0; round < rounds; round++) {
    runs.clear();
    const auto start = Clock::now();
    allocator.allocate(batch, runs);
    pass.ns.push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count());
    pass.runs += runs.size();
    // As much is freed elsewhere, so that the level stays and the cursor moves on.
    held.insert(held.end(), runs.begin(), runs.end());
    for (uint32_t freed = 0; freed < batch;) {
      std::swap(held[random() % held.size()], held.back());
      PageRun& victim = held.back();
      const uint32_t part = std::min(victim.count, batch - freed);
      allocator.free({victim.page, part});
      freed += part;
      victim.page += part;
      victim.count -= part;
      if (victim.count == 0) held.pop_back();
    }
  }
  return pass;
}

// Three passes do exactly the same; the least of the three times of a batch is its own, without what
// preempted it.
void measure(const char* name, const PageAllocator& allocator, uint32_t batch,
             const std::vector<PageRun>& held) {
  Pass best = one_pass(allocator, batch, held);
  for (int again = 0; again < 2; again++) {
    const Pass pass = one_pass(allocator, batch, held);
    for (std::size_t i = 0; i < best.ns.size(); i++) best.ns[i] = std::min(best.ns[i], pass.ns[i]);
  }
  std::sort(best.ns.begin(), best.ns.end());
  const std::size_t count = best.ns.size();
  std::printf("%-22s %6u %10.1f %10.1f %12.1f %12.1f\n", name, batch, best.ns[count / 2] / batch,
              best.ns[count * 99 / 100] / batch, best.ns.back() / 1000,
              static_cast<double>(best.runs) / count);
}

// The pages that are taken in `allocator`, as runs: what may be freed to keep the level.
std::vector<PageRun> taken(const PageAllocator& allocator) {
  std::vector<PageRun> runs;
  for (uint32_t page = 0; page < kPages; page++) {
    if (!allocator.is_free(page)) runs.push_back({page, 1});
  }
  return runs;
}

// The cursor at the end, the only free pages each alone in a superword of their own: every page costs a
// search.
void worst_case() {
  constexpr uint32_t kApart = 64 * 64 * 64;
  PageAllocator allocator;
  allocator.grow(UINT32_MAX - 64);  // 16 TiB, the largest there can be
  std::vector<PageRun> runs;
  allocator.allocate(UINT32_MAX - 64, runs);
  uint32_t free = 0;
  for (uint32_t page = kApart - 1; page < UINT32_MAX - kApart; page += kApart, free++)
    allocator.free({page, 1});
  double worst_us = 0;
  double total_us = 0;
  for (uint32_t i = 0; i < free; i++) {
    runs.clear();
    const auto start = Clock::now();
    allocator.allocate(1, runs);
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    worst_us = std::max(worst_us, us);
    total_us += us;
  }
  std::printf("worst case, 16 TiB: %u lone pages 1 GiB apart, %.2f us a page, the worst %.2f us\n", free,
              total_us / free, worst_us);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  std::printf("%-22s %6s %10s %10s %12s %12s\n", "extent of 16 GiB", "batch", "ns/page", "p99",
              "worst us/call", "runs/batch");
  const uint32_t batches[] = {1, 16, 256, 4096};
  for (const uint32_t percent : {50U, 5U}) {
    const PageAllocator start = scattered(percent, random);
    const std::vector<PageRun> held = taken(start);
    char name[32];
    std::snprintf(name, sizeof(name), "scattered, %u %% free", percent);
    for (const uint32_t batch : batches) {
      measure(name, start, batch, held);
    }
  }
  std::vector<PageRun> held;
  const PageAllocator start = aged(held, random);
  for (const uint32_t batch : batches) {
    measure("aged, 5 % free", start, batch, held);
  }
  worst_case();
  return 0;
}

// The cache that tests open on a simulated disk: small, and without a thread of its own, so that a history
// repeats.
#pragma once

#include <string>

#include "native/cache/cache.h"
#include "test/native/support/simulated_file_system.h"

namespace penstock::test {

inline cache::CacheOptions simulated_cache(SimulatedFileSystem& disk, const std::string& boot) {
  cache::CacheOptions options;
  options.file_system = &disk;
  options.directory = "/cache";
  options.identity = "volume";
  options.boot_id = boot;
  options.budget_bytes = 4 << 20;
  options.dirty_budget_bytes = 64 << 20;
  options.segment_bytes = 256 << 10;
  options.background = false;
  return options;
}

}  // namespace penstock::test

// Batches and answers of RocksStore in the layouts of native/kv/rocks_store.h, for its tests.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "native/kv/rocks_store.h"

// The distribution's librocksdb is not instrumented: the thread sanitizer sees its memcpy, memcmp and delete,
// and templates of the standard library that it calls in this program, but not the atomics that order them (a
// reader of the memtable beside its writer). What our own code does is all seen. Not inline, since the
// sanitizer's own is weak: a program includes this file once.
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:librocksdb\ncalled_from_lib:liblz4\nrace:^rocksdb::\n";
}

namespace penstock::kv::test {

// Nothing: a deletion.
using Change = std::pair<std::string, std::optional<std::string>>;
using Pairs = std::vector<std::pair<std::string, std::string>>;

inline std::vector<std::byte> bytes_of(const std::vector<Change>& changes) {
  std::string batch;
  for (const auto& [key, value] : changes) {
    const auto key_bytes = static_cast<uint16_t>(key.size());
    const uint32_t value_bytes = value ? static_cast<uint32_t>(value->size()) : kDeletion;
    batch.append(reinterpret_cast<const char*>(&key_bytes), sizeof(key_bytes));
    batch.append(reinterpret_cast<const char*>(&value_bytes), sizeof(value_bytes));
    batch += key + value.value_or("");
  }
  const auto* first = reinterpret_cast<const std::byte*>(batch.data());
  return {first, first + batch.size()};
}

inline std::unique_ptr<RocksStore> open_store(const std::string& directory) {
  auto store = RocksStore::open(directory, 1 << 20);
  REQUIRE_MESSAGE(store.ok(), (store.ok() ? "" : store.error().message));
  return std::move(*store);
}

inline bool commit(RocksStore& store, const std::vector<Change>& changes) {
  return store.write(bytes_of(changes)).ok();
}

inline std::optional<std::string> get(RocksStore& store, const std::string& key, uint32_t snapshot = 0) {
  std::vector<std::byte> buffer(4096);
  std::memcpy(buffer.data(), key.data(), key.size());
  const auto found = store.get(buffer, key.size(), snapshot);
  REQUIRE(found.ok());
  if (!found.value()) return {};
  REQUIRE(*found.value() <= buffer.size());
  return std::string(reinterpret_cast<const char*>(buffer.data()), *found.value());
}

// Up to `limit` entries with start <= key < end.
inline Pairs scan(RocksStore& store, const std::string& start, const std::string& end, uint32_t limit,
                  bool reverse, uint32_t snapshot = 0) {
  std::vector<std::byte> buffer(1 << 20);
  std::memcpy(buffer.data(), start.data(), start.size());
  std::memcpy(buffer.data() + start.size(), end.data(), end.size());
  const auto used = store.scan(buffer, {start.size(), end.size(), limit, reverse}, snapshot);
  REQUIRE(used.ok());
  REQUIRE(used.value() <= buffer.size());
  const auto word = [&](std::size_t at) {
    uint32_t value = 0;
    std::memcpy(&value, buffer.data() + at, sizeof(value));
    return value;
  };
  REQUIRE(word(4) == 0);
  Pairs found;
  std::size_t at = 8;
  for (uint32_t i = 0; i < word(0); ++i) {
    const auto* key = reinterpret_cast<const char*>(buffer.data()) + at + 8;
    found.emplace_back(std::string(key, word(at)), std::string(key + word(at), word(at + 4)));
    at += 8 + word(at) + word(at + 4);
  }
  return found;
}

}  // namespace penstock::kv::test

// What the fuzz targets of the packet plane share: a pool, a reader of the fuzzer's bytes, and frames that
// are mostly right, since a fuzzer alone would never guess a checksum.
//
//   | kind | seed 16 | mutations: place 16, value 8 ... | 0xffff | raw bytes |
//
// Kind bit 0: the raw bytes are the frame. Otherwise a random scenario's frame is taken and mutated.
#pragma once

#include <cstdlib>

#include "native/offload/checksum_offload.h"
#include "native/offload/segment.h"
#include "test/native/support/superframe.h"

namespace penstock::net::test {

inline void expect(bool holds) {
  if (!holds) std::abort();
}

inline PacketPool& fuzz_pool() {
  static const std::unique_ptr<PacketPool> pool = [] {
    auto made = PacketPool::create({.packets = 200, .bodies = 24, .slice_tables = 64});
    if (!made) std::abort();
    (*made)->adopt();
    return std::move(*made);
  }();
  return *pool;
}

// Everything that was taken has come back.
inline void expect_pool_whole() {
  expect(fuzz_pool().free_packets() == 200);
  expect(fuzz_pool().free_bodies() == 24);
}

class FuzzBytes {
 public:
  FuzzBytes(const uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  uint8_t byte() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  uint16_t word() {
    const unsigned high = byte();
    return static_cast<uint16_t>(high << 8 | byte());
  }
  bool empty() const { return at_ >= size_; }
  Bytes rest() {
    const auto* from = reinterpret_cast<const std::byte*>(data_);
    Bytes bytes(from + at_, from + size_);
    at_ = size_;
    return bytes;
  }

 private:
  const uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

inline void mutate(Bytes& frame, FuzzBytes& input, std::size_t count_max) {
  for (std::size_t i = 0; i < count_max && !input.empty(); ++i) {
    const uint16_t place = input.word();
    if (place == 0xffff) return;
    const uint8_t value = input.byte();
    if (!frame.empty()) frame[place % frame.size()] ^= static_cast<std::byte>(value);
  }
}

// A scenario small enough to be run thousands of times a second.
inline Scenario small_scenario(uint16_t seed, ScenarioBounds bounds = {}) {
  std::mt19937 random(seed);
  bounds.payload_max = 4000;
  Scenario of = random_scenario(random, bounds);
  of.mss = 300 + seed % 700U;
  return of;
}

inline uint32_t payload_end(const Packet& packet, const Headers& headers) {
  return static_cast<uint32_t>(headers.network + network_length(packet.data(), headers));
}

}  // namespace penstock::net::test

// The pool's promises: what is taken comes back once, bodies live as long as a slice of them, and packets
// given up on other threads return to their home.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "native/packet/packet_pool.h"

using namespace penstock::net;

namespace {

std::unique_ptr<PacketPool> make_pool(PoolSizes sizes) {
  auto pool = PacketPool::create(sizes);
  REQUIRE(pool.ok());
  (*pool)->adopt();
  return std::move(*pool);
}

Packet* with_body(PacketPool& pool, uint32_t length) {
  Packet* packet = pool.take();
  BodyBuffer* body = pool.take_body();
  REQUIRE(packet != nullptr);
  REQUIRE(body != nullptr);
  for (uint32_t i = 0; i < length; ++i) body->bytes[i] = static_cast<std::byte>(i);
  body->used = length;
  REQUIRE(pool.append(*packet, body, 0, length));
  return packet;
}

}  // namespace

TEST_CASE("the pool is bounded and gives the last block back first") {
  auto pool = make_pool({.packets = 3, .bodies = 1, .slice_tables = 1});
  Packet* a = pool->take();
  Packet* b = pool->take();
  Packet* c = pool->take();
  CHECK(pool->take() == nullptr);
  CHECK(pool->free_packets() == 0);
  PacketPool::release(b);
  CHECK(pool->take() == b);
  for (Packet* packet : {a, b, c}) PacketPool::release(packet);
  CHECK(pool->free_packets() == 3);
  BodyBuffer* body = pool->take_body();
  CHECK(pool->take_body() == nullptr);
  pool->put_back(body);
  CHECK(pool->free_bodies() == 1);
}

TEST_CASE("a packet taken again remembers nothing") {
  auto pool = make_pool({.packets = 1, .bodies = 1, .slice_tables = 0});
  Packet* packet = with_body(*pool, 100);
  packet->head_length = 60;
  packet->push(8);
  packet->flow_hash = 5;
  packet->offload.gso = Gso::tcp4;
  packet->layout.outer.network = 14;
  PacketPool::release(packet);
  packet = pool->take();
  CHECK(packet->length() == 0);
  CHECK(packet->headroom() == kHeadroom);
  CHECK(packet->flow_hash == 0);
  CHECK(packet->offload.gso == Gso::none);
  CHECK(packet->layout.outer.network == kNoHeader);
  CHECK(packet->slices().empty());
  PacketPool::release(packet);
}

TEST_CASE("shared bodies live until the last packet that names them") {
  auto pool = make_pool({.packets = 4, .bodies = 1, .slice_tables = 1});
  Packet* packet = with_body(*pool, 1000);
  packet->head_length = 14;
  Packet* twin = pool->share(*packet);
  REQUIRE(twin != nullptr);
  CHECK(twin->length() == packet->length());
  PacketPool::release(packet);
  CHECK(pool->free_bodies() == 0);
  CHECK(static_cast<uint8_t>(twin->slices()[0].bytes()[999]) == (999 & 0xff));
  PacketPool::release(twin);
  CHECK(pool->free_bodies() == 1);
  CHECK(pool->free_packets() == 4);
}

TEST_CASE("many slices need a table, and are bounded") {
  auto pool = make_pool({.packets = 2, .bodies = 1, .slice_tables = 1});
  Packet* packet = with_body(*pool, 100);
  BodyBuffer* body = packet->slices()[0].buffer;
  for (std::size_t i = 1; i < kSlicesMax; ++i) {
    REQUIRE(pool->append(*packet, body, static_cast<uint32_t>(i), 2));
  }
  CHECK_FALSE(pool->append(*packet, body, 0, 1));
  CHECK(packet->body_length == 100 + 2 * (kSlicesMax - 1));
  CHECK(packet->slices()[63].offset == 63);
  CHECK(pool->append(*packet, body, 65, 3));  // it continues the last
  CHECK(packet->slices()[63].length == 5);
  Packet* other = pool->take();
  for (std::size_t i = 0; i < kSlicesInline; ++i) REQUIRE(pool->append(*other, body, 0, 1));
  CHECK_FALSE(pool->append(*other, body, 0, 1));  // the only table is taken
  PacketPool::release(packet);
  CHECK(pool->append(*other, body, 0, 1));
  PacketPool::release(other);
  CHECK(pool->free_bodies() == 1);
}

TEST_CASE("a copy shares nothing with a packet of another home") {
  auto home = make_pool({.packets = 1, .bodies = 1, .slice_tables = 0});
  auto away = make_pool({.packets = 1, .bodies = 1, .slice_tables = 0});
  Packet* packet = with_body(*home, 5000);
  packet->head_length = 20;
  packet->data()[3] = std::byte{42};
  Packet* twin = away->copy(*packet);
  REQUIRE(twin != nullptr);
  PacketPool::release(packet);
  CHECK(home->free_bodies() == 1);
  CHECK(twin->length() == 5020);
  CHECK(twin->data()[3] == std::byte{42});
  CHECK(twin->slices()[0].bytes()[4999] == static_cast<std::byte>(4999));
  CHECK(twin->home == away.get());
  PacketPool::release(twin);
  CHECK(away->free_packets() == 1);
}

TEST_CASE("a body that a leaving port still holds comes home while the worker goes on with others") {
  auto pool = make_pool({.packets = 4, .bodies = 3, .slice_tables = 1});
  for (int round = 0; round < 2000; ++round) {
    // Read, and handed out in part: a packet and the port both refer to it.
    BodyBuffer* shared = pool->take_body();
    REQUIRE(shared != nullptr);
    shared->references = 1;
    shared->used = 100;
    Packet* packet = pool->take();
    REQUIRE(pool->append(*packet, shared, 0, 100));
    BodyBuffer* unread = pool->take_body();
    REQUIRE(unread != nullptr);
    unread->references = 1;
    std::thread control([&] {
      for (BodyBuffer* body : {shared, unread}) PacketPool::release(body);
    });
    for (int other = 0; other < 10; ++other) PacketPool::release(with_body(*pool, 10));
    PacketPool::release(packet);
    control.join();
    pool->collect();
    REQUIRE(pool->free_bodies() == 3);
  }
}

TEST_CASE("packets given up on other threads come home, bodies with them") {
  constexpr int kThreads = 3;
  constexpr int kSlots = 64;
  constexpr int kPackets = 20000;
  auto pool = make_pool({.packets = 128, .bodies = 16, .slice_tables = 4});
  std::array<std::atomic<Packet*>, kSlots> hand{};
  std::atomic<bool> done{false};
  std::atomic<uint64_t> read{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      uint64_t sum = 0;
      while (true) {
        const bool last = done.load(std::memory_order_acquire);
        bool found = false;
        for (auto& slot : hand) {
          Packet* packet = slot.exchange(nullptr, std::memory_order_acq_rel);
          if (packet == nullptr) continue;
          found = true;
          for (const BodySlice& slice : packet->slices()) sum += static_cast<uint8_t>(slice.bytes()[0]);
          sum += packet->head_length;
          PacketPool::release(packet);
        }
        if (last && !found) break;
        if (!found) std::this_thread::yield();
      }
      read += sum;
    });
  }
  std::mt19937 random(99);
  uint64_t expected = 0;
  for (int i = 0; i < kPackets;) {
    Packet* packet = pool->take();
    if (packet == nullptr) {
      std::this_thread::yield();
      continue;
    }
    packet->head_length = random() % 100;
    if (i % 3 == 0) {
      if (BodyBuffer* body = pool->take_body(); body != nullptr) {
        body->bytes[0] = static_cast<std::byte>(i);
        body->used = 1;
        REQUIRE(pool->append(*packet, body, 0, 1));
        expected += static_cast<uint8_t>(i);
      }
    }
    expected += packet->head_length;
    while (true) {
      Packet* empty = nullptr;
      if (hand[random() % kSlots].compare_exchange_strong(empty, packet, std::memory_order_acq_rel)) break;
    }
    ++i;
  }
  done.store(true, std::memory_order_release);
  for (std::thread& thread : threads) thread.join();
  pool->collect();
  CHECK(read.load() == expected);
  CHECK(pool->free_packets() == 128);
  CHECK(pool->free_bodies() == 16);
}

// The tables of the switch, each against a slow model of itself: forwarding, rules, flows, meters,
// connections.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <thread>
#include <vector>

#include "native/packet/wire.h"
#include "native/switch/connection_table.h"
#include "native/switch/flow_cache.h"
#include "native/switch/flow_offer.h"
#include "native/switch/forwarding_table.h"
#include "native/switch/meter.h"
#include "native/switch/peer_table.h"
#include "native/switch/rule_table.h"

namespace penstock::net {

using Learned = ForwardingTable::Learned;

static constexpr Target kPort1{TargetKind::port, 1};
static constexpr Target kPort2{TargetKind::port, 2};
static constexpr Target kPeer7{TargetKind::peer, 7};

TEST_CASE("an address is found where it was learned, per network, until it ages out") {
  ForwardingTable table({.entries_max = 1024, .entries_per_network_max = 100, .age_seconds_max = 300});
  Target target;
  CHECK_FALSE(table.find(1, 0x02aa, 0, target));
  CHECK(table.learn(1, 0x02aa, kPort1, 10) == Learned::added);
  CHECK(table.learn(1, 0x02aa, kPort1, 20) == Learned::known);
  REQUIRE(table.find(1, 0x02aa, 320, target));
  CHECK(target == kPort1);
  CHECK_FALSE(table.find(2, 0x02aa, 20, target));
  CHECK_FALSE(table.find(1, 0x02aa, 321, target));
  CHECK(table.learn(1, 0x02aa, kPeer7, 400) == Learned::moved);
  REQUIRE(table.find(1, 0x02aa, 400, target));
  CHECK(target == kPeer7);
  CHECK(table.expire(1000) == 1);
  CHECK(table.size() == 0);
}

TEST_CASE("an address that was heard of elsewhere meanwhile is not refreshed where it was") {
  ForwardingTable table({.entries_max = 1024, .entries_per_network_max = 100, .age_seconds_max = 300});
  Target target;
  table.refresh(1, 0x02aa, kPort1, 10);
  CHECK_FALSE(table.find(1, 0x02aa, 10, target));
  table.learn(1, 0x02aa, kPort1, 10);
  table.refresh(1, 0x02aa, kPort1, 200);
  CHECK(table.find(1, 0x02aa, 500, target));
  table.refresh(1, 0x02aa, kPort2, 400);
  CHECK_FALSE(table.find(1, 0x02aa, 501, target));
}

TEST_CASE("a pinned address neither moves nor ages, and is learned again once unpinned") {
  ForwardingTable table({.entries_max = 1024});
  REQUIRE(table.learn(3, 0x02bb, kPort2, 0) == Learned::added);
  REQUIRE(table.pin(3, 0x02bb, kPort1));
  CHECK(table.learn(3, 0x02bb, kPort2, 5) == Learned::pinned);
  Target target;
  REQUIRE(table.find(3, 0x02bb, 1'000'000, target));
  CHECK(target == kPort1);
  CHECK(table.expire(1'000'000) == 0);
  table.unpin(3, 0x02bb);
  CHECK(table.learn(3, 0x02bb, kPort2, 5) == Learned::added);
}

TEST_CASE("a network that is flooded with forged addresses costs only itself") {
  ForwardingTable table({.entries_max = 4096, .entries_per_network_max = 50});
  for (Mac mac = 0x0200; mac < 0x0200 + 1000; ++mac) table.learn(1, mac, kPort1, 1);
  CHECK(table.size() <= 50);
  CHECK(table.refused() >= 950);
  CHECK(table.learn(2, 0x0200, kPort2, 1) == Learned::added);
}

TEST_CASE("which addresses are in each other's way nobody can know") {
  const auto without_place = [](uint64_t seed) {
    ForwardingTable table({.entries_max = 256, .entries_per_network_max = 256}, seed);
    std::vector<Mac> refused;
    for (Mac mac = 0x0200; mac < 0x0200 + 256; ++mac)
      if (table.learn(1, mac, kPort1, 1) == Learned::full) refused.push_back(mac);
    return refused;
  };
  CHECK(without_place(1) == without_place(1));
  CHECK(without_place(1) != without_place(2));
  CHECK(without_place(1) != without_place(uint64_t{1} << 40));
}

TEST_CASE("random learning, ageing and removal agree with a map") {
  std::mt19937 random(7);
  ForwardingTable table({.entries_max = 1 << 14, .entries_per_network_max = 4096, .age_seconds_max = 50});
  std::map<std::pair<uint16_t, Mac>, std::pair<Target, uint32_t>> model;
  for (uint32_t now = 1; now < 400; ++now) {
    for (int i = 0; i < 40; ++i) {
      const auto network = static_cast<uint16_t>(random() % 4);
      const Mac mac = 0x0200'0000'0000 + random() % 500;
      const Target target{static_cast<TargetKind>(random() % 2), static_cast<uint16_t>(random() % 9)};
      REQUIRE(table.learn(network, mac, target, now) != Learned::full);
      model[{network, mac}] = {target, now};
    }
    if (now % 37 == 0) table.expire(now);
    if (now % 91 == 0) {
      table.remove_if([](uint16_t, Target target) { return target.index == 3; });
      std::erase_if(model, [](const auto& entry) { return entry.second.first.index == 3; });
    }
    for (int i = 0; i < 40; ++i) {
      const auto network = static_cast<uint16_t>(random() % 4);
      const Mac mac = 0x0200'0000'0000 + random() % 500;
      Target target;
      const bool found = table.find(network, mac, now, target);
      const auto expected = model.find({network, mac});
      const bool there = expected != model.end() && now - expected->second.second <= 50;
      REQUIRE(found == there);
      if (there) REQUIRE(target == expected->second.first);
    }
  }
}

TEST_CASE("readers beside writers never see one address's way under another") {
  // Every address's target follows from the address, so that any mix-up shows.
  ForwardingTable table({.entries_max = 256, .entries_per_network_max = 256, .age_seconds_max = 1});
  const auto right = [](Mac mac) { return Target{TargetKind::port, static_cast<uint16_t>(mac * 7 & 0xfff)}; };
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      while (!stop.load()) {
        const Mac mac = 0x0200 + random() % 600;
        Target target;
        if (table.find(1, mac, 0, target) && !(target == right(mac))) ++wrong;
      }
    });
  std::mt19937 random(99);
  for (uint32_t i = 0; i < 60'000; ++i) {
    const Mac mac = 0x0200 + random() % 600;
    table.learn(1, mac, right(mac), 0);
    if (i % 100 == 0) table.remove_if([&](uint16_t, Target) { return random() % 2 == 0; });
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(wrong.load() == 0);
}

static Match random_match(std::mt19937& random) {
  Match match;
  const auto maybe = [&] { return random() % 3 == 0; };
  if (maybe()) {
    match.mask.set_ingress(0xffff);
    match.value.set_ingress(static_cast<uint16_t>(random() % 3));
  }
  if (maybe()) {
    match.mask.set_protocol(0xff);
    match.value.set_protocol(random() % 2 != 0 ? 6 : 17);
  }
  if (maybe()) {
    const unsigned bits = random() % 33;
    match.mask.words[5] = bits == 0 ? 0 : 0xffff'ffffULL << (32 - bits) & 0xffff'ffff;
    match.value.words[5] = (random() % 4) << 30 & match.mask.words[5];
  }
  if (maybe()) {
    match.mask.set_destination_port(0xffff);
    match.value.set_destination_port(static_cast<uint16_t>(random() % 5));
  } else if (maybe()) {
    const auto first = static_cast<uint16_t>(random() % 5);
    match.destination_ports = {first, static_cast<uint16_t>(first + random() % 3)};
  }
  if (maybe()) match.source_ports = {1, static_cast<uint16_t>(1 + random() % 4)};
  return match;
}

static MatchWords random_key(std::mt19937& random) {
  MatchWords key;
  key.set_ingress(static_cast<uint16_t>(random() % 3));
  key.set_protocol(random() % 2 != 0 ? 6 : 17);
  key.words[5] = random();
  key.set_destination_port(static_cast<uint16_t>(random() % 6));
  key.set_source_port(static_cast<uint16_t>(random() % 6));
  return key;
}

TEST_CASE("the rule that wins is the first of the highest priority that matches") {
  std::mt19937 random(3);
  for (int round = 0; round < 120; ++round) {
    std::vector<RuleTable::Entry> entries;
    const std::size_t count = random() % 60;
    for (std::size_t i = 0; i < count; ++i)
      entries.push_back({random_match(random), static_cast<uint32_t>(random() % 5)});
    const RuleTable table(entries);
    for (int probe = 0; probe < 300; ++probe) {
      const MatchWords key = random_key(random);
      uint32_t expected = RuleTable::kNone;
      for (uint32_t i = 0; i < entries.size(); ++i)
        if (entries[i].match.matches(key) &&
            (expected == RuleTable::kNone || entries[i].priority > entries[expected].priority))
          expected = i;
      REQUIRE(table.find(key) == expected);
    }
  }
}

TEST_CASE("keys that agree on the used bits get the same rule") {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<RuleTable::Entry> entries;
    for (int i = 0; i < 20; ++i)
      entries.push_back({random_match(random), static_cast<uint32_t>(random() % 5)});
    const RuleTable table(entries);
    for (int probe = 0; probe < 200; ++probe) {
      const MatchWords key = random_key(random);
      MatchWords other;
      for (std::size_t i = 0; i < 8; ++i) {
        const uint64_t noise = uint64_t{random()} << 32 | random();
        other.words[i] = (key.words[i] & table.used().words[i]) | (noise & ~table.used().words[i]);
      }
      REQUIRE(table.find(key) == table.find(other));
    }
  }
}

TEST_CASE("a meter passes its rate, and its burst at once") {
  Meter meter({.bits_per_second = 8'000'000, .burst_bytes = 10'000});  // a byte a microsecond
  uint64_t now = 1'000'000'000;
  uint64_t passed = 0;
  while (meter.conforms(1000, now)) passed += 1000;
  CHECK(passed == 11'000);  // the burst, and the packet that begins within it
  passed = 0;
  for (int i = 0; i < 100'000; ++i, now += 10'000)
    if (meter.conforms(1000, now)) passed += 1000;
  CHECK(passed >= 995'000);
  CHECK(passed <= 1'011'000);
}

TEST_CASE("a meter passes superframes at its mean rate even when one exceeds the burst") {
  Meter meter({.bits_per_second = 80'000'000, .burst_bytes = 1'500});
  uint64_t passed = 0;
  for (uint64_t now = 0; now < 1'000'000'000; now += 100'000)
    if (meter.conforms(65'000, now)) passed += 65'000;
  CHECK(passed >= 9'900'000);
  CHECK(passed <= 10'200'000);
}

TEST_CASE("a meter's debt moves to another clock") {
  Meter here({.bits_per_second = 8'000'000, .burst_bytes = 0});
  REQUIRE(here.conforms(5000, 100));
  Meter there({.bits_per_second = 8'000'000, .burst_bytes = 0});
  there.restore_debt(here.debt_ns(100), 9'000'000'000);
  CHECK_FALSE(there.conforms(1, 9'000'000'000 + 4'900'000));
  CHECK(there.conforms(1, 9'000'000'000 + 5'100'000));
}

TEST_CASE("a peer keeps its index, and the table its bound") {
  PeerTable table;
  IpAddress address{};
  for (unsigned i = 0; i < PeerTable::kPeersMax; ++i) {
    address[14] = static_cast<uint8_t>(i >> 8);
    address[15] = static_cast<uint8_t>(i);
    REQUIRE(table.intern(address, 6) == i);
  }
  CHECK(table.intern(address, 6) == PeerTable::kPeersMax - 1);
  address[0] = 1;
  CHECK(table.intern(address, 6) == PeerTable::kNone);
  CHECK(table.find(address) == PeerTable::kNone);
}

static ConnectionKey tcp_key(unsigned client, unsigned port = 80) {
  ConnectionKey key;
  key.source[15] = static_cast<uint8_t>(client);
  key.source[14] = static_cast<uint8_t>(client >> 8);
  key.destination[15] = 200;
  key.source_port = static_cast<uint16_t>(10000 + client % 50000);
  key.destination_port = static_cast<uint16_t>(port);
  key.protocol = 6;
  key.ip_version = 6;
  return key;
}

static Segment segment(uint8_t flags, uint32_t sequence = 1, uint32_t acknowledgement = 1) {
  return Segment{flags, sequence, acknowledgement, 60};
}

static TcpState state_of(const ConnectionTable::Found& found) {
  return static_cast<TcpState>(found.connection->tcp_state.load());
}

TEST_CASE("a TCP connection goes through its states as both directions speak") {
  Quiescence quiescence(3);
  ConnectionTable table({.connections_max = 1 << 16}, {}, 42, quiescence);
  const ConnectionKey key = tcp_key(1);
  const auto made = table.create(key, key.reversed(), {}, 100);
  REQUIRE(made);
  REQUIRE(table.advance(made, segment(wire::kTcpSyn), 100));
  CHECK(state_of(made) == TcpState::syn_sent);
  const auto back = table.find(key.reversed(), 100);
  REQUIRE(back);
  CHECK(back.direction == Direction::reply);
  REQUIRE(table.advance(back, segment(wire::kTcpSyn | wire::kTcpAck), 100));
  CHECK(state_of(made) == TcpState::syn_received);
  REQUIRE(table.advance(made, segment(wire::kTcpAck), 100));
  CHECK(state_of(made) == TcpState::established);
  CHECK(made.connection->expires_s.load() == 100 + table.timeouts().tcp_established);
  REQUIRE(table.advance(made, segment(wire::kTcpFin | wire::kTcpAck), 101));
  CHECK(state_of(made) == TcpState::fin_wait);
  REQUIRE(table.advance(back, segment(wire::kTcpFin | wire::kTcpAck), 101));
  CHECK(state_of(made) == TcpState::last_ack);
  REQUIRE(table.advance(made, segment(wire::kTcpAck), 101));
  CHECK(state_of(made) == TcpState::time_wait);
  CHECK(table.find(key, 101 + table.timeouts().tcp_time_wait));
  CHECK_FALSE(table.find(key, 102 + table.timeouts().tcp_time_wait));
  CHECK(table.expire(102 + table.timeouts().tcp_time_wait) == 1);
  CHECK(table.size() == 0);
}

TEST_CASE("a reset from off the path does not end a connection, one from its end does") {
  Quiescence quiescence(3);
  ConnectionTable table({}, {}, 42, quiescence);
  const ConnectionKey key = tcp_key(1);
  const auto made = table.create(key, key.reversed(), {}, 0);
  const auto back = table.find(key.reversed(), 0);
  REQUIRE(table.advance(made, segment(wire::kTcpSyn), 0));
  REQUIRE(table.advance(back, segment(wire::kTcpSyn | wire::kTcpAck, 5000, 2), 0));
  REQUIRE(table.advance(made, segment(wire::kTcpAck, 2, 5001), 0));
  CHECK_FALSE(table.advance(back, segment(wire::kTcpRst, 4000, 0), 0));
  CHECK(table.invalid() == 1);
  CHECK(state_of(made) == TcpState::established);
  CHECK(table.advance(back, segment(wire::kTcpRst, 5001, 0), 0));
  CHECK(state_of(made) == TcpState::closed);
}

TEST_CASE("packets that others forwarded count, keep a connection, and leave no acknowledgement known") {
  Quiescence quiescence(3);
  ConnectionTable table({}, {}, 42, quiescence);
  const ConnectionKey key = tcp_key(1);
  const auto made = table.create(key, key.reversed(), {}, 0);
  const auto back = table.find(key.reversed(), 0);
  REQUIRE(table.advance(made, segment(wire::kTcpSyn), 0));
  REQUIRE(table.advance(back, segment(wire::kTcpSyn | wire::kTcpAck, 5000, 2), 0));
  REQUIRE(table.advance(made, segment(wire::kTcpAck, 2, 5001), 0));
  table.account(made, 1000, 60'000'000, 50);
  CHECK(made.connection->packets[0].load() == 1002);
  CHECK(made.connection->bytes[0].load() >= 60'000'000);
  CHECK(made.connection->expires_s.load() == 50 + table.timeouts().tcp_established);
  // Three gigabytes further on a reset would look as if it came from the past.
  CHECK(table.advance(back, segment(wire::kTcpRst, 5001 + 3'000'000'000U, 0), 50));
  CHECK(state_of(made) == TcpState::closed);
  auto stranger = made;
  ++stranger.id;
  table.account(stranger, 1, 1, 60);
  CHECK(made.connection->packets[0].load() == 1002);
}

TEST_CASE("a new connection may take the tuple of one in time-wait") {
  Quiescence quiescence(3);
  ConnectionTable table({}, {}, 42, quiescence);
  const ConnectionKey key = tcp_key(1);
  const auto made = table.create(key, key.reversed(), {}, 0);
  const auto back = table.find(key.reversed(), 0);
  for (const auto& [who, flags] :
       std::vector<std::pair<ConnectionTable::Found, uint8_t>>{{made, wire::kTcpSyn},
                                                               {back, wire::kTcpSyn | wire::kTcpAck},
                                                               {made, wire::kTcpAck},
                                                               {made, wire::kTcpFin | wire::kTcpAck},
                                                               {back, wire::kTcpFin | wire::kTcpAck},
                                                               {made, wire::kTcpAck}})
    REQUIRE(table.advance(who, segment(flags), 0));
  REQUIRE(state_of(made) == TcpState::time_wait);
  REQUIRE(table.advance(made, segment(wire::kTcpSyn), 1));
  CHECK(state_of(made) == TcpState::syn_sent);
  CHECK_FALSE(made.connection->replied.load());
}

TEST_CASE("a translated connection is found by both of its tuples, and a taken one is refused") {
  Quiescence quiescence(3);
  ConnectionTable table({}, {}, 42, quiescence);
  for (unsigned client = 1; client < 400; ++client) {
    const ConnectionKey key = tcp_key(client);
    ConnectionKey reply = key.reversed();
    reply.destination = tcp_key(9999).source;
    reply.destination_port = static_cast<uint16_t>(20000 + client);
    const auto made = table.create(key, reply, {}, 0);
    REQUIRE(made);
    CHECK(made.connection->translated);
    const auto back = table.find(reply, 0);
    REQUIRE(back.connection == made.connection);
    CHECK(back.direction == Direction::reply);
    CHECK_FALSE(table.find(key.reversed(), 0));
    CHECK_FALSE(table.create(tcp_key(client, 81), reply, {}, 0));
  }
  CHECK(table.expire(1000) == 399);
  CHECK(table.size() == 0);
}

TEST_CASE("a full table drops what never saw an answer, and keeps what did") {
  Quiescence quiescence(3);
  ConnectionTable table({.connections_max = 256 * 4}, {}, 42, quiescence);
  std::vector<ConnectionKey> answered;
  for (unsigned client = 0; client < 200; ++client) {
    const ConnectionKey key = tcp_key(client);
    const auto made = table.create(key, key.reversed(), {}, 0);
    if (!made) continue;
    table.advance(made, segment(wire::kTcpSyn), 0);
    table.advance(table.find(key.reversed(), 0), segment(wire::kTcpSyn | wire::kTcpAck), 0);
    table.advance(made, segment(wire::kTcpAck), 0);
    answered.push_back(key);
  }
  REQUIRE(answered.size() > 150);
  for (unsigned client = 1000; client < 20000; ++client) {
    const ConnectionKey key = tcp_key(client);
    if (const auto made = table.create(key, key.reversed(), {}, 1))
      table.advance(made, segment(wire::kTcpSyn), 1);
  }
  CHECK(table.size() <= 1024);
  CHECK(table.dropped_early() > 0);
  for (const ConnectionKey& key : answered) CHECK(table.find(key, 2));
}

TEST_CASE("in a full shard who makes room is looked for among some, and among others the next time") {
  constexpr unsigned kShard = 7, kPerShard = 512;
  Quiescence quiescence(3);
  ConnectionTable table({.connections_max = 256 * kPerShard}, {}, 42, quiescence);
  std::vector<ConnectionKey> in_shard;
  unsigned client = 0;
  for (; in_shard.size() < kPerShard; ++client) {
    const ConnectionKey key = tcp_key(client);
    const auto made = table.create(key, key.reversed(), {}, 0);
    if (made && made.connection->home_shard == kShard && made.direction == Direction::original)
      in_shard.push_back(key);
  }
  for (std::size_t i = 0; i + 1 < in_shard.size(); ++i) {
    table.advance(table.find(in_shard[i], 0), segment(wire::kTcpSyn), 0);
    table.advance(table.find(in_shard[i].reversed(), 0), segment(wire::kTcpSyn | wire::kTcpAck), 0);
  }
  const ConnectionKey silent = in_shard.back();
  REQUIRE(table.find(silent, 0));
  std::size_t refused = 0;
  while (table.find(silent, 0) && refused < 3) {
    const ConnectionKey key = tcp_key(++client);
    const auto made = table.create(key, key.reversed(), {}, 0);
    if (made) continue;
    CHECK(made.full);
    ++refused;
  }
  CHECK_FALSE(table.find(silent, 0));
  in_shard.pop_back();
  for (const ConnectionKey& key : in_shard) CHECK(table.find(key, 0));
}

TEST_CASE("workers that create, find and expire the same connections agree") {
  Quiescence quiescence(3);
  ConnectionTable table({.connections_max = 1 << 14}, {.tcp_syn_sent = 1}, 42, quiescence);
  std::vector<std::thread> workers;
  std::atomic<uint64_t> failures{0};
  for (unsigned worker = 0; worker < 3; ++worker)
    workers.emplace_back([&, worker] {
      std::mt19937 random(worker);
      quiescence.join(worker);
      for (uint32_t i = 0; i < 15'000; ++i) {
        const uint32_t now = i / 500;
        quiescence.announce(worker, quiescence.observe());
        const ConnectionKey key = tcp_key(random() % 800);
        ConnectionKey reply = key.reversed();
        if (random() % 3 == 0) reply.destination_port = static_cast<uint16_t>(40000 + random() % 100);
        auto found = table.find(key, now);
        if (!found) found = table.create(key, reply, {}, now);
        if (found && !table.advance(found, segment(wire::kTcpSyn), now)) ++failures;
        if (i % 1000 == 0) table.expire(now, 64);
      }
      quiescence.leave(worker);
    });
  for (auto& worker : workers) worker.join();
  CHECK(failures.load() == 0);
  std::size_t counted = 0;
  table.for_each([&](const Connection&) { ++counted; });
  CHECK(counted == table.size());
  table.remove_if([](const Connection&) { return true; });
  CHECK(table.size() == 0);
}

TEST_CASE(
    "a flow is offered once it was looked at often enough, superframes sooner, anew after a withdrawal") {
  std::atomic<uint64_t> epoch{1};
  std::atomic<bool> woken{false};
  const Fd wake(::eventfd(0, EFD_NONBLOCK));
  OfferLane lane(epoch, woken, wake.get());
  const auto looks = [&](uint32_t hash, bool superframe, uint64_t at, uint32_t now_s) {
    for (uint32_t count = 1; count <= 100; ++count)
      if (lane.look(hash, superframe, at, now_s)) return count;
    return 0U;
  };
  CHECK(looks(7, false, 1, 10) == OfferLane::kOfferAfter);
  CHECK(looks(7, false, 1, 11) == 0);  // not again soon
  CHECK(looks(7, true, 2, 11) == OfferLane::kOfferAfter / OfferLane::kSuperframeWeight);
  CHECK(looks(7, false, 2, 20) == OfferLane::kOfferAfter);  // idle between

  FlowOffer offer;
  offer.epoch = 5;
  lane.push(offer);
  lane.push(offer);
  eventfd_t times = 0;
  REQUIRE(::eventfd_read(wake.get(), &times) == 0);
  CHECK(times == 1);  // one wake-up until the reader has looked
  std::array<FlowOffer, 4> taken;
  CHECK(lane.pop(taken) == 2);
  CHECK(taken[1].epoch == 5);
}

TEST_CASE("a flow is found as it was put in, under the generation it was put in with, or not at all") {
  FlowCache cache(64);
  std::mt19937_64 random(11);
  std::map<uint64_t, uint32_t> model;  // by the key's last word, of the generation at hand
  uint32_t found = 0;
  for (uint32_t step = 0; step < 20'000; ++step) {
    const uint64_t generation = 1 + step / 2'000;
    if (step % 2'000 == 0) model.clear();
    MatchWords key;
    key.words[7] = random() % 100;
    const uint64_t hash = FlowCache::hash(key);
    cache.prefetch_set(hash);
    cache.prefetch_entry(hash);
    if (const FlowEntry* entry = cache.find(hash, key, generation)) {
      ++found;
      REQUIRE(model.count(key.words[7]) == 1);
      CHECK(entry->rule == model[key.words[7]]);
      CHECK(entry->connection == nullptr);
      continue;
    }
    cache.insert(hash, key, generation)->rule = step;
    model[key.words[7]] = step;
    REQUIRE(cache.find(hash, key, generation) != nullptr);
  }
  CHECK(found > 5'000);  // of a hundred flows on 64 places
}

TEST_CASE("keys of one tag are told apart, and the flow that was used least makes room") {
  FlowCache cache(FlowCache::kWays);
  constexpr uint64_t kSame = 0x1234'5678'0000'0000;
  const auto key_of = [](uint64_t number) {
    MatchWords key;
    key.words[0] = number;
    return key;
  };
  for (uint32_t i = 0; i < FlowCache::kWays; ++i) cache.insert(kSame, key_of(i), 1)->rule = i;
  for (uint32_t i = 0; i < FlowCache::kWays; ++i) {
    if (i == 3) continue;
    REQUIRE(cache.find(kSame, key_of(i), 1) != nullptr);
    CHECK(cache.find(kSame, key_of(i), 1)->rule == i);
  }
  cache.insert(kSame, key_of(99), 1)->rule = 99;
  CHECK(cache.find(kSame, key_of(3), 1) == nullptr);
  CHECK(cache.find(kSame, key_of(99), 1)->rule == 99);
  CHECK(cache.find(kSame, key_of(0), 1) != nullptr);
  CHECK(cache.find(kSame, key_of(0), 2) == nullptr);
}

TEST_CASE("a full set spills into its neighbour, and what is there is found until the generation ends") {
  FlowCache cache(2 * FlowCache::kWays);
  constexpr uint32_t kFlows = 2 * FlowCache::kWays;
  const auto key_of = [](uint64_t number) {
    MatchWords key;
    key.words[0] = number;
    return key;
  };
  const auto hash_of = [](uint64_t number) { return number << 40; };  // all of the first set
  for (uint64_t generation = 1; generation <= 2; ++generation) {
    for (uint32_t i = 0; i < kFlows; ++i) {
      CHECK(cache.find(hash_of(i), key_of(i), generation) == nullptr);
      cache.insert(hash_of(i), key_of(i), generation)->rule = i;
    }
    for (uint32_t i = 0; i < kFlows; ++i) {
      cache.prefetch_entry(hash_of(i));
      REQUIRE(cache.find(hash_of(i), key_of(i), generation) != nullptr);
      CHECK(cache.find(hash_of(i), key_of(i), generation)->rule == i);
    }
  }
  // One more than there are places: it is there, and so are all but one.
  cache.insert(hash_of(kFlows), key_of(kFlows), 2);
  uint32_t found = 0;
  for (uint32_t i = 0; i <= kFlows; ++i) found += cache.find(hash_of(i), key_of(i), 2) != nullptr;
  CHECK(found == kFlows);
}

}  // namespace penstock::net

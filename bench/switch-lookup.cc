// What the switch costs a packet in memory, on one core (driven by switch-lookup.ts). One JSON line a
// measurement: {"figure", "unit", "peer", "value"}.
//
//   forwarding   60-byte datagrams of 64 k flows in 4 096 buffers through the whole switch stage: parse,
//                network, flow cache, rule, counters, address look-up, VXLAN encapsulation
//   bound        the same lines of memory, asked for and touched in the same order and batches, without any
//   decision:
//                what the machine's caches alone allow, a bound that no switch with such tables is above
//   look-up      RuleTable::find among 10, 1 000 and 100 000 rules of eight masks
//
// What comes out is compared with a reference after every pass over the buffers, outside the measured time:
// each byte of the encapsulated frame is made anew from its definition, sums included. What the rule table
// answers is compared with a walk over all rules, what the counters say with what was sent.
#include <sched.h>
#include <time.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "native/base/large_memory.h"
#include "native/packet/flow_key.h"
#include "native/packet/wire.h"
#include "native/switch/switch.h"

using namespace penstock::net;

namespace {

constexpr uint32_t kFlows = 65536;
constexpr uint32_t kBuffers = 4096;
constexpr std::size_t kFrame = 60;
constexpr std::size_t kOuter = 14 + 20 + 8 + 8;
constexpr uint32_t kVni = 42;
constexpr PortId kGuest = 0, kWire = 1;
constexpr Mac kGuestMac = 0x020000000001, kRemoteMac = 0x020000000002;
constexpr Mac kOuterSource = 0x02707374756c, kOuterDestination = 0x027073747568;
constexpr uint32_t kLocal = 0xac100001, kPeer = 0xac100002;
constexpr int kRounds = 10;
constexpr uint32_t kPasses = 64;  // over all buffers, a round
constexpr double kLookupSeconds = 0.1;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

// The processor time of this thread: what one core does, whoever else wants it.
double now() {
  timespec time{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) fail("no clock");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void report(const std::string& figure, const char* unit, double value) {
  std::printf("{\"figure\":\"%s\",\"unit\":\"%s\",\"peer\":\"penstock\",\"value\":%.3f}\n", figure.c_str(),
              unit, value);
  std::fflush(stdout);
}

IpAddress ip4(uint32_t address) {
  IpAddress ip{};
  ip[10] = ip[11] = 0xff;
  for (unsigned i = 0; i < 4; ++i) ip[12 + i] = static_cast<uint8_t>(address >> (24 - 8 * i));
  return ip;
}

uint32_t source_of(uint32_t flow) {
  return 0x0a000000 | (flow * 2654435761U >> 16 & 0xffff);
}

void write_frame(std::byte* frame, uint32_t flow) {
  std::memset(frame, 0, kFrame);
  store_mac(frame, kRemoteMac);
  store_mac(frame + 6, kGuestMac);
  wire::store16(frame + 12, wire::kEtherIpv4);
  std::byte* ip = frame + 14;
  wire::store8(ip, 0x45);
  wire::store16(ip + wire::kIpv4Length, kFrame - 14);
  wire::store8(ip + wire::kIpv4Ttl, 64);
  wire::store8(ip + wire::kIpv4Protocol, wire::kIpUdp);
  wire::store32(ip + wire::kIpv4Source, source_of(flow));
  wire::store32(ip + wire::kIpv4Destination, 0x0b000000 | flow >> 8);
  std::byte* udp = ip + 20;
  wire::store16(udp, static_cast<uint16_t>(flow));
  wire::store16(udp + 2, 5001);
  wire::store16(udp + 4, static_cast<uint16_t>(kFrame - 34));
}

uint16_t naive_sum(const std::byte* at, std::size_t bytes) {
  uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes; i += 2) sum += wire::load16(at + i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

using Expected = std::array<std::byte, kOuter + kFrame>;

// From RFC 7348 and RFC 768, not from the code that is measured; the source port alone is the flow hash's.
Expected reference(uint32_t flow) {
  Expected frame{};
  std::byte* inner = frame.data() + kOuter;
  write_frame(inner, flow);
  store_mac(frame.data(), kOuterDestination);
  store_mac(frame.data() + 6, kOuterSource);
  wire::store16(frame.data() + 12, wire::kEtherIpv4);
  std::byte* ip = frame.data() + 14;
  wire::store8(ip, 0x45);
  wire::store16(ip + wire::kIpv4Length, kOuter + kFrame - 14);
  wire::store16(ip + wire::kIpv4Fragment, wire::kIpv4DontFragment);
  wire::store8(ip + wire::kIpv4Ttl, 64);
  wire::store8(ip + wire::kIpv4Protocol, wire::kIpUdp);
  wire::store32(ip + wire::kIpv4Source, kLocal);
  wire::store32(ip + wire::kIpv4Destination, kPeer);
  wire::store16(ip + wire::kIpv4Checksum, static_cast<uint16_t>(~naive_sum(ip, 20)));
  FlowKey key;
  key.source = ip4(source_of(flow));
  key.destination = ip4(0x0b000000 | flow >> 8);
  key.source_port = static_cast<uint16_t>(flow);
  key.destination_port = 5001;
  key.vni = kVni;
  key.ether_type = wire::kEtherIpv4;
  key.protocol = wire::kIpUdp;
  key.ip_version = 4;
  std::byte* udp = ip + 20;
  wire::store16(udp, static_cast<uint16_t>(0xc000 | symmetric_hash(key) >> 18));
  wire::store16(udp + 2, wire::kPortVxlan);
  const auto length = static_cast<uint16_t>(kFrame + 16);
  wire::store16(udp + 4, length);
  wire::store32(udp + 8, 0x08000000);
  wire::store32(udp + 12, kVni << 8);
  // Pseudo header: addresses, protocol, length.
  uint32_t sum =
      uint32_t{naive_sum(ip + wire::kIpv4Source, 8)} + wire::kIpUdp + length + naive_sum(udp, length);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  wire::store16(udp + 6, sum == 0xffff ? uint16_t{0xffff} : static_cast<uint16_t>(~sum));
  return frame;
}

// A rule of one of eight masks, none of which the benchmark's datagrams match but by the last.
RuleTable::Entry random_rule(std::mt19937& random, uint32_t priority) {
  RuleTable::Entry entry;
  entry.priority = priority;
  Match& match = entry.match;
  const unsigned shape = random() % 8;
  const uint64_t address = 0x0c000000 | (random() & 0xffffff);
  const unsigned bits = shape % 4 == 0 ? 32 : shape % 4 == 1 ? 24 : shape % 4 == 2 ? 20 : 28;
  const uint64_t prefix = 0xffffffff00000000ULL | (0xffffffffULL << (32 - bits) & 0xffffffff);
  match.mask.words[7] = prefix;
  match.value.words[7] = (0x0000ffff00000000ULL | address) & prefix;
  match.mask.set_protocol(0xff);
  match.value.set_protocol(wire::kIpTcp);
  if (shape >= 4) {
    match.mask.set_destination_port(0xffff);
    match.value.set_destination_port(static_cast<uint16_t>(random()));
  }
  return entry;
}

SwitchConfig configuration(std::size_t rules) {
  SwitchConfig config;
  PortConfig guest;
  guest.id = kGuest;
  guest.name = "guest";
  guest.attachments = {{0, kUntagged}};
  guest.offloads = {.checksum = true, .tso4 = true, .tso6 = true, .uso = true};
  PortConfig wire;
  wire.id = kWire;
  wire.name = "wire";
  wire.underlay = true;
  wire.mtu = 9000;
  wire.tunnel_source_mac = kOuterSource;
  wire.tunnel_destination_mac = kOuterDestination;
  config.ports = {guest, wire};
  NetworkConfig network;
  network.name = "blue";
  network.tunnel = TunnelKind::vxlan;
  network.vni = kVni;
  network.underlay = kWire;
  network.local = ip4(kLocal);
  network.peers = {{ip4(kPeer), 4}};
  config.networks = {network};
  std::mt19937 random(1);
  for (std::size_t i = 0; i + 1 < rules; ++i) {
    RuleConfig rule;
    rule.id = i + 1;
    const RuleTable::Entry entry = random_rule(random, 100);
    rule.priority = entry.priority;
    rule.match = entry.match;
    rule.actions.verdict = Verdict::drop;
    config.rules.push_back(rule);
  }
  // It looks at addresses and ports of both ends, so that each of the datagrams' flows is one to the cache.
  RuleConfig exact;
  exact.id = rules + 1;
  exact.match.mask.words[5] = exact.match.mask.words[7] = ~0ULL;
  exact.match.value.words[5] = exact.match.value.words[7] = 0x0000ffff0d000001ULL;
  exact.match.mask.set_source_port(0xffff);
  exact.match.mask.set_destination_port(0xffff);
  config.rules.push_back(exact);
  RuleConfig last;
  last.id = rules;
  last.match.mask.set_protocol(0xff);
  last.match.value.set_protocol(wire::kIpUdp);
  config.rules.push_back(last);
  return config;
}

// Takes what the switch gives out, as a transmit node does, and keeps it to be looked at.
class Collector final : public Outputs {
 public:
  explicit Collector(PacketPool& pool) : pool_(pool) { given.reserve(kBuffers); }
  void forward(std::size_t edge, Packet* packet) override {
    wrong_edges += edge != kWire;
    given.push_back(packet);
  }
  void drop(Packet*, DropReason reason) override {
    fail("a packet was dropped: " + std::string(name_of(reason)));
  }
  PacketPool& pool() override { return pool_; }

  std::vector<Packet*> given;
  std::size_t wrong_edges = 0;

 private:
  PacketPool& pool_;
};

class Forwarding {
 public:
  Forwarding(uint32_t entries, std::size_t rules)
      : quiescence_(1),
        pool_(std::move(*PacketPool::create({.packets = kBuffers, .bodies = 1, .slice_tables = 1}))),
        outputs_(*pool_) {
    pool_->adopt();
    SwitchLimits limits;
    limits.flows_per_worker = entries;
    limits.connections.connections_max = 1 << 10;
    switch_ = std::move(*Switch::create(limits, 1, 42, quiescence_));
    if (const auto applied = switch_->apply(configuration(rules)); !applied) fail(applied.error().message);
    const Target peer{TargetKind::peer, switch_->state().peers().find(ip4(kPeer))};
    if (!switch_->state().forwarding().pin(0, kRemoteMac, peer)) fail("the station cannot be pinned");
    for (uint32_t pass = 0; pass < 2 * kFlows / kBuffers; ++pass) this->pass(true);  // every flow is known
    hits_before_ = switch_->stage(0).counters().flow_hits.get();
    sent_before_ = sent_;
  }

  // Millions of packets a second over `passes` passes; the last one is looked at byte by byte.
  double rate(uint32_t passes) {
    double spent = 0;
    for (uint32_t i = 0; i < passes; ++i) spent += pass(i + 1 == passes);
    const PortTraffic wire = switch_->port_traffic(kWire);
    if (wire.transmitted.packets != sent_ || switch_->port_traffic(kGuest).received.packets != sent_)
      fail("the counters do not say what was sent");
    return static_cast<double>(passes) * kBuffers / spent / 1e6;
  }
  // As `rate`, of a loop that decides nothing.
  double bound(uint32_t passes) {
    double spent = 0;
    for (uint32_t i = 0; i < passes; ++i) spent += touch();
    return static_cast<double>(passes) * kBuffers / spent / 1e6;
  }
  // Of what was sent since the cache was filled.
  double hit_ratio() const {
    const auto hits = static_cast<double>(switch_->stage(0).counters().flow_hits.get() - hits_before_);
    return hits / static_cast<double>(sent_ - sent_before_);
  }

 private:
  void fill(std::array<Packet*, kBuffers>& packets) {
    for (Packet*& packet : packets) {
      packet = pool_->take();
      if (packet == nullptr) fail("no packet");
      packet->head_length = kFrame;
      packet->ingress = kGuest;
      write_frame(packet->data(), next_flow_);
      next_flow_ = (next_flow_ + 1) % kFlows;
    }
  }

  // Of a flow: a line of its set and the two of its entry. Of a packet: the lines of its metadata and of its
  // frame, and the room before the frame, which is written.
  double touch() {
    constexpr std::size_t kLine = 64, kMetadata = offsetof(Packet, storage) / kLine;
    constexpr std::size_t kSets = kPlaces / FlowCache::kWays;
    std::array<Packet*, kBuffers> packets;
    const uint32_t first = next_flow_;
    fill(packets);
    const auto place_of = [&](std::size_t i) {
      return (first + i) % kFlows * uint64_t{0x9e37'79b9'7f4a'7c15} >> 40 & (kPlaces - 1);
    };
    std::byte* const sets = flows_.data() + kPlaces * sizeof(FlowEntry);
    const auto set_of = [&](std::size_t i) { return sets + place_of(i) % kSets * kLine; };
    const auto entry_of = [&](std::size_t i) { return flows_.data() + place_of(i) * sizeof(FlowEntry); };
    const auto read = [](const std::byte* at) { return *reinterpret_cast<const volatile uint64_t*>(at); };
    uint64_t sum = 0;
    const double start = now();
    for (std::size_t at = 0; at < kBuffers; at += kBatchPackets) {
      for (std::size_t i = at; i < at + kBatchPackets; ++i) {
        const auto* packet = reinterpret_cast<const std::byte*>(packets[i]);
        for (std::size_t line = 0; line < kMetadata; ++line) __builtin_prefetch(packet + line * kLine);
        __builtin_prefetch(packets[i]->storage + kHeadroom - kLine);
        __builtin_prefetch(packets[i]->storage + kHeadroom);
        __builtin_prefetch(set_of(i));
      }
      for (std::size_t i = at; i < at + kBatchPackets; ++i) {
        sum += read(set_of(i));
        __builtin_prefetch(entry_of(i));
        __builtin_prefetch(entry_of(i) + kLine);
      }
      for (std::size_t i = at; i < at + kBatchPackets; ++i) {
        Packet* packet = packets[i];
        sum += read(entry_of(i)) + read(entry_of(i) + kLine) + read(packet->data());
        packet->flow_hash = static_cast<uint32_t>(sum);
        packet->layout.inner.payload = static_cast<uint16_t>(sum);
        std::memset(packet->push(kOuter), static_cast<int>(sum & 0xff), kOuter);
      }
    }
    const double spent = now() - start;
    for (Packet* packet : packets) PacketPool::release(packet);
    return spent;
  }

  // One batch after the other over all buffers, whose flows are the next ones; seconds.
  double pass(bool look) {
    std::array<Packet*, kBuffers> packets;
    const uint32_t first = next_flow_;
    fill(packets);
    outputs_.given.clear();
    const double start = now();
    for (std::size_t at = 0; at < kBuffers; at += kBatchPackets) {
      Batch batch;
      for (std::size_t i = 0; i < kBatchPackets; ++i) batch.add(packets[at + i]);
      switch_->stage(0).process(batch, outputs_, monotonic_now_ns_);
    }
    const double spent = now() - start;
    monotonic_now_ns_ += 1'000'000;
    sent_ += kBuffers;
    if (outputs_.given.size() != kBuffers || outputs_.wrong_edges != 0)
      fail("not every packet left by the wire");
    for (uint32_t i = 0; look && i < kBuffers; ++i) {
      const Packet& packet = *outputs_.given[i];
      const Expected wanted = reference((first + i) % kFlows);
      if (packet.length() != wanted.size() || std::memcmp(packet.data(), wanted.data(), wanted.size()) != 0)
        fail("flow " + std::to_string((first + i) % kFlows) + " is not encapsulated as the reference is");
    }
    for (Packet* packet : outputs_.given) PacketPool::release(packet);
    return spent;
  }

  static constexpr std::size_t kPlaces = 131072;

  Quiescence quiescence_;
  std::unique_ptr<PacketPool> pool_;
  std::unique_ptr<Switch> switch_;
  penstock::LargeMemory flows_{kPlaces * (sizeof(FlowEntry) + 8)};  // of `touch`
  Collector outputs_;
  uint32_t next_flow_ = 0;
  uint64_t sent_ = 0;
  uint64_t sent_before_ = 0, hits_before_ = 0;
  uint64_t monotonic_now_ns_ = 1'000'000'000'000;
};

class Lookup {
 public:
  explicit Lookup(std::size_t rules) {
    std::mt19937 random(2);
    for (std::size_t i = 0; i < rules; ++i) entries_.push_back(random_rule(random, random() % 1000));
    table_ = RuleTable(entries_);
    // Half of the keys are made to match some rule.
    for (std::size_t i = 0; i < kKeys; ++i) {
      MatchWords key;
      key.set_protocol(wire::kIpTcp);
      key.set_destination_port(static_cast<uint16_t>(random()));
      key.words[7] = 0x0000ffff0c000000ULL | (random() & 0xffffff);
      if (i % 2 == 0) {
        const Match& match = entries_[random() % entries_.size()].match;
        for (std::size_t word = 0; word < key.words.size(); ++word)
          key.words[word] = (key.words[word] & ~match.mask.words[word]) | match.value.words[word];
      }
      keys_.push_back(key);
    }
    for (std::size_t i = 0; i<kKeys; i += rules> 10'000 ? kKeys / 256 : 1)
      if (table_.find(keys_[i]) != by_walking(keys_[i]))
        fail("the rule table and a walk over its rules differ");
  }

  // Millions a second.
  double rate() const {
    uint64_t done = 0;
    uint64_t sum = 0;
    const double start = now();
    double end = start;
    while (end - start < kLookupSeconds) {
      for (const MatchWords& key : keys_) sum += table_.find(key);
      done += keys_.size();
      end = now();
    }
    if (sum == 0) fail("nothing was found");
    return static_cast<double>(done) / (end - start) / 1e6;
  }

 private:
  static constexpr std::size_t kKeys = 16384;

  uint32_t by_walking(const MatchWords& key) const {
    uint32_t best = RuleTable::kNone;
    for (uint32_t i = 0; i < entries_.size(); ++i)
      if (entries_[i].match.matches(key) &&
          (best == RuleTable::kNone || entries_[i].priority > entries_[best].priority))
        best = i;
    return best;
  }

  std::vector<RuleTable::Entry> entries_;
  RuleTable table_;
  std::vector<MatchWords> keys_;
};

}  // namespace

int main(int argc, char** argv) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(::sched_getcpu(), &one);
  if (::sched_setaffinity(0, sizeof(one), &one) != 0) fail("cannot stay on one core");
  const int rounds = argc > 1 ? std::atoi(argv[1]) : kRounds;

  Forwarding as_configured(SwitchLimits{}.flows_per_worker, 1000);
  Forwarding roomy(4 * kFlows, 1000);
  std::vector<std::pair<std::size_t, Lookup>> lookups;
  for (const std::size_t rules : {10, 1'000, 100'000}) lookups.emplace_back(rules, Lookup(rules));
  for (int round = 0; round < rounds; ++round) {
    report("64 k flows, flow cache as configured", "Mpps", as_configured.rate(kPasses));
    report("64 k flows, the same memory without a decision", "Mpps", as_configured.bound(kPasses));
    report("64 k flows, flow cache four times as large", "Mpps", roomy.rate(kPasses));
    for (const auto& [rules, lookup] : lookups)
      report("look-up among " + std::to_string(rules) + " rules", "M/s", lookup.rate());
  }
  report("found in the flow cache as configured", "%", as_configured.hit_ratio() * 100);
  report("found in the larger flow cache", "%", roomy.hit_ratio() * 100);
  return 0;
}

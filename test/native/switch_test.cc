// The switch as its ports see it: what goes in, what comes out, and what does not.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "test/native/support/switch_bench.h"

namespace penstock::net::test {

static constexpr Mac kA = 0x02'00'00'00'00'0a, kB = 0x02'00'00'00'00'0b, kC = 0x02'00'00'00'00'0c,
                     kRouter = 0x02'00'00'00'00'01;
static constexpr uint32_t kIpA = 0x0a000001, kIpB = 0x0a000002, kIpC = 0x0a000003;

// One network, ports 0 to count - 1, untagged.
static SwitchConfig flat(std::size_t count) {
  SwitchConfig config;
  config.networks.push_back({.index = 0, .name = "blue"});
  for (std::size_t i = 0; i < count; ++i) {
    PortConfig port;
    port.id = static_cast<PortId>(i);
    port.name = "p" + std::to_string(i);
    port.attachments = {{0, kUntagged}};
    config.ports.push_back(port);
  }
  return config;
}

static Bytes tcp_frame(Mac source, Mac destination, uint32_t from, uint32_t to, const Tcp& tcp_header,
                       const Bytes& payload = {}, unsigned fragment = 0x4000) {
  return summed(
      between(source, destination,
              ethernet({}, ipv4({.fragment = fragment, .protocol = 6, .source = from, .destination = to},
                                tcp(tcp_header, payload)))));
}

static Bytes udp_frame(Mac source, Mac destination, uint32_t from, uint32_t to, unsigned source_port,
                       unsigned destination_port, const Bytes& payload, unsigned fragment = 0x4000) {
  return summed(between(source, destination,
                        ethernet({}, ipv4({.fragment = fragment, .source = from, .destination = to},
                                          udp(source_port, destination_port, payload)))));
}

static Bytes echo(Mac source, Mac destination, uint32_t from, uint32_t to, unsigned type, unsigned id) {
  Bytes icmp;
  put8(icmp, type);
  put8(icmp, 0);
  put16(icmp, 0);
  put16(icmp, id);
  put16(icmp, 1);
  return summed(between(source, destination,
                        ethernet({}, ipv4({.protocol = 1, .source = from, .destination = to}, icmp))));
}

static Match tcp_port(uint16_t port) {
  Match match;
  match.mask.set_protocol(0xff);
  match.value.set_protocol(6);
  match.mask.set_destination_port(0xffff);
  match.value.set_destination_port(port);
  return match;
}

TEST_CASE("an unknown address is flooded, a learned one is not, and nothing goes back where it came from") {
  SwitchBench bench;
  bench.apply(flat(3));
  const Bytes a_to_b = tcp_frame(kA, kB, kIpA, kIpB, {});
  bench.receive(0, a_to_b);
  CHECK(bench.outputs.size() == 2);
  CHECK(bench.outputs[1][0] == a_to_b);
  CHECK(bench.outputs[2][0] == a_to_b);
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {}));
  bench.only(0);
  bench.receive(0, a_to_b);
  CHECK(bench.only(1) == a_to_b);
  bench.receive(1, a_to_b);  // moved
  CHECK(bench.dropped == DropReason::hairpin);
  bench.now_ns += 301'000'000'000;
  bench.receive(0, a_to_b);
  CHECK(bench.outputs.size() == 2);
}

TEST_CASE("a station that moves between two packets of a batch is sent to where it is now") {
  SwitchBench bench;
  bench.apply(flat(3));
  const Bytes a_to_b = tcp_frame(kA, kB, kIpA, kIpB, {});
  const Bytes b_to_a = tcp_frame(kB, kA, kIpB, kIpA, {});
  bench.receive(1, b_to_a);
  const Bytes b_to_all = tcp_frame(kB, kBroadcast, kIpB, kIpA, {});
  bench.receive_together({{0, a_to_b}, {0, a_to_b}, {2, b_to_all}, {0, a_to_b}});
  CHECK(bench.outputs[0] == std::vector<Bytes>{b_to_all});
  CHECK(bench.outputs[1] == std::vector<Bytes>{a_to_b, a_to_b, b_to_all});
  CHECK(bench.outputs[2] == std::vector<Bytes>{a_to_b});
  // The sender moves.
  bench.receive_together({{0, a_to_b}, {1, a_to_b}});
  bench.receive(2, b_to_a);
  CHECK(bench.only(1) == b_to_a);
  bench.receive_together({{1, a_to_b}, {0, a_to_b}});
  // To a station that nobody has heard of, then to one that is known, in turns.
  const Bytes a_to_c = tcp_frame(kA, kC, kIpA, kIpB, {});
  bench.receive_together({{0, a_to_c}, {0, a_to_b}, {0, a_to_c}});
  CHECK(bench.outputs[1] == std::vector<Bytes>{a_to_c, a_to_c});
  CHECK(bench.outputs[2] == std::vector<Bytes>{a_to_c, a_to_b, a_to_c});
}

TEST_CASE("networks do not see each other, though they share addresses") {
  SwitchBench bench;
  SwitchConfig config = flat(4);
  config.networks.push_back({.index = 1, .name = "red"});
  config.ports[2].attachments = config.ports[3].attachments = {{1, kUntagged}};
  bench.apply(config);
  bench.receive(0, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  bench.only(1);
  bench.receive(2, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  bench.only(3);
}

TEST_CASE("a trunk's tag comes off on the way in and goes on on the way out") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.networks.push_back({.index = 1, .name = "red", .vlan_transparent = false});
  config.ports[1].attachments = {{0, 10}, {1, 20}};
  bench.apply(config);
  const Bytes plain = tcp_frame(kA, kBroadcast, kIpA, kIpB, {}, Bytes(100));
  bench.receive(0, plain);
  Bytes tagged = bench.only(1);
  REQUIRE(tagged.size() == plain.size() + 4);
  CHECK(get16(tagged, 12) == 0x8100);
  CHECK(get16(tagged, 14) == 10);
  store_mac(tagged.data() + 6, kB);
  bench.receive(1, tagged);
  CHECK(bench.only(0) == between(kB, kBroadcast, plain));
  set16(tagged, 14, 30);
  bench.receive(1, tagged);
  CHECK(bench.dropped == DropReason::vlan_mismatch);
}

TEST_CASE("a tag that a sender brings along leads to no network that another port knows by it") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.networks.push_back({.index = 1, .name = "red"});
  config.ports[1].attachments = {{0, kUntagged}, {1, 10}};
  config.ports[2].attachments = {{0, kUntagged}};
  bench.apply(config);
  const Bytes packet = ipv4({.protocol = 6}, tcp({}, {}));
  const auto reaches = [&](const std::vector<unsigned>& tags) {
    bench.receive(0, between(kA, kBroadcast, ethernet({.vlans = tags}, packet)));
    CHECK(bench.outputs.count(2) == 1);
    return bench.outputs.count(1) == 1;
  };
  CHECK(reaches({}));
  CHECK(reaches({20}));
  CHECK(reaches({20, 10}));
  CHECK(reaches({0}));
  CHECK_FALSE(reaches({10}));
  CHECK_FALSE(reaches({0, 10}));
  CHECK_FALSE(reaches({0, 0, 10}));
  // Where a network lets no tags pass, none does behind a priority or the port's own.
  config.networks[0].vlan_transparent = config.networks[1].vlan_transparent = false;
  bench.apply(config);
  CHECK(reaches({0}));
  for (const std::vector<unsigned>& tags :
       {std::vector<unsigned>{20}, {0, 20}, {0, 0, 20}, {10, 20}, {10, 0, 20}}) {
    CAPTURE(tags.size());
    bench.receive(tags[0] == 10 ? 1 : 0, between(kA, kBroadcast, ethernet({.vlans = tags}, packet)));
    CHECK(bench.dropped == DropReason::vlan_mismatch);
  }
}

TEST_CASE("connections of a network end with it, before its number means another one") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.networks.push_back({.index = 1, .name = "red", .tracking = true});
  config.ports[0].attachments = config.ports[1].attachments = {{0, kUntagged}, {1, 10}};
  config.networks[0].tracking = true;
  bench.apply(config);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2}));
  bench.receive(0, between(kA, kB, ethernet({.vlans = {10}}, ipv4({.protocol = 6}, tcp({.flags = 2}, {})))));
  REQUIRE(bench->state().connections().size() == 2);
  config.networks.pop_back();
  config.ports[0].attachments.pop_back();
  config.ports[1].attachments.pop_back();
  bench.apply(config);
  CHECK(bench->state().connections().size() == 1);
}

TEST_CASE("equal connections of two networks on one trunk are two connections") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.networks.push_back({.index = 1, .name = "red"});
  config.networks[0].tracking = config.networks[1].tracking = true;
  config.ports[0].attachments = {{0, 10}, {1, 20}};
  config.ports[2].attachments = {{1, kUntagged}};
  RuleConfig rule{.id = 1, .priority = 1};
  rule.match.mask.set_network(0xffffffff);
  rule.match.value.set_network(1);
  rule.actions.mark = 1;
  config.rules.push_back(rule);
  bench.apply(config);
  Bytes frame = between(kA, kB, ethernet({.vlans = {10}}, ipv4({.protocol = 6}, tcp({.flags = 2}, {}))));
  bench.receive(0, frame);
  bench.only(1);
  set16(frame, 14, 20);
  bench.receive(0, frame);
  bench.only(2);
  CHECK(bench->state().connections().size() == 2);
  CHECK(bench->rule_traffic()[0].traffic.packets == 1);
}

TEST_CASE("a virtual function cannot claim another's addresses") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.ports[0].anti_spoof = true;
  config.ports[0].mac = kA;
  config.ports[0].addresses = {{ip4(kIpA), 128}};
  bench.apply(config);
  bench.receive(0, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  CHECK(bench.dropped == DropReason::none);
  bench.receive(0, tcp_frame(kC, kBroadcast, kIpA, kIpB, {}));
  CHECK(bench.dropped == DropReason::spoofed_mac);
  bench.receive(0, tcp_frame(kA, kBroadcast, kIpB, kIpA, {}));
  CHECK(bench.dropped == DropReason::spoofed_ip);
  bench.receive(0, udp_frame(kA, kBroadcast, 0, 0xffffffff, 68, 67, Bytes(8)));
  CHECK(bench.dropped == DropReason::none);  // asks for an address
  Bytes arp;
  for (const unsigned word : {0x0001U, 0x0800U, 0x0604U, 0x0002U}) put16(arp, word);
  put(arp, mac_bytes(kA));
  put32(arp, kIpB);
  put(arp, mac_bytes(kB));
  put32(arp, kIpB);
  bench.receive(0, between(kA, kB, ethernet({.type = 0x0806}, arp)));
  CHECK(bench.dropped == DropReason::spoofed_ip);
}

// Whoever completes it writes two bytes of the sender's choice where the sender says.
TEST_CASE("a checksum that is left to be summed stands where checksums do, or behind all that is looked at") {
  SwitchBench bench;
  bench.apply(flat(2));
  const auto accepted = [&](const Bytes& frame, std::size_t start, std::size_t field) {
    Offload offload;
    offload.checksum = ChecksumState::partial;
    offload.checksum_start = static_cast<uint16_t>(start);
    offload.checksum_offset = static_cast<uint16_t>(field - start);
    bench.receive(0, frame, offload);
    return bench.dropped == DropReason::none;
  };
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {}, Bytes(60));
  for (std::size_t field = 20; field + 2 <= frame.size(); ++field) {
    CAPTURE(field);
    CHECK(accepted(frame, 20, field) == (field >= 54));
    if (field >= 34) CHECK(accepted(frame, 34, field) == (field == 50 || field >= 54));
  }
  const Bytes tagged = between(kA, kB, ethernet({.vlans = {0}}, ipv4({.protocol = 6}, tcp({}, {}))));
  CHECK_FALSE(accepted(tagged, 14, 14));
  CHECK_FALSE(accepted(tagged, 14, 16));
  CHECK(accepted(tagged, 38, 54));
}

// Behind its header stands whose address is advertised, or whose packet is quoted.
TEST_CASE("nothing of an ICMP message or of ARP but ICMP's own checksum is left to be summed") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.ports[0].anti_spoof = true;
  config.ports[0].mac = kA;
  IpAddress own{};
  own[0] = 0xfd;
  own[15] = 1;
  config.ports[0].addresses = {{own, 128}};
  bench.apply(config);
  Bytes advertisement;
  put32(advertisement, 0x88000000);
  put32(advertisement, 0x20000000);
  put(advertisement, ipv6_address(1));
  put(advertisement, Bytes(8));
  const Bytes frame =
      between(kA, kBroadcast, ethernet({.type = 0x86dd}, ipv6({.hops = 255, .next = 58}, advertisement)));
  Bytes message;
  for (const unsigned word : {0x0001U, 0x0800U, 0x0004U, 0x0002U}) put16(message, word);
  const Bytes arp = between(kA, kBroadcast, ethernet({.type = 0x0806}, [&] {
                              put(message, mac_bytes(kA));
                              put(message, Bytes(14));
                              return message;
                            }()));
  const auto accepted = [&](const Bytes& bytes, std::size_t start, std::size_t field) {
    Offload offload;
    offload.checksum = ChecksumState::partial;
    offload.checksum_start = static_cast<uint16_t>(start);
    offload.checksum_offset = static_cast<uint16_t>(field - start);
    bench.receive(0, bytes, offload);
    return bench.dropped == DropReason::none;
  };
  CHECK(accepted(frame, 54, 56));
  for (std::size_t field = 62; field + 2 <= frame.size(); ++field) {
    CAPTURE(field);
    CHECK_FALSE(accepted(frame, 54, field));
    CHECK_FALSE(accepted(frame, 62, field));
  }
  for (std::size_t field = 22; field + 2 <= arp.size(); ++field) {
    CAPTURE(field);
    CHECK_FALSE(accepted(arp, 14, field));
  }
}

TEST_CASE("the rule of highest priority decides, and counts across configurations") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  RuleConfig refuse{.id = 7, .priority = 10, .match = tcp_port(5001)};
  refuse.actions.verdict = Verdict::drop;
  RuleConfig redirect{.id = 8, .priority = 20, .match = tcp_port(5001)};
  redirect.match.mask.set_ingress(0xffff);
  redirect.match.value.set_ingress(1);
  redirect.actions.verdict = Verdict::output;
  redirect.actions.output = 2;
  config.rules = {refuse, redirect};
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {});
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::rule);
  bench.receive(1, frame);
  CHECK(bench.only(2) == frame);
  bench.apply(config);
  bench.receive(0, frame);
  const auto traffic = bench->rule_traffic();
  REQUIRE(traffic.size() == 2);
  CHECK(traffic[0].traffic.packets == 2);
  CHECK(traffic[0].traffic.bytes == 2 * frame.size());
  CHECK(traffic[1].traffic.packets == 1);
}

TEST_CASE("a bad configuration names the key and changes nothing") {
  SwitchBench bench;
  bench.apply(flat(2));
  SwitchConfig bad = flat(2);
  bad.rules.push_back({.id = 1});
  bad.rules[0].actions.verdict = Verdict::output;
  bad.rules[0].actions.output = 9;
  const auto applied = bench->apply(bad);
  REQUIRE_FALSE(applied.ok());
  CHECK(applied.error().message == "rules[0].output: no such port");
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  bench.only(1);
}

// Port 1 takes TCP to 5001 and may itself say anything.
static SwitchConfig guarded() {
  SwitchConfig config = flat(2);
  config.groups.resize(1);
  config.groups[0].rules.push_back({GroupDirection::to_port, tcp_port(5001)});
  config.groups[0].rules.push_back({GroupDirection::from_port, Match{}});
  config.ports[1].groups = {0};
  return config;
}

TEST_CASE("a security group admits what it names, the answers to it, and nothing else") {
  SwitchBench bench;
  bench.apply(guarded());
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.destination = 22, .flags = 2}));
  CHECK(bench.dropped == DropReason::security_group);
  CHECK(bench->state().connections().size() == 0);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2}));
  bench.only(1);
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {.source = 5001, .destination = 40000, .flags = 0x12}));
  bench.only(0);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.flags = 0x10}));
  bench.only(1);
  // What the guarded port begins is answered.
  bench.receive(1, udp_frame(kB, kA, kIpB, kIpA, 5353, 53, Bytes(4)));
  bench.only(0);
  bench.receive(0, udp_frame(kA, kB, kIpA, kIpB, 53, 5353, Bytes(4)));
  bench.only(1);
  bench.receive(0, udp_frame(kA, kB, kIpA, kIpB, 53, 5354, Bytes(4)));
  CHECK(bench.dropped == DropReason::security_group);
}

// While nobody knows where a station is, everybody whose groups allow it gets a copy; that says nothing for
// the others.
TEST_CASE("a connection that one port's groups admit from a flood is not admitted to the other ports") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.groups.resize(2);
  config.groups[0].rules.push_back({GroupDirection::to_port, tcp_port(5001)});
  config.groups[1].rules.push_back({GroupDirection::from_port, Match{}});
  config.ports[1].groups = {0};
  config.ports[2].groups = {1};
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kC, kIpA, kIpB, {.flags = 2});
  for (int i = 0; i < 3; ++i) {
    bench.receive(0, frame);
    bench.only(1);
  }
  // Now it is known to stand behind the port that refuses it.
  bench.receive(2, udp_frame(kC, kBroadcast, kIpB, kIpA, 1, 2, Bytes(4)));
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::security_group);
}

// Who sends to it says which station that is, whatever the address.
TEST_CASE("a connection that is admitted to one port is not admitted to another one") {
  SwitchBench bench;
  SwitchConfig config = flat(4);
  config.groups.resize(1);
  config.groups[0].rules.push_back({GroupDirection::from_port, Match{}});
  config.ports[2].groups = {0};
  bench.apply(config);
  bench.receive(1, udp_frame(kB, kBroadcast, kIpB, kIpA, 1, 2, Bytes(4)));
  bench.receive(2, udp_frame(kC, kBroadcast, kIpC, kIpA, 1, 2, Bytes(4)));
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpC, {.destination = 22, .flags = 2}));
  bench.only(1);
  bench.receive(0, tcp_frame(kA, kC, kIpA, kIpC, {.destination = 22, .flags = 2}));
  CHECK(bench.dropped == DropReason::security_group);
  // With an answer of the accomplice's, too.
  bench.receive(1, tcp_frame(kB, kA, kIpC, kIpA, {.source = 22, .destination = 40000, .flags = 0x12}));
  bench.only(0);
  bench.receive(0, tcp_frame(kA, kC, kIpA, kIpC, {.destination = 22, .flags = 0x10}));
  CHECK(bench.dropped == DropReason::security_group);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpC, {.destination = 22, .flags = 0x10}));
  bench.only(1);
  // What the guarded station began goes on when the other end moves.
  bench.receive(2, udp_frame(kC, kB, kIpC, kIpB, 5353, 53, Bytes(4)));
  bench.only(1);
  bench.receive(3, udp_frame(kB, kC, kIpB, kIpC, 53, 5353, Bytes(4)));
  bench.only(2);
}

TEST_CASE("an ICMP error comes through a security group only to the end whose packet it quotes") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.groups.resize(1);
  config.groups[0].rules.push_back({GroupDirection::from_port, Match{}});
  config.ports[1].groups = config.ports[2].groups = {0};
  bench.apply(config);
  bench.receive(2, udp_frame(kC, kBroadcast, kIpC, kIpA, 1, 2, Bytes(4)));
  const Bytes sent = udp_frame(kB, kA, kIpB, kIpA, 1111, 2222, Bytes(40));
  bench.receive(1, sent);
  Bytes icmp;
  put32(icmp, 0x03030000);
  put32(icmp, 0);
  put(icmp, slice(sent, 14, 28));
  const auto error = [&](Mac mac, uint32_t to) {
    return summed(
        between(kA, mac, ethernet({}, ipv4({.protocol = 1, .source = kIpA, .destination = to}, icmp))));
  };
  bench.receive(0, error(kB, kIpB));
  bench.only(1);
  bench.receive(0, error(kC, kIpC));
  CHECK(bench.dropped != DropReason::none);
}

TEST_CASE("a connection lives through a change of configuration, unless that refuses it") {
  SwitchBench bench;
  bench.apply(guarded());
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2}));
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {.source = 5001, .destination = 40000, .flags = 0x12}));
  bench.apply(guarded());
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {.source = 5001, .destination = 40000}));
  bench.only(0);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  bench.only(1);
  SwitchConfig closed = guarded();
  closed.groups[0].rules.erase(closed.groups[0].rules.begin());
  bench.apply(closed);
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {.source = 5001, .destination = 40000}));
  CHECK(bench.dropped == DropReason::security_group);
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  CHECK(bench.dropped == DropReason::security_group);
}

TEST_CASE("later fragments follow their first one past a security group") {
  SwitchBench bench;
  SwitchConfig config = guarded();
  config.groups[0].rules[0].match.value.set_protocol(17);
  bench.apply(config);
  const Bytes datagram = udp(40000, 5001, Bytes(64));
  const auto fragment = [&](unsigned offset, bool more, const Bytes& bytes) {
    return between(kA, kB,
                   ethernet({}, ipv4({.id = 77, .fragment = (more ? 0x2000U : 0U) | offset / 8}, bytes)));
  };
  bench.receive(0, fragment(32, false, slice(datagram, 32, 40)));
  CHECK(bench.dropped == DropReason::security_group);  // its first was never seen
  bench.receive(0, fragment(0, true, slice(datagram, 0, 32)));
  bench.only(1);
  bench.receive(0, fragment(32, false, slice(datagram, 32, 40)));
  bench.only(1);
}

// Receivers take off as many of them as there are (Linux: priority tags, one after the other).
TEST_CASE("more tags than are looked behind hide nothing from a group, nor whose address it is") {
  SwitchBench bench;
  bench.apply(guarded());
  const Bytes packet =
      ipv4({.protocol = 6, .source = kIpA, .destination = kIpB}, tcp({.destination = 22}, {}));
  for (std::size_t tags = 1; tags <= 4; ++tags) {
    CAPTURE(tags);
    bench.receive(0, between(kA, kB, ethernet({.vlans = std::vector<unsigned>(tags)}, packet)));
    CHECK(bench.dropped == DropReason::security_group);
  }
  SwitchConfig config = flat(2);
  config.ports[0].anti_spoof = true;
  config.ports[0].mac = kA;
  config.ports[0].addresses = {{ip4(kIpC), 128}};
  bench.apply(config);
  for (std::size_t tags = 1; tags <= 4; ++tags) {
    CAPTURE(tags);
    bench.receive(0, between(kA, kB, ethernet({.vlans = std::vector<unsigned>(tags)}, packet)));
    CHECK(bench.dropped == DropReason::spoofed_ip);
  }
}

// What clients of port 0 send leaves by port 1 with the address 192.0.2.1.
static constexpr uint32_t kPublic = 0xc0000201, kOutside = 0xc6336401;

static SwitchConfig masquerade() {
  SwitchConfig config = flat(2);
  RuleConfig rule{.id = 1, .priority = 1};
  rule.match.mask.set_ingress(0xffff);
  rule.actions.nat = {
      .kind = NatKind::source, .address = ip4(kPublic), .ports = {40000, 40003}, .mac = kRouter};
  config.rules.push_back(rule);
  config.networks[0].responders.push_back({.address = ip4(kPublic), .ip_version = 4, .mac = kRouter});
  return config;
}

TEST_CASE("source translation hides clients behind one address and brings answers back") {
  SwitchBench bench;
  bench.apply(masquerade());
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));  // port 1's station is known
  struct Client {
    Mac mac;
    uint32_t ip;
    unsigned port;
  };
  for (const Client& client :
       {Client{kA, kIpA, 40000}, Client{kC, kIpA + 5, 40000}, Client{kC, kIpA + 6, 555}}) {
    bench.receive(0,
                  tcp_frame(client.mac, kB, client.ip, kOutside,
                            {.source = client.port, .destination = 80, .flags = 2}, Bytes(33, std::byte{5})));
    const Bytes out = bench.only(1);
    REQUIRE(checksums_hold(out));
    CHECK(load_mac(out.data() + 6) == kRouter);
    CHECK((get16(out, 26) << 16 | get16(out, 28)) == kPublic);
    const unsigned port = get16(out, 34);
    CHECK(port >= 40000);
    CHECK(port <= 40003);
    bench.receive(1, tcp_frame(kB, kRouter, kOutside, kPublic,
                               {.source = 80, .destination = port, .flags = 0x12}, Bytes(7, std::byte{9})));
    const Bytes in = bench.only(0);
    REQUIRE(checksums_hold(in));
    CHECK(load_mac(in.data()) == client.mac);
    CHECK((get16(in, 30) << 16 | get16(in, 32)) == client.ip);
    CHECK(get16(in, 36) == client.port);
  }
  // The fifth connection to one server finds no port.
  for (unsigned i = 0; i < 2; ++i)
    bench.receive(0, tcp_frame(kA, kB, kIpA, kOutside, {.source = 700 + i, .destination = 80, .flags = 2}));
  CHECK(bench.dropped == DropReason::connections_full);
}

TEST_CASE("a source translation for which there is no connection to be had does not try every port") {
  SwitchBench bench({.connections = {.connections_max = 256}, .flows_per_worker = 1024});
  bench.apply(masquerade());
  ConnectionTable& table = bench->state().connections();
  for (unsigned port = 1; port < 8000 && table.size() < 256; ++port) {
    bench.receive(1, udp_frame(kB, kA, kIpB, kIpA, port, 53, {}));
    bench.receive(0, udp_frame(kA, kB, kIpA, kIpB, 53, port, {}));
  }
  REQUIRE(table.size() == 256);
  const uint64_t refused = table.refused();
  bench.receive(0, udp_frame(kA, kB, kIpA, kOutside, 5000, 53, {}));
  CHECK(bench.dropped == DropReason::connections_full);
  CHECK(table.refused() == refused + 1);
}

TEST_CASE("pings through a source translation come back to who asked") {
  SwitchBench bench;
  bench.apply(masquerade());
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));
  bench.receive(0, echo(kA, kB, kIpA, kOutside, 8, 1));
  const Bytes out = bench.only(1);
  REQUIRE(checksums_hold(out));
  const unsigned id = get16(out, 38);
  bench.receive(1, echo(kB, kRouter, kOutside, kPublic, 0, id));
  const Bytes in = bench.only(0);
  REQUIRE(checksums_hold(in));
  CHECK(get16(in, 38) == 1);
  CHECK((get16(in, 30) << 16 | get16(in, 32)) == kIpA);
}

TEST_CASE("an ICMP error about a translated packet is translated, quotation included") {
  SwitchBench bench;
  bench.apply(masquerade());
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));
  const Bytes sent = udp_frame(kA, kB, kIpA, kOutside, 1111, 2222, Bytes(40));
  bench.receive(0, sent);
  const Bytes out = bench.only(1);
  Bytes icmp;
  put32(icmp, 0x03030000);
  put32(icmp, 0);
  put(icmp, slice(out, 14, 28));
  const Bytes error = summed(between(
      kB, kRouter, ethernet({}, ipv4({.protocol = 1, .source = kOutside, .destination = kPublic}, icmp))));
  bench.receive(1, error);
  const Bytes in = bench.only(0);
  REQUIRE(checksums_hold(in));
  CHECK((get16(in, 30) << 16 | get16(in, 32)) == kIpA);
  CHECK(slice(in, 42, 28) == slice(sent, 14, 28));
}

TEST_CASE("pings too large for one packet come back through a source translation") {
  SwitchBench bench;
  bench.apply(masquerade());
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));
  Bytes icmp;
  put32(icmp, 0x08000000);
  put32(icmp, 0x12340001);
  put(icmp, Bytes(24, std::byte{1}));
  const auto fragment = [&](Mac from, Mac to, uint32_t source, uint32_t destination) {
    return between(
        from, to,
        ethernet({}, ipv4({.fragment = 0x2000, .protocol = 1, .source = source, .destination = destination},
                          icmp)));
  };
  bench.receive(0, fragment(kA, kB, kIpA, kOutside));
  const Bytes out = bench.only(1);
  CHECK((get16(out, 26) << 16 | get16(out, 28)) == kPublic);
  CHECK(get16(out, 38) == 0x1234);
  icmp[0] = std::byte{0};
  bench.receive(1, fragment(kB, kRouter, kOutside, kPublic));
  const Bytes in = bench.only(0);
  CHECK((get16(in, 30) << 16 | get16(in, 32)) == kIpA);
  CHECK(get16(in, 38) == 0x1234);
}

// A guest's own tunnel: what is left to be summed stands inside, the outer checksum is right or absent.
TEST_CASE("a translation minds the outer checksum of a tunnel whose inner one is partial") {
  SwitchBench bench;
  SwitchConfig config = masquerade();
  config.ports[1].offloads.checksum = true;
  bench.apply(config);
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));
  const Bytes inside = ethernet({}, ipv4({.protocol = 6}, tcp({}, Bytes(20))));
  const Bytes with = udp_frame(kA, kB, kIpA, kOutside, 50000, 4789, vxlan(5, inside));
  Bytes without = with;
  set16(without, 40, 0);
  Offload partial;
  partial.checksum = ChecksumState::partial;
  partial.checksum_start = 50 + 34;
  partial.checksum_offset = 16;
  bench.receive(0, with, partial);
  CHECK(checksums_hold(bench.only(1)));
  bench.receive(0, without, partial);
  CHECK(get16(bench.only(1), 40) == 0);
}

TEST_CASE("who sent too much through a translation is told so in its own words") {
  SwitchBench bench;
  SwitchConfig config = masquerade();
  config.ports[1].mtu = 1000;
  bench.apply(config);
  bench.receive(1, tcp_frame(kB, kBroadcast, kOutside, kIpA, {}));
  const Bytes sent = udp_frame(kA, kB, kIpA, kOutside, 1111, 2222, Bytes(1200));
  bench.receive(0, sent);
  CHECK(bench.dropped == DropReason::too_big);
  const Bytes answer = bench.only(0);
  REQUIRE(checksums_hold(answer));
  CHECK(load_mac(answer.data()) == kA);
  CHECK((get16(answer, 26) << 16 | get16(answer, 28)) == kOutside);
  CHECK((get16(answer, 30) << 16 | get16(answer, 32)) == kIpA);
  CHECK(slice(answer, 42, 28) == slice(sent, 14, 28));
}

TEST_CASE("destination translation publishes a server on another port") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  RuleConfig rule{.id = 1, .priority = 1, .match = tcp_port(80)};
  rule.actions.nat = {.kind = NatKind::destination, .address = ip4(kIpB), .ports = {8080, 8080}, .mac = kB};
  config.rules.push_back(rule);
  bench.apply(config);
  bench.receive(1, tcp_frame(kB, kBroadcast, kIpB, kIpA, {.source = 9}));
  bench.receive(0, tcp_frame(kA, kRouter, kIpA, kPublic, {.destination = 80, .flags = 2}));
  const Bytes out = bench.only(1);
  REQUIRE(checksums_hold(out));
  CHECK(load_mac(out.data()) == kB);
  CHECK(get16(out, 36) == 8080);
  bench.receive(1, tcp_frame(kB, kA, kIpB, kIpA, {.source = 8080, .destination = 40000, .flags = 0x12}));
  const Bytes in = bench.only(0);
  REQUIRE(checksums_hold(in));
  CHECK(load_mac(in.data() + 6) == kRouter);
  CHECK((get16(in, 26) << 16 | get16(in, 28)) == kPublic);
  CHECK(get16(in, 34) == 80);
}

TEST_CASE("address resolution for the switch's own addresses is answered by the switch") {
  SwitchBench bench;
  bench.apply(masquerade());
  Bytes arp;
  for (const unsigned word : {0x0001U, 0x0800U, 0x0604U, 0x0001U}) put16(arp, word);
  put(arp, mac_bytes(kA));
  put32(arp, kIpA);
  put(arp, Bytes(6));
  put32(arp, kPublic);
  bench.receive(0, between(kA, kBroadcast, ethernet({.type = 0x0806}, arp)));
  const Bytes answer = bench.only(0);
  CHECK(load_mac(answer.data()) == kA);
  CHECK(load_mac(answer.data() + 6) == kRouter);
  CHECK(get16(answer, 20) == 2);
  CHECK(load_mac(answer.data() + 22) == kRouter);
  CHECK((get16(answer, 28) << 16 | get16(answer, 30)) == kPublic);
}

static constexpr uint32_t kTunnelHere = 0xac100001, kTunnelThere = 0xac100002;

// Port 0 is a guest, port 9 the underlay.
static SwitchConfig overlay(uint32_t local, uint32_t peer, bool gso) {
  SwitchConfig config = flat(1);
  PortConfig underlay;
  underlay.id = 9;
  underlay.name = "underlay";
  underlay.underlay = true;
  underlay.mtu = 1600;
  if (gso)
    underlay.offloads = {
        .checksum = true, .tso4 = true, .udp_tunnel_gso = true, .udp_tunnel_gso_checksum = true};
  config.ports.push_back(underlay);
  NetworkConfig& network = config.networks[0];
  network.tunnel = TunnelKind::vxlan;
  network.vni = 100;
  network.underlay = 9;
  network.local = ip4(local);
  network.peers = {{ip4(peer), 4}};
  return config;
}

TEST_CASE("two switches carry a guest's frames through a tunnel, and learn where stations are") {
  SwitchBench here;
  SwitchBench there;
  here.apply(overlay(kTunnelHere, kTunnelThere, false));
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  const Bytes question = tcp_frame(kA, kB, kIpA, kIpB, {}, Bytes(200, std::byte{3}));
  here.receive(0, question);
  const Bytes outer = here.only(9);
  CHECK(outer.size() == question.size() + 50);
  CHECK(get16(outer, 36) == 4789);
  there.receive(9, outer);
  CHECK(there.only(0) == question);
  there.receive(0, tcp_frame(kB, kA, kIpB, kIpA, {}));
  here.receive(9, there.only(9));
  CHECK(load_mac(here.only(0).data()) == kA);
  // A frame from the tunnel never goes back into it, known address or not.
  there.receive(0, tcp_frame(kC, kRouter, kIpB, kIpA, {}));
  here.receive(9, there.only(9));
  here.only(0);
  there.receive(0, tcp_frame(kC, kB, kIpB, kIpA, {}));
  CHECK(there.dropped == DropReason::hairpin);
  SwitchConfig stranger = overlay(kTunnelHere, kTunnelThere + 1, false);
  here.apply(stranger);
  here.receive(9, outer);
  CHECK(here.dropped == DropReason::unknown_peer);
  stranger.networks[0].vni = 101;
  here.apply(stranger);
  here.receive(9, outer);
  CHECK(here.dropped == DropReason::unknown_network);
}

TEST_CASE("what comes out of a tunnel leaves its checksum where checksums stand, too") {
  SwitchBench here;
  SwitchBench there;
  here.apply(overlay(kTunnelHere, kTunnelThere, false));
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  there.receive(0, tcp_frame(kB, kA, kIpB, kIpA, {}, Bytes(40)));
  const Bytes outer = there.only(9);
  for (std::size_t field = 64; field + 2 <= outer.size(); field += 2) {
    CAPTURE(field);
    Offload offload;
    offload.checksum = ChecksumState::partial;
    offload.checksum_start = static_cast<uint16_t>(field >= 84 ? 84 : 64);
    offload.checksum_offset = static_cast<uint16_t>(field - offload.checksum_start);
    here.receive(9, outer, offload);
    CHECK((here.dropped == DropReason::none) == (field == 100 || field >= 104));
  }
}

TEST_CASE("a peer that the configuration has no more gets nothing and brings nothing") {
  SwitchBench here;
  SwitchBench there;
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  here.apply(overlay(kTunnelHere, kTunnelThere, false));
  there.receive(0, tcp_frame(kB, kA, kIpB, kIpA, {}));
  const Bytes outer = there.only(9);
  here.receive(9, outer);
  here.only(0);
  SwitchConfig alone = overlay(kTunnelHere, kTunnelThere, false);
  alone.networks[0].peers.clear();
  here.apply(alone);
  here.receive(9, outer);
  CHECK(here.dropped == DropReason::unknown_peer);
  here.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  CHECK(here.dropped == DropReason::no_route);
}

TEST_CASE("of a leaving peer unicast still comes in, broadcasts do not, and nothing is learned or sent") {
  SwitchBench here;
  SwitchBench there;
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  SwitchConfig moved = overlay(kTunnelHere, kTunnelThere + 1, false);
  moved.networks[0].leaving = overlay(kTunnelHere, kTunnelThere, false).networks[0].peers;
  here.apply(moved);
  there.receive(0, tcp_frame(kB, kA, kIpB, kIpA, {}));
  here.receive(9, there.only(9));
  here.only(0);
  there.receive(0, tcp_frame(kB, kBroadcast, kIpB, kIpA, {}));
  here.receive(9, there.only(9));
  CHECK(here.dropped == DropReason::leaving_peer);
  // To the successor, although the other one has just spoken for this station.
  here.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  CHECK(get16(here.only(9), 32) == ((kTunnelThere + 1) & 0xffff));
}

TEST_CASE("peers are learned where the network allows it") {
  SwitchBench here;
  SwitchBench there;
  SwitchConfig config = overlay(kTunnelHere, kTunnelThere, false);
  config.networks[0].peers.clear();
  config.networks[0].learn_peers = true;
  here.apply(config);
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  here.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}));
  CHECK(here.dropped == DropReason::no_route);
  there.receive(0, tcp_frame(kB, kBroadcast, kIpB, kIpA, {}));
  here.receive(9, there.only(9));
  here.only(0);
  here.receive(0, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  here.only(9);
}

TEST_CASE("however many peers are heard of, there is room for those of a configuration") {
  SwitchBench here;
  SwitchBench there;
  SwitchConfig config = overlay(kTunnelHere, kTunnelThere, false);
  config.networks[0].learn_peers = true;
  here.apply(config);
  there.apply(overlay(kTunnelThere, kTunnelHere, false));
  there.receive(0, tcp_frame(kB, kA, kIpB, kIpA, {}));
  Bytes outer = there.only(9);
  for (unsigned i = 0; i < PeerTable::kPeersMax; ++i) {
    const uint32_t forged = 0x0b000000 + i;
    set16(outer, 26, forged >> 16);
    set16(outer, 28, forged & 0xffff);
    set16(outer, 40, 0);
    set16(outer, 24, 0);
    set16(outer, 24, ~naive_sum(slice(outer, 14, 20)) & 0xffff);
    here.receive(9, outer);
  }
  CHECK(here.dropped == DropReason::unknown_peer);
  config.networks[0].peers = {{ip4(kTunnelThere + 1), 4}};
  here.apply(config);
}

static Offload superframe(uint16_t gso_size) {
  Offload offload;
  offload.gso = Gso::tcp4;
  offload.gso_size = gso_size;
  offload.checksum = ChecksumState::partial;
  offload.checksum_start = 34;
  offload.checksum_offset = 16;
  offload.header_length = 54;
  return offload;
}

// A TCP superframe whose checksum field holds the pseudo header's sum.
static Bytes superframe_bytes(std::size_t payload) {
  std::mt19937 random(5);
  Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {.flags = 0x18}, random_bytes(payload, random));
  Bytes pseudo;
  put32(pseudo, kIpA);
  put32(pseudo, kIpB);
  put16(pseudo, 6);
  put16(pseudo, static_cast<unsigned>(20 + payload));
  set16(frame, 50, naive_sum(pseudo));
  return frame;
}

TEST_CASE("a superframe passes whole where the egress takes it, and in segments where it does not") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.ports[1].offloads = {.checksum = true, .tso4 = true};
  bench.apply(config);
  const Bytes frame = superframe_bytes(20000);
  bench.receive(0, frame, superframe(1460));
  CHECK(bench.only(1) == frame);
  CHECK(bench.offloads[1][0].gso == Gso::tcp4);
  CHECK(bench.offloads[1][0].gso_size == 1460);
  // Only the engine is trusted.
  RuleConfig rule{.id = 1, .priority = 1};
  rule.actions.segment = SegmentBy::engine;
  config.rules.push_back(rule);
  bench.apply(config);
  bench.receive(0, frame, superframe(1460));
  REQUIRE(bench.outputs[1].size() == 14);
  Bytes payload;
  for (const Bytes& segment : bench.outputs[1]) {
    CHECK(segment.size() <= 1514);
    CHECK(checksums_hold(segment));
    put(payload, slice(segment, 54, segment.size() - 54));
  }
  CHECK(payload == slice(frame, 54, 20000));
  CHECK(bench.offloads[1][0].gso == Gso::none);
}

// A guest's own tunnel.
static Bytes guest_tunnel(std::size_t payload) {
  const Bytes inside = ethernet({}, ipv4({.protocol = 6}, tcp({}, Bytes(payload))));
  return between(
      kA, kB, ethernet({}, ipv4({.source = kIpA, .destination = kIpB}, udp(50000, 4789, vxlan(5, inside)))));
}

static Offload guest_superframe(uint16_t gso_size) {
  Offload offload = superframe(gso_size);
  offload.header_length += 50;
  offload.checksum_start += 50;
  offload.tunnel = true;
  offload.outer_transport = 34;
  offload.inner_network = 50 + 14;
  return offload;
}

TEST_CASE("a superframe of a guest's own tunnel leaves in segments where the egress does not take it") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.mirrors.push_back({.from = 0, .received = true, .to = 2});
  bench.apply(config);
  bench.receive(1, tcp_frame(kB, kBroadcast, kIpB, kIpA, {}));
  Bytes whole = guest_tunnel(3000);
  set16(whole, 40, 0);
  bench.receive(0, whole, guest_superframe(1000));
  CHECK(bench.dropped == DropReason::none);
  CHECK(bench.outputs[1].size() == 3);
  CHECK(bench.outputs[2].size() == 3);
  // Each of them is longer than the MTU, and may not be fragmented.
  config.ports[1].mtu = 1000;
  bench.apply(config);
  bench.receive(0, whole, guest_superframe(1000));
  CHECK(bench.dropped == DropReason::too_big);
  CHECK(bench.outputs[1].empty());
  // With the headers inside only the last one fits.
  bench.receive(0, whole, guest_superframe(960));
  CHECK(bench.outputs[1].size() == 1);
  bench.receive(0, whole, guest_superframe(910));
  CHECK(bench.outputs[1].size() == 4);
}

TEST_CASE("a guest with MTU 1500 just works over an underlay of 1500") {
  SwitchBench bench;
  SwitchConfig config = overlay(kTunnelHere, kTunnelThere, true);
  config.ports[1].mtu = 1500;
  bench.apply(config);
  // TCP superframe: smaller segments, carried whole.
  bench.receive(0, superframe_bytes(20000), superframe(1460));
  bench.only(9);
  CHECK(bench.offloads[9][0].tunnel);
  CHECK(bench.offloads[9][0].gso_size == 1410);
  // TCP of full size: two segments.
  bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {}, Bytes(1460, std::byte{7})));
  REQUIRE(bench.outputs[9].size() == 2);
  for (const Bytes& frame : bench.outputs[9]) CHECK(frame.size() <= 1514);
  // UDP that may be fragmented is; UDP that may not is refused with the path's MTU.
  bench.receive(0, udp_frame(kA, kB, kIpA, kIpB, 1, 2, Bytes(1472), 0));
  CHECK(bench.outputs[9].size() == 2);
  bench.receive(0, udp_frame(kA, kB, kIpA, kIpB, 1, 2, Bytes(1472)));
  CHECK(bench.dropped == DropReason::too_big);
  const Bytes answer = bench.only(0);
  CHECK(checksums_hold(answer));
  CHECK(load_mac(answer.data()) == kA);
  CHECK(get16(answer, 34) == 0x0304);
  CHECK(get16(answer, 40) == 1450);
}

TEST_CASE(
    "where there is hardly room for its headers a TCP superframe goes as single packets, or not at all") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.ports[1].offloads = {.checksum = true, .tso4 = true};
  config.ports[1].mtu = 100;
  bench.apply(config);
  bench.receive(0, superframe_bytes(4000), superframe(1000));  // must not be fragmented
  CHECK(bench.dropped == DropReason::too_big);
  CHECK(bench.outputs[1].empty());
  CHECK(bench.outputs[0].size() == 4);
  Bytes frame = superframe_bytes(480);
  set16(frame, 20, 0);
  bench.receive(0, frame, superframe(120));
  REQUIRE(bench.outputs[1].size() == 8);
  for (const Bytes& fragment : bench.outputs[1]) CHECK(fragment.size() <= 114);
}

TEST_CASE("a superframe that outer headers would make too long becomes two") {
  SwitchBench bench;
  bench.apply(overlay(kTunnelHere, kTunnelThere, true));
  const Bytes frame = superframe_bytes(65'480);
  bench.receive(0, frame, superframe(1448));
  REQUIRE(bench.outputs[9].size() == 2);
  Bytes payload;
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(bench.offloads[9][i].tunnel);
    CHECK(bench.offloads[9][i].gso == Gso::tcp4);
    CHECK(bench.offloads[9][i].gso_size == 1448);
    const Bytes& piece = bench.outputs[9][i];
    CHECK(piece.size() <= kFrameBytesMax);
    put(payload, slice(piece, 104, piece.size() - 104));
    // PSH on the last only.
    CHECK((static_cast<unsigned>(piece[50 + 47]) & 8) == (i == 1 ? 8 : 0));
  }
  CHECK(payload == slice(frame, 54, 65'480));
}

TEST_CASE("the largest superframe that Linux builds by itself goes into a tunnel whole") {
  SwitchBench bench;
  bench.apply(overlay(kTunnelHere, kTunnelThere, true));
  bench.receive(0, superframe_bytes(45 * 1448), superframe(1448));
  REQUIRE(bench.outputs[9].size() == 1);
  CHECK(bench.outputs[9][0].size() == 54 + 45 * 1448 + 50);
}

TEST_CASE("a script's verdict is asked for before anything else is decided, and the packet then goes on") {
  SwitchBench bench;
  SwitchConfig config = guarded();
  PortConfig ring;
  ring.id = 5;
  ring.name = "script";
  config.ports.push_back(ring);
  RuleConfig rule{.id = 1, .priority = 1};
  rule.match.mask.set_ingress(0xffff);
  rule.actions.verdict = Verdict::punt;
  rule.actions.output = 5;
  config.rules.push_back(rule);
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2});
  bench.receive(0, frame);
  CHECK(bench.only(5) == frame);
  CHECK(bench->state().connections().size() == 0);
  bench.resume(0, 0, frame);
  CHECK(bench.only(1) == frame);
  CHECK(bench->state().connections().size() == 1);
  bench.resume(0, 0, tcp_frame(kA, kB, kIpA, kIpB, {.destination = 22, .flags = 2}));
  CHECK(bench.dropped == DropReason::security_group);
}

TEST_CASE("a script's mark decides about a flow that is known already") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  PortConfig ring;
  ring.id = 5;
  ring.name = "script";
  config.ports.push_back(ring);
  RuleConfig ask{.id = 1, .priority = 1};
  ask.actions.verdict = Verdict::punt;
  ask.actions.output = 5;
  RuleConfig refuse{.id = 2, .priority = 2};
  refuse.match.mask.set_mark(0xffff);
  refuse.match.value.set_mark(7);
  refuse.actions.verdict = Verdict::drop;
  config.rules = {ask, refuse};
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2});
  bench.receive(0, frame);
  bench.only(5);
  bench.resume(0, 0, frame);
  bench.only(1);
  bench.resume(0, 0, frame, 7);
  CHECK(bench.dropped == DropReason::rule);
  bench.resume(0, 0, frame);
  bench.only(1);
  bench.receive(0, frame);
  bench.only(5);
}

TEST_CASE("a mirror gets a copy of what passes, and what passes is as it would be without") {
  SwitchBench bench;
  SwitchConfig config = flat(3);
  config.ports[2].attachments.clear();
  config.mirrors.push_back({.from = 0, .received = true, .transmitted = true, .to = 2});
  bench.apply(config);
  const Bytes there = tcp_frame(kA, kB, kIpA, kIpB, {});
  bench.receive(0, there);
  CHECK(bench.outputs[1] == std::vector<Bytes>{there});
  CHECK(bench.outputs[2] == std::vector<Bytes>{there});
  const Bytes back = tcp_frame(kB, kA, kIpB, kIpA, {});
  bench.receive(1, back);
  CHECK(bench.outputs[0] == std::vector<Bytes>{back});
  CHECK(bench.outputs[2] == std::vector<Bytes>{back});
}

TEST_CASE("a rule's meter and a port's rates limit what passes") {
  SwitchBench bench;
  SwitchConfig config = flat(2);
  config.meters.push_back({.id = 1, .rate = {.bits_per_second = 8000, .burst_bytes = 0}});
  RuleConfig rule{.id = 1, .priority = 1};
  rule.actions.meter = 0;
  config.rules.push_back(rule);
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {}, Bytes(946));  // a thousand bytes: a second's worth
  bench.receive(0, frame);
  bench.only(1);
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::meter);
  bench.apply(config);  // what was used stays used
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::meter);
  bench.now_ns += 1'000'000'001;
  bench.receive(0, frame);
  bench.only(1);
}

TEST_CASE("a superframe uses up of a rate what its segments have, headers and all") {
  for (const bool tunnelled : {false, true}) {
    CAPTURE(tunnelled);
    SwitchBench bench;
    SwitchConfig config = tunnelled ? overlay(0x0a000065, 0x0a000066, true) : flat(2);
    PortConfig& egress = config.ports.back();
    egress.offloads.checksum = egress.offloads.tso4 = true;
    egress.transmit_rate = {.bits_per_second = 8'000'000, .burst_bytes = 0};  // a byte in a microsecond
    bench.apply(config);
    bench.receive(0, superframe_bytes(1000), superframe(10));
    REQUIRE(bench.dropped == DropReason::none);
    const uint64_t due_us = tunnelled ? 100 * (50 + 54 + 10) : 100 * (54 + 10);
    const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {});
    bench.now_ns += due_us * 1000 - 1;
    bench.receive(0, frame);
    CHECK(bench.dropped == DropReason::meter);
    bench.now_ns += 1;
    bench.receive(0, frame);
    CHECK(bench.dropped == DropReason::none);
  }
}

TEST_CASE("an underlay's rates limit what tunnels bring and take, and its mirror sees both") {
  SwitchBench bench;
  SwitchConfig config = overlay(0x0a000065, 0x0a000066, false);
  PortConfig onlooker;
  onlooker.id = 7;
  onlooker.name = "onlooker";
  config.ports.push_back(onlooker);
  config.mirrors.push_back({.from = 9, .received = true, .transmitted = true, .to = 7});
  bench.apply(config);
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {}, Bytes(100));
  bench.receive(0, frame);
  Bytes outer = bench.outputs[9].at(0);
  CHECK(bench.outputs[7] == std::vector<Bytes>{outer});
  // What its other end would send.
  std::swap_ranges(outer.begin() + 26, outer.begin() + 30, outer.begin() + 30);
  std::swap_ranges(outer.begin() + 50, outer.begin() + 56, outer.begin() + 56);
  bench.receive(9, outer);
  CHECK(bench.outputs[0].size() == 1);
  CHECK(bench.outputs[7] == std::vector<Bytes>{outer});
  for (PortConfig& port : config.ports)
    if (port.id == 9) port.receive_rate = port.transmit_rate = {.bits_per_second = 8, .burst_bytes = 0};
  bench.apply(config);
  bench.receive(9, outer);
  CHECK(bench.dropped == DropReason::none);
  bench.receive(9, outer);
  CHECK(bench.dropped == DropReason::meter);
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::none);
  bench.receive(0, frame);
  CHECK(bench.dropped == DropReason::meter);
}

TEST_CASE("a blocked port neither gives nor takes") {
  SwitchBench bench;
  bench.apply(flat(2));
  bench->set_port_state(1, PortState::blocked);
  bench.receive(0, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  CHECK(bench.dropped == DropReason::port_blocked);
  bench.receive(1, tcp_frame(kB, kBroadcast, kIpB, kIpA, {}));
  CHECK(bench.dropped == DropReason::port_blocked);
  bench->set_port_state(1, PortState::up);
  bench.receive(0, tcp_frame(kA, kBroadcast, kIpA, kIpB, {}));
  bench.only(1);
}

TEST_CASE("a trace tells the way of a frame and changes nothing") {
  SwitchBench bench;
  bench.apply(guarded());
  const Bytes frame = tcp_frame(kA, kB, kIpA, kIpB, {.flags = 2});
  auto traced = bench->trace(0, frame, bench.now_ns);
  REQUIRE(traced.ok());
  CHECK(traced->dropped == DropReason::none);
  REQUIRE(traced->outputs.size() == 1);
  CHECK(traced->outputs[0].frame == frame);
  REQUIRE(traced->steps.size() >= 4);
  CHECK(traced->steps[0].what == "network");
  CHECK(traced->steps[0].detail == "blue, tcp 10.0.0.1:40000 > 10.0.0.2:5001");
  CHECK(bench->state().connections().size() == 0);
  CHECK(bench->state().forwarding().size() == 0);
  CHECK(bench->port_traffic(0).received.packets == 0);
  traced = bench->trace(0, tcp_frame(kA, kB, kIpA, kIpB, {.destination = 22, .flags = 2}), bench.now_ns);
  CHECK(traced->dropped == DropReason::security_group);
}

TEST_CASE(
    "frames are traced and rules counted beside a worker that opens and ends connections, and beside apply") {
  SwitchBench bench;
  SwitchConfig config = guarded();
  config.rules.push_back({.id = 7, .priority = 1});
  config.rules[0].actions.nat = {.kind = NatKind::source, .address = ip4(0x0a0000fe)};
  bench.apply(config);
  std::atomic<bool> ended{false};
  std::thread onlooker([&] {
    uint64_t seen = 0;
    while (!ended.load()) {
      const auto traced =
          bench->trace(0, tcp_frame(kA, kB, kIpA, kIpB, {.source = static_cast<unsigned>(40000 + seen % 50)}),
                       bench.now_ns);
      CHECK((traced.ok() && traced->dropped != DropReason::malformed));
      for (const RuleTraffic& rule : bench->rule_traffic()) seen = std::max(seen, rule.traffic.packets);
      CHECK(bench->generation() > 0);
    }
  });
  const uint64_t late_ns = 3'600'000'000'000;
  for (unsigned round = 0; round < 200; ++round) {
    bench.join();
    for (unsigned i = 0; i < 50; ++i)
      bench.receive(0, tcp_frame(kA, kB, kIpA, kIpB, {.source = 40000 + i, .flags = 2}));
    bench.leave();
    // Ends all of them, and the next round takes their memory.
    for (unsigned shards = 0; shards < 8; ++shards) bench->tick(bench.now_ns + late_ns);
    if (round % 20 == 0) bench.apply(config);
  }
  ended = true;
  onlooker.join();
}

TEST_CASE("random frames of any kind are forwarded or dropped for a reason, and no buffer is lost") {
  SwitchBench bench;
  SwitchConfig config = guarded();
  config.ports.push_back(overlay(kTunnelHere, kTunnelThere, false).ports[1]);
  config.networks[0] = overlay(kTunnelHere, kTunnelThere, false).networks[0];
  bench.apply(config);
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    Bytes frame = tcp_frame(kA + random() % 3, random() % 4 == 0 ? kBroadcast : kA + random() % 3,
                            kIpA + random() % 4, kIpB + random() % 4,
                            {.destination = static_cast<unsigned>(5000 + random() % 3),
                             .flags = static_cast<unsigned>(random() % 64)},
                            Bytes(random() % 60));
    if (random() % 2 == 0)
      frame = between(kRouter, kRouter,
                      ethernet({}, ipv4({.source = kTunnelThere, .destination = kTunnelHere},
                                        udp(50000, 4789, vxlan(100, frame)))));
    for (unsigned flips = random() % 4; flips > 0; --flips)
      frame[random() % frame.size()] ^= static_cast<std::byte>(1U << random() % 8);
    if (random() % 5 == 0) frame.resize(14 + random() % (frame.size() - 13));
    bench.receive(static_cast<PortId>(random() % 2 == 0 ? 9 : random() % 2), frame);
    REQUIRE((bench.dropped != DropReason::none || !bench.outputs.empty()));
    bench.now_ns += random() % 1'000'000'000;
  }
}

}  // namespace penstock::net::test

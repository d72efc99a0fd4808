// A port that moves from one switch to another: what it takes along, and how its old host passes on what
// still comes there.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "test/native/support/switch_bench.h"

namespace penstock::net::test {

static constexpr Mac kVm = 0x02'00'00'00'00'0a, kServer = 0x02'00'00'00'00'0b,
                     kNeighbour = 0x02'00'00'00'00'0c;
static constexpr uint32_t kIpVm = 0x0a000001, kIpServer = 0x0a000002;
static constexpr uint32_t kHosts[] = {0xac100001, 0xac100002, 0xac100003};
static constexpr PortId kPort = 3, kUnderlay = 9, kOther = 4;

static Match outgoing_only() {
  Match match;  // anything
  return match;
}

// Host `self` of three: the VM's port, a neighbour's, the tunnel to the other two. `network` is the number
// that this host gives to "blue".
static SwitchConfig host(std::size_t self, uint16_t network, bool guarded = true,
                         TunnelKind tunnel = TunnelKind::vxlan) {
  SwitchConfig config;
  NetworkConfig blue;
  blue.index = network;
  blue.name = "blue";
  blue.tunnel = tunnel;
  blue.vni = 100;
  blue.underlay = kUnderlay;
  blue.local = ip4(kHosts[self]);
  blue.tracking = true;
  for (std::size_t i = 0; i < 3; ++i)
    if (i != self) blue.peers.push_back({ip4(kHosts[i]), 4});
  config.networks.push_back(blue);
  for (const PortId id : {kPort, kOther}) {
    PortConfig port;
    port.id = id;
    port.name = id == kPort ? "vm" : "other";
    port.attachments = {{network, kUntagged}};
    config.ports.push_back(port);
  }
  PortConfig underlay;
  underlay.id = kUnderlay;
  underlay.name = "wire";
  underlay.underlay = true;
  config.ports.push_back(underlay);
  if (guarded) {
    config.groups.push_back({"client", {{GroupDirection::from_port, outgoing_only()}}});
    config.ports[0].groups = {0};
  }
  return config;
}

static Bytes tcp_frame(Mac source, Mac destination, uint32_t from, uint32_t to, const Tcp& header,
                       const Bytes& payload = {}) {
  return summed(
      between(source, destination,
              ethernet({}, ipv4({.fragment = 0x4000, .protocol = 6, .source = from, .destination = to},
                                tcp(header, payload)))));
}

static const Tcp kFromVm{.source = 40000, .destination = 80, .flags = 0x10};
static const Tcp kFromServer{.source = 80, .destination = 40000, .flags = 0x10};

static Bytes from_vm(unsigned flags = 0x10) {
  Tcp header = kFromVm;
  header.flags = flags;
  return tcp_frame(kVm, kServer, kIpVm, kIpServer, header);
}

static Bytes from_server(unsigned flags = 0x10, const Bytes& payload = {}) {
  Tcp header = kFromServer;
  header.flags = flags;
  return tcp_frame(kServer, kVm, kIpServer, kIpVm, header, payload);
}

// Three hosts; the VM is on the first, the server on the third, and both have spoken.
struct Hosts {
  SwitchBench bench[3];

  explicit Hosts(TunnelKind tunnel = TunnelKind::vxlan) {
    for (std::size_t i = 0; i < 3; ++i) bench[i].apply(host(i, static_cast<uint16_t>(2 * i), i != 2, tunnel));
    bench[0].receive(kPort, from_vm(0x02));
    carry(0);
    REQUIRE(bench[2].outputs[kPort].size() == 1);  // no guest of the third is known yet: to both its ports
    bench[2].receive(kPort, from_server(0x12));
    carry(2);
    CHECK(bench[0].only(kPort) == from_server(0x12));
    bench[0].receive(kPort, from_vm());
    carry(0);
  }

  // What `from` sent into its tunnel arrives where it was sent to.
  void carry(std::size_t from) {
    const std::vector<Bytes> frames = bench[from].outputs[kUnderlay];
    for (const Bytes& frame : frames) {
      const std::size_t to = frame[33] == std::byte{1} ? 0 : frame[33] == std::byte{2} ? 1 : 2;
      bench[to].receive(kUnderlay, frame);
    }
  }

  void move() {
    bench[0]->set_port_state(kPort, PortState::blocked);
    const auto image = bench[0]->export_port(kPort, bench[0].now_ns);
    REQUIRE(image.ok());
    const auto restored = bench[1]->import_port(kPort, *image, bench[1].now_ns);
    REQUIRE_MESSAGE(restored.ok(), restored.error().message);
    CHECK(restored->connections == 1);
    REQUIRE(restored->addresses.size() == 1);
    CHECK(restored->addresses[0].mac == kVm);
    CHECK(restored->addresses[0].network == 2);
    forward(0, 1);
  }

  void forward(std::size_t from, std::size_t to) {
    const auto done = bench[from]->forward_port(kPort, ip4(kHosts[to]), 4, bench[from].now_ns);
    REQUIRE_MESSAGE(done.ok(), done.error().message);
  }
};

TEST_CASE("answers to a connection that a group let out still come in after the port has moved") {
  Hosts hosts;
  // Without its connections the new host would refuse them.
  SwitchBench stranger;
  stranger.apply(host(1, 2));
  stranger.receive(kOther, from_server());
  CHECK(stranger.outputs.count(kPort) == 0);
  hosts.move();
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);  // the third still believes the first
  CHECK(hosts.bench[0].outputs[kUnderlay].size() == 1);
  CHECK(hosts.bench[0].outputs.size() == 1);
  hosts.carry(0);
  CHECK(hosts.bench[1].only(kPort) == from_server());
  // The way back is the server's own host: what was passed on taught nothing about it.
  hosts.bench[1].receive(kPort, from_vm());
  hosts.carry(1);
  CHECK(hosts.bench[2].only(kPort) == from_vm());
  // Since it has heard the VM from there, the third sends there.
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);
  CHECK(hosts.bench[1].only(kPort) == from_server());
}

TEST_CASE("GENEVE marks what is passed on, too; NVGRE cannot and is refused") {
  Hosts hosts(TunnelKind::geneve);
  hosts.move();
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);
  hosts.carry(0);
  CHECK(hosts.bench[1].only(kPort) == from_server());
  hosts.bench[1].receive(kPort, from_vm());
  hosts.carry(1);
  CHECK(hosts.bench[2].only(kPort) == from_vm());

  SwitchBench other;
  other.apply(host(0, 0, false, TunnelKind::nvgre));
  const auto refused = other->forward_port(kPort, ip4(kHosts[1]), 4, other.now_ns);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message == "network \"blue\" has no vxlan or geneve tunnel to forward through");
  CHECK(other->state().port(kPort).state.load() == PortState::up);
}

TEST_CASE(
    "a port that was handed over sends nothing, and a neighbour reaches its station beyond the tunnel") {
  Hosts hosts;
  hosts.move();
  hosts.bench[0].receive(kPort, from_vm());
  CHECK(hosts.bench[0].dropped == DropReason::port_moved);
  const Bytes greeting = tcp_frame(kNeighbour, kVm, 0x0a000003, kIpVm, kFromServer);
  hosts.bench[0].receive(kOther, greeting);
  CHECK(hosts.bench[0].outputs.size() == 1);
  hosts.carry(0);
  CHECK(hosts.bench[1].dropped == DropReason::security_group);  // the VM never asked for it
  // It was not passed on but sent: the new host learns where the neighbour is.
  Target target;
  REQUIRE(hosts.bench[1]->state().forwarding().find(
      2, kNeighbour, static_cast<uint32_t>(hosts.bench[1].now_ns / 1'000'000'000), target));
  CHECK(target.kind == TargetKind::peer);
}

TEST_CASE("a broadcast reaches a station that moved once, wherever it comes from") {
  Hosts hosts;
  hosts.move();
  for (const std::size_t from : {std::size_t{0}, std::size_t{2}}) {
    const Bytes all = tcp_frame(kNeighbour + from, kBroadcast, 0x0a000009, 0x0affffff, kFromVm);
    hosts.bench[1].apply(host(1, 2, false));
    std::size_t got = 0;
    hosts.bench[from].receive(kOther, all);
    const std::vector<Bytes> sent = hosts.bench[from].outputs[kUnderlay];
    for (const Bytes& frame : sent) {
      const bool to_new_host = frame[33] == std::byte{2};
      const std::size_t to = to_new_host ? 1 : frame[33] == std::byte{1} ? 0 : 2;
      hosts.bench[to].receive(kUnderlay, frame);
      got += hosts.bench[1].outputs[kPort].size();
      if (!to_new_host) CHECK(hosts.bench[to].outputs.count(kUnderlay) == 0);
      hosts.bench[1].outputs.clear();
    }
    CHECK(got == 1);
  }
}

TEST_CASE("two hosts that point at each other drop what would go round, and so does a ring of three") {
  Hosts hosts;
  hosts.move();
  hosts.forward(1, 0);
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);
  hosts.carry(0);
  CHECK(hosts.bench[1].outputs.empty());
  CHECK(hosts.bench[1].dropped == DropReason::forward_loop);
  CHECK(hosts.bench[1]->port_traffic(kUnderlay).drops[static_cast<std::size_t>(DropReason::forward_loop)] ==
        1);
  // A neighbour's frame is sent, not passed on; the other host would send it back.
  hosts.bench[0].receive(kOther, tcp_frame(kNeighbour, kVm, 0x0a000003, kIpVm, kFromServer));
  hosts.carry(0);
  CHECK(hosts.bench[1].dropped == DropReason::forward_loop);
  hosts.forward(1, 2);
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);
  hosts.carry(0);
  CHECK(hosts.bench[1].dropped == DropReason::forward_loop);
}

TEST_CASE("what is announced from the new host does not take the stations from a port that passes on") {
  Hosts hosts;
  hosts.move();
  hosts.bench[1].receive(kPort, tcp_frame(kVm, kBroadcast, kIpVm, 0x0affffff, kFromVm));
  hosts.carry(1);
  // The third has not heard it, say; the first has.
  hosts.bench[2].now_ns += 1;
  Target target;
  const auto now_s = static_cast<uint32_t>(hosts.bench[0].now_ns / 1'000'000'000);
  REQUIRE(hosts.bench[0]->state().forwarding().find(0, kVm, now_s, target));
  CHECK(target == Target{TargetKind::port, kPort});
  // Once the port is the VM's again its address is learned as before.
  hosts.bench[0]->set_port_state(kPort, PortState::up);
  hosts.bench[1].receive(kPort, tcp_frame(kVm, kBroadcast, kIpVm, 0x0affffff, kFromVm));
  hosts.carry(1);
  REQUIRE(hosts.bench[0]->state().forwarding().find(0, kVm, now_s, target));
  CHECK(target.kind == TargetKind::peer);
}

TEST_CASE("a host that has heard the station from its new place before it forwards passes on all the same") {
  Hosts hosts;
  hosts.bench[0]->set_port_state(kPort, PortState::blocked);
  const auto image = hosts.bench[0]->export_port(kPort, hosts.bench[0].now_ns);
  REQUIRE(hosts.bench[1]->import_port(kPort, *image, hosts.bench[1].now_ns).ok());
  hosts.bench[1].receive(kPort, tcp_frame(kVm, kBroadcast, kIpVm, 0x0affffff, kFromVm));
  const std::vector<Bytes> announced = hosts.bench[1].outputs[kUnderlay];
  for (const Bytes& frame : announced)
    if (frame[33] == std::byte{1}) hosts.bench[0].receive(kUnderlay, frame);  // the third misses it
  hosts.forward(0, 1);
  hosts.bench[2].receive(kPort, from_server());
  hosts.carry(2);
  hosts.carry(0);
  CHECK(hosts.bench[1].only(kPort) == from_server());
}

TEST_CASE("a peer that is none of the network's, and a network of this host only, are refused") {
  SwitchBench bench;
  bench.apply(host(0, 0));
  auto refused = bench->forward_port(kPort, ip4(0x01020304), 4, bench.now_ns);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message == "1.2.3.4 is no peer of network \"blue\"");
  refused = bench->forward_port(7, ip4(kHosts[1]), 4, bench.now_ns);
  CHECK(refused.error().code == ENOENT);
}

static std::vector<ConnectionSnapshot> connections(SwitchBench& bench) {
  std::vector<ConnectionSnapshot> all;
  const auto now_s = static_cast<uint32_t>(bench.now_ns / 1'000'000'000);
  bench->state().connections().for_each(
      [&](const Connection& one) { all.push_back(snapshot_of(one, now_s)); });
  for (ConnectionSnapshot& one : all) one.original.vni = one.reply.vni = 0;  // each host has its own number
  std::sort(all.begin(), all.end(), [](const ConnectionSnapshot& a, const ConnectionSnapshot& b) {
    return std::memcmp(&a.original, &b.original, sizeof(a.original)) < 0;
  });
  return all;
}

// A connection of the VM, or of somebody else.
static ConnectionSnapshot random_connection(std::mt19937_64& random, bool vm, uint16_t network) {
  ConnectionSnapshot one;
  one.original.ip_version = one.reply.ip_version = 4;
  one.original.source = ip4(kIpVm);
  one.original.destination = ip4(static_cast<uint32_t>(random()));
  constexpr uint8_t kProtocols[] = {6, 17, 1};
  one.original.protocol = kProtocols[random() % 3];
  one.original.source_port = static_cast<uint16_t>(random());
  one.original.destination_port = static_cast<uint16_t>(random());
  one.original.vni = network;
  const bool inwards = random() % 2 == 0;
  if (inwards) one.original = one.original.reversed();
  one.reply = one.original.reversed();
  if (random() % 3 == 0) one.reply.destination = ip4(static_cast<uint32_t>(random()));
  one.tcp_state = one.original.protocol == 6 ? random() % 8 : 0;
  one.replied = random() % 2 == 0;
  one.fin_seen = random() % 4;
  one.expires_seconds = static_cast<uint32_t>(random() % 5);  // any state allows as much
  one.ack_max = {static_cast<uint32_t>(random()), static_cast<uint32_t>(random())};
  one.packets = {random() % 1000, random()};
  one.bytes = {random(), random() % 1000};
  one.mark = static_cast<uint16_t>(random());
  const Mac station = vm ? kVm : kNeighbour;
  one.source_mac = inwards ? kServer : station;
  one.destination_mac = inwards ? station : kServer;
  if (inwards && random() % 2 == 0) {
    one.destination_mac = 0x02'00'00'00'00'01;  // a published address
    one.translated_destination_mac = station;
  }
  return one;
}

TEST_CASE("whatever connections a port has arrive as they left, nobody else's do, and twice is as once") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    SwitchBench here, there, alone;
    here.apply(host(0, 5, false));
    there.apply(host(1, 0, false));
    alone.apply(host(0, 5, false));
    there.now_ns = 77'000'000'000 + random() % 1'000'000'000'000;  // another clock
    const auto now_s = static_cast<uint32_t>(here.now_ns / 1'000'000'000);
    here.receive(kPort, tcp_frame(kVm, kBroadcast, kIpVm, kIpServer, kFromVm));  // learned, not tracked
    for (std::size_t i = 0; i < 40 + random() % 100; ++i) {
      const bool vm = random() % 2 == 0;
      const ConnectionSnapshot one = random_connection(random, vm, 5);
      const auto restored = here->state().connections().restore(one, now_s);
      if (vm && restored == ConnectionTable::Restored::added)
        alone->state().connections().restore(one, now_s);
    }
    const auto image = here->export_port(kPort, here.now_ns);
    REQUIRE(image.ok());
    const auto restored = there->import_port(kPort, *image, there.now_ns);
    REQUIRE(restored.ok());
    CHECK(restored->connections_full == 0);
    // A translation may have taken a tuple of another one when it came in: what is left is what counts.
    std::vector<ConnectionSnapshot> expected = connections(here);
    std::erase_if(expected, [](const ConnectionSnapshot& one) {
      return one.source_mac == kNeighbour || one.destination_mac == kNeighbour ||
             one.translated_destination_mac == kNeighbour;
    });
    CHECK(connections(there) == expected);
    CHECK(restored->connections == expected.size());
    const auto again = there->import_port(kPort, *image, there.now_ns);
    CHECK(again->connections == 0);
    CHECK(again->connections_kept == expected.size());
    CHECK(connections(there) == expected);
  }
}

TEST_CASE("an imported connection lives no longer than its state allows, and one that goes on here is kept") {
  SwitchBench bench;
  bench.apply(host(0, 0, false));
  ConnectionTable& table = bench->state().connections();
  std::mt19937_64 random(1);
  ConnectionSnapshot one = random_connection(random, true, 0);
  one.original.protocol = one.reply.protocol = 17;
  one.replied = true;
  one.expires_seconds = UINT32_MAX;
  REQUIRE(table.restore(one, 1000) == ConnectionTable::Restored::added);
  table.for_each([&](const Connection& connection) {
    CHECK(connection.expires_s.load() == 1000 + table.timeouts().udp_stream);
  });
  // The same the wrong way round, as a packet from the middle would have opened it: the image knows better.
  ConnectionSnapshot turned = one;
  std::swap(turned.original, turned.reply);
  REQUIRE(table.restore(turned, 1000) == ConnectionTable::Restored::added);
  CHECK(table.size() == 1);
  REQUIRE(table.restore(turned, 1000) == ConnectionTable::Restored::kept);
  // One that has gone on here stays; one that knows less, as a flooded first packet opens it, does not.
  ConnectionSnapshot earlier = turned;
  earlier.packets[0] -= std::min<uint64_t>(earlier.packets[0], 1);
  CHECK(table.restore(earlier, 1000) == ConnectionTable::Restored::kept);
  ++turned.packets[1];
  CHECK(table.restore(turned, 1000) == ConnectionTable::Restored::added);
  CHECK(table.size() == 1);
}

TEST_CASE("what does not fit is counted, and the rest is there") {
  SwitchBench here;
  SwitchBench there({.connections = {.connections_max = 256}, .flows_per_worker = 1024});
  here.apply(host(0, 0, false));
  there.apply(host(1, 0, false));
  std::mt19937_64 random(3);
  here.receive(kPort, tcp_frame(kVm, kBroadcast, kIpVm, kIpServer, kFromVm));
  for (std::size_t i = 0; i < 1000; ++i) {
    ConnectionSnapshot one = random_connection(random, true, 0);
    one.replied = true;  // none makes room for another
    one.expires_seconds = 5;
    here->state().connections().restore(one, static_cast<uint32_t>(here.now_ns / 1'000'000'000));
  }
  const auto image = here->export_port(kPort, here.now_ns);
  const auto restored = there->import_port(kPort, *image, there.now_ns);
  REQUIRE(restored.ok());
  CHECK(restored->connections == there->state().connections().size());
  CHECK(restored->connections + restored->connections_full == here->state().connections().size());
  CHECK(restored->connections_full > 0);
}

TEST_CASE("the debts of a port's rates move, and none is larger than is possible") {
  SwitchBench here, there;
  for (SwitchBench* bench : {&here, &there}) {
    SwitchConfig config = host(bench == &here ? 0 : 1, 0, false);
    config.ports[0].receive_rate = {.bits_per_second = 8'000'000, .burst_bytes = 10'000};
    bench->apply(config);
  }
  there.now_ns = 5'000'000'000;
  Meter* spent = here->tables().port(kPort)->receive_meter;
  REQUIRE(spent->conforms(9'000, here.now_ns));
  REQUIRE(there->import_port(kPort, *here->export_port(kPort, here.now_ns), there.now_ns).ok());
  CHECK(there->tables().port(kPort)->receive_meter->debt_ns(there.now_ns) == 9'000'000);
  PortImage forged;
  forged.networks = {"blue"};
  forged.received_debt_ns = UINT64_MAX;
  REQUIRE(there->import_port(kPort, *write_port_image(forged), there.now_ns).ok());
  CHECK(there->tables().port(kPort)->receive_meter->debt_ns(there.now_ns) == 10'000'000 + 65'536'000);
}

TEST_CASE("the state of a port of other networks or groups is refused and changes nothing") {
  SwitchBench here;
  here.apply(host(0, 0));
  here.receive(kPort, from_vm(0x02));
  const auto image = here->export_port(kPort, here.now_ns);
  REQUIRE(image.ok());

  SwitchBench there;
  SwitchConfig config = host(1, 0);
  config.networks[0].name = "red";
  there.apply(config);
  auto refused = there->import_port(kPort, *image, there.now_ns);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message == "the state is of a port in network \"blue\", which port \"vm\" is not in");
  there.apply(host(1, 0, false));
  refused = there->import_port(kPort, *image, there.now_ns);
  CHECK(refused.error().message ==
        "the state is of a port with security groups client; port \"vm\" has none");
  Bytes damaged = *image;
  damaged[40] ^= std::byte{1};
  there.apply(host(1, 0));
  CHECK(there->import_port(kPort, damaged, there.now_ns).error().message ==
        "the state of a port: damaged: the checksum is wrong");
  CHECK(there->import_port(kUnderlay, *image, there.now_ns).error().code == EINVAL);
  CHECK(there->import_port(77, *image, there.now_ns).error().code == ENOENT);
  CHECK(there->state().connections().size() == 0);
  CHECK(there->state().forwarding().size() == 0);
}

TEST_CASE("a port's MTU follows its interface under the same configuration") {
  SwitchBench bench;
  bench.apply(host(0, 0, false));
  const Bytes large = tcp_frame(kNeighbour, kBroadcast, kIpServer, kIpVm, kFromServer, Bytes(3000));
  const auto pieces = [&] {
    bench.receive(kOther, large);
    return bench.outputs[kPort].size();
  };
  CHECK(pieces() == 3);  // of a payload of 1460 at most
  bench->set_port_mtu(kPort, 9000);
  CHECK(pieces() == 1);
  bench->set_port_mtu(kPort, 1000);
  CHECK(pieces() == 4);
  bench->set_port_mtu(kPort, 0);
  CHECK(pieces() == 3);
}

}  // namespace penstock::net::test

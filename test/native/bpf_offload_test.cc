// The assembler's encodings, and the offload programs as the kernel runs them on frames (BPF_PROG_TEST_RUN):
// which frames they take, and what leaves them. Without the capability only the assembler is tested.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <random>
#include <thread>

#include "native/base/checksum.h"
#include "native/bpf/assembler.h"
#include "native/bpf/offload_program.h"
#include "native/bpf/offload_record.h"
#include "native/bpf/system.h"
#include "native/packet/parse.h"

namespace penstock::bpf {
namespace {

using Frame = std::vector<uint8_t>;

constexpr uint32_t kPort = 3;
constexpr int kNext = -1, kRedirected = 7;
constexpr uint64_t kEpoch = 5;

void put16(Frame& frame, std::size_t at, uint16_t value) {
  frame.at(at) = static_cast<uint8_t>(value >> 8);
  frame.at(at + 1) = static_cast<uint8_t>(value);
}
uint16_t get16(const Frame& frame, std::size_t at) {
  return static_cast<uint16_t>(frame.at(at) << 8 | frame.at(at + 1));
}

uint16_t sum_of(const Frame& frame, std::size_t at, std::size_t length) {
  return checksum_fold(checksum_sum({reinterpret_cast<const std::byte*>(frame.data()) + at, length}));
}

// Ethernet, IPv4, and 64 bytes of TCP or UDP.
Frame ipv4_frame(uint8_t protocol) {
  Frame frame(14 + 20 + 64);
  for (int i = 0; i < 12; ++i) frame[static_cast<std::size_t>(i)] = static_cast<uint8_t>(2 * i + 2);
  put16(frame, 12, 0x0800);
  frame[14] = 0x45;
  put16(frame, 16, 84);
  put16(frame, 20, 0x4000);
  frame[22] = 64;
  frame[23] = protocol;
  frame[26] = frame[30] = 10;
  frame[29] = 1;
  frame[33] = 2;
  put16(frame, 24, static_cast<uint16_t>(~sum_of(frame, 14, 20)));
  put16(frame, 34, 4000);
  put16(frame, 36, 80);
  if (protocol == 6) {
    frame[46] = 0x50;
    frame[47] = 0x10;
  } else {
    put16(frame, 38, 64);
    put16(frame, 40, 0x1234);
  }
  return frame;
}

Frame ipv6_frame(uint8_t protocol) {
  Frame frame(14 + 40 + 64);
  for (int i = 0; i < 12; ++i) frame[static_cast<std::size_t>(i)] = static_cast<uint8_t>(2 * i + 2);
  put16(frame, 12, 0x86dd);
  frame[14] = 0x60;
  put16(frame, 18, 64);
  frame[20] = protocol;
  frame[21] = 64;
  frame[22] = frame[38] = 0xfd;
  frame[37] = 1;
  frame[53] = 2;
  put16(frame, 54, 4000);
  put16(frame, 56, 80);
  if (protocol == 6) {
    frame[66] = 0x50;
    frame[67] = 0x10;
  } else {
    put16(frame, 58, 64);
    put16(frame, 60, 0x1234);
  }
  return frame;
}

OffloadKey key_of(const Frame& frame) {
  OffloadKey key;
  key.ingress = kPort;
  std::memcpy(key.stations.data(), frame.data(), 12);
  const bool ipv4 = get16(frame, 12) == 0x0800;
  std::memcpy(key.source.data(), &frame[ipv4 ? 26 : 22], ipv4 ? 4 : 16);
  std::memcpy(key.destination.data(), &frame[ipv4 ? 30 : 38], ipv4 ? 4 : 16);
  std::memcpy(&key.source_port, &frame[ipv4 ? 34 : 54], 2);
  std::memcpy(&key.destination_port, &frame[ipv4 ? 36 : 56], 2);
  key.protocol = frame[ipv4 ? 23 : 20];
  key.ip_version = ipv4 ? 4 : 6;
  return key;
}

// VXLAN around a frame.
Frame tunnelled(const Frame& inner) {
  Frame frame(50);
  put16(frame, 12, 0x0800);
  frame[14] = 0x45;
  put16(frame, 16, static_cast<uint16_t>(36 + inner.size()));
  put16(frame, 20, 0x4000);
  frame[22] = 64;
  frame[23] = 17;
  frame[26] = frame[30] = 172;
  frame[29] = 7;
  frame[33] = 8;
  put16(frame, 24, static_cast<uint16_t>(~sum_of(frame, 14, 20)));
  put16(frame, 34, 50000);
  put16(frame, 36, 4789);
  put16(frame, 38, static_cast<uint16_t>(16 + inner.size()));
  frame[42] = 8;
  frame[48] = 42;
  frame.insert(frame.end(), inner.begin(), inner.end());
  return frame;
}

OffloadKey tunnel_key_of(const Frame& inner) {
  const Frame frame = tunnelled(inner);
  OffloadKey key = key_of(inner);
  std::memcpy(&key.outer_source, &frame[26], 4);
  std::memcpy(&key.outer_destination, &frame[30], 4);
  std::memcpy(&key.tunnel_port, &frame[36], 2);
  std::memcpy(&key.vni, &frame[46], 4);
  return key;
}

struct Ran {
  int verdict = 0;
  Frame frame;
};

struct TestRun {
  uint32_t program, verdict, in_bytes, out_bytes;
  uint64_t in, out;
  uint32_t repeat, duration, context_in_bytes, context_out_bytes;
  uint64_t context_in, context_out;
  uint32_t flags, cpu, batch, pad;
};

Ran run(const Fd& program, const Frame& frame) {
  Ran ran;
  ran.frame.resize(frame.size() + 256);
  TestRun attributes{};
  attributes.program = static_cast<uint32_t>(program.get());
  attributes.in = reinterpret_cast<uintptr_t>(frame.data());
  attributes.in_bytes = static_cast<uint32_t>(frame.size());
  attributes.out = reinterpret_cast<uintptr_t>(ran.frame.data());
  attributes.out_bytes = static_cast<uint32_t>(ran.frame.size());
  REQUIRE(::syscall(SYS_bpf, 10, &attributes, sizeof(attributes)) == 0);
  ran.frame.resize(attributes.out_bytes);
  ran.verdict = static_cast<int>(attributes.verdict);
  return ran;
}

struct Kernel {
  Fd flows, control, slots;
  OffloadMaps maps;
  Fd filter, slot, egress, tunnel;

  static std::optional<Kernel> open() {
    Kernel kernel;
    auto flows = create_map("flows", {MapType::hash, sizeof(OffloadKey), sizeof(OffloadEntry), 16});
    if (!flows && flows.error().code == EPERM) return std::nullopt;
    REQUIRE(flows);
    kernel.flows = std::move(*flows);
    auto control = create_map("control", {MapType::array, 4, sizeof(OffloadControl), 1});
    auto slots = create_map("slots", {MapType::per_cpu_array, 4, sizeof(OffloadSlot), 1});
    REQUIRE(control);
    REQUIRE(slots);
    kernel.control = std::move(*control);
    kernel.slots = std::move(*slots);
    const auto packet = kernel_packet();
    REQUIRE(packet);
    kernel.maps = {kernel.flows.get(), kernel.control.get(), kernel.slots.get(), *packet};
    const auto load = [](ProgramType type, const char* name, const std::vector<Instruction>& code) {
      auto program = load_program(type, name, code);
      if (!program) MESSAGE(program.error().message);
      REQUIRE(program);
      return std::move(*program);
    };
    kernel.filter = load(ProgramType::socket_filter, "filter", filter_program(kernel.maps, kPort));
    kernel.slot = load(ProgramType::classifier, "slot", slot_program(kernel.maps));
    kernel.egress = load(ProgramType::classifier, "egress", egress_program(kernel.maps, kPort));
    kernel.tunnel = load(ProgramType::classifier, "tunnel", tunnel_program(kernel.maps, kPort));
    kernel.set_epoch(kEpoch);
    return kernel;
  }
  void set_epoch(uint64_t epoch) const {
    const uint32_t zero = 0;
    const OffloadControl value{epoch};
    REQUIRE(map_update(control.get(), &zero, &value) == 0);
  }
  void put(const OffloadKey& key, OffloadAction action) const {
    const OffloadEntry entry{.epoch = kEpoch, .action = action};
    REQUIRE(map_update(flows.get(), &key, &entry) == 0);
  }
  OffloadEntry entry(const OffloadKey& key) const {
    OffloadEntry entry;
    REQUIRE(map_lookup(flows.get(), &key, &entry) == 0);
    return entry;
  }
};

OffloadAction out_by(uint32_t link) {
  return {.kind = static_cast<uint32_t>(OffloadKind::out), .link = link, .mtu = 1500};
}

}  // namespace

TEST_CASE("instructions are encoded as RFC 9669 says") {
  Assembler a;
  const auto end = a.label();
  a.move(r6, r1);
  a.move(r0, -1);
  a.load(r2, r6, 16, Width::half);
  a.jump_if(r2, Compare::unequal, 8, end);
  a.store(r10, -8, r2, Width::quad);
  a.store(r10, -16, 7, Width::word);
  a.map(r1, 5);
  a.map_value(r3, 6, 24);
  a.atomic_add(r3, 8, r2);
  a.apply(Operation::bit_and, r2, 0xff);
  a.apply(Operation::add, r2, r3);
  a.swap_bytes(r2, 16);
  a.call(1);
  a.call_kernel(9);
  a.jump_if(r2, Compare::above, r3, end);
  a.place(end);
  a.exit();
  const std::vector<Instruction> expected = {
      {0xbf, 0x16, 0, 0},  {0xb7, 0x00, 0, -1},  {0x69, 0x62, 16, 0}, {0x55, 0x02, 13, 8},
      {0x7b, 0x2a, -8, 0}, {0x62, 0x0a, -16, 7}, {0x18, 0x11, 0, 5},  {0, 0, 0, 0},
      {0x18, 0x23, 0, 6},  {0, 0, 0, 24},        {0xdb, 0x23, 8, 0},  {0x57, 0x02, 0, 0xff},
      {0x0f, 0x32, 0, 0},  {0xdc, 0x02, 0, 16},  {0x85, 0x00, 0, 1},  {0x85, 0x20, 0, 9},
      {0x2d, 0x32, 0, 0},  {0x95, 0x00, 0, 0},
  };
  const auto code = std::move(a).finish();
  REQUIRE(code.size() == expected.size());
  for (std::size_t i = 0; i < code.size(); ++i) {
    CAPTURE(i);
    CHECK(code[i] == expected[i]);
  }
}

TEST_CASE("jumps go backwards, too") {
  Assembler a;
  const auto again = a.label();
  a.place(again);
  a.move(r0, 0);
  a.jump(again);
  CHECK(std::move(a).finish()[1] == Instruction{0x05, 0, -2, 0});
}

TEST_CASE("a frame of an offloaded flow is redirected and counted, and no other") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  for (const Frame& frame : {ipv4_frame(6), ipv4_frame(17), ipv6_frame(6), ipv6_frame(17)}) {
    CAPTURE(frame.size());
    const OffloadKey key = key_of(frame);
    CHECK(run(kernel->egress, frame).verdict == kNext);
    kernel->put(key, out_by(1));
    const Ran ran = run(kernel->egress, frame);
    CHECK(ran.verdict == kRedirected);
    CHECK(ran.frame == frame);
    CHECK(kernel->entry(key).packets == 1);
    CHECK(kernel->entry(key).bytes == frame.size());

    // Everything of the key counts: stations (anti-spoofing), addresses, ports.
    const bool ipv4 = frame[14] == 0x45;
    for (const std::size_t at : ipv4 ? std::vector<std::size_t>{0, 6, 11, 29, 33, 35, 37}
                                     : std::vector<std::size_t>{0, 6, 11, 37, 53, 55, 57}) {
      CAPTURE(at);
      Frame other = frame;
      other[at] ^= 1;
      CHECK(run(kernel->egress, other).verdict == kNext);
    }
    kernel->set_epoch(kEpoch + 1);
    CHECK(run(kernel->egress, frame).verdict == kNext);
    kernel->set_epoch(kEpoch);
    OffloadAction narrow = out_by(1);
    narrow.mtu = static_cast<uint32_t>(frame.size()) - 15;
    kernel->put(key, narrow);
    CHECK(run(kernel->egress, frame).verdict == kNext);
    CHECK(kernel->entry(key).packets == 0);
  }
}

TEST_CASE("what is odd about a frame leaves it to user space") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  const auto odd = [&](const Frame& plain, const char* what, const std::function<void(Frame&)>& change) {
    CAPTURE(what);
    kernel->put(key_of(plain), out_by(1));
    Frame frame = plain;
    change(frame);
    CHECK(run(kernel->egress, frame).verdict == kNext);
  };
  for (const uint8_t flag : {1, 2, 4, 32}) {
    odd(ipv4_frame(6), "TCP flag", [&](Frame& frame) { frame[47] |= flag; });
    odd(ipv6_frame(6), "TCP flag", [&](Frame& frame) { frame[67] |= flag; });
  }
  odd(ipv4_frame(6), "short data offset", [](Frame& frame) { frame[46] = 0x40; });
  odd(ipv4_frame(17), "more fragments", [](Frame& frame) { frame[20] |= 0x20; });
  odd(ipv4_frame(17), "fragment offset", [](Frame& frame) { frame[21] = 1; });
  odd(ipv4_frame(17), "options", [](Frame& frame) { frame[14] = 0x46; });
  odd(ipv4_frame(17), "longer than the frame", [](Frame& frame) { put16(frame, 16, 85); });
  odd(ipv6_frame(17), "longer than the frame", [](Frame& frame) { put16(frame, 18, 65); });
  odd(ipv4_frame(17), "no room for UDP's header", [](Frame& frame) { put16(frame, 16, 27); });
  odd(ipv4_frame(6), "no room for TCP's header", [](Frame& frame) { put16(frame, 16, 39); });
  odd(ipv4_frame(6), "TCP options beyond the packet", [](Frame& frame) {
    put16(frame, 16, 50);
    frame[46] = 0x80;
  });
  odd(ipv6_frame(6), "no room for TCP's header", [](Frame& frame) { put16(frame, 18, 19); });
  odd(ipv6_frame(17), "another version of IP", [](Frame& frame) { frame[14] = 0x50; });
  for (const uint16_t length : {7, 65}) {
    odd(ipv4_frame(17), "wrong length of UDP", [&](Frame& frame) { put16(frame, 38, length); });
    odd(ipv6_frame(17), "wrong length of UDP", [&](Frame& frame) { put16(frame, 58, length); });
  }
  odd(ipv6_frame(17), "extension header", [](Frame& frame) { frame[20] = 0; });
  odd(ipv4_frame(17), "a tag", [](Frame& frame) { put16(frame, 12, 0x8100); });
  odd(ipv4_frame(17), "another protocol", [](Frame& frame) { frame[23] = 1; });
}

TEST_CASE("the filter's decision is what the interface's program does, once") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  const Frame frame = ipv4_frame(6);
  // The kernel shows a socket's filter what follows an Ethernet header; a packet socket shows it that, too.
  Frame shown(frame.begin(), frame.begin() + 14);
  shown.insert(shown.end(), frame.begin(), frame.end());
  CHECK(run(kernel->filter, shown).verdict == -1);
  CHECK(run(kernel->slot, frame).verdict == kNext);
  kernel->put(key_of(frame), out_by(1));
  CHECK(run(kernel->filter, shown).verdict == 0);
  CHECK(kernel->entry(key_of(frame)).packets == 1);
}

TEST_CASE("into the tunnel: outer headers as the switch makes them") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  for (Frame inner : {ipv4_frame(6), ipv6_frame(17)}) {
    const bool ipv4 = inner[14] == 0x45;
    inner[15] |= ipv4 ? 2 : 0x20;  // ECT(0)
    const Frame model = tunnelled(inner);
    OffloadAction action{.kind = static_cast<uint32_t>(OffloadKind::encapsulate), .link = 1, .mtu = 1500};
    std::memcpy(&action.local, &model[26], 4);
    std::memcpy(&action.remote, &model[30], 4);
    std::memcpy(&action.source_port, &model[34], 2);
    std::memcpy(&action.destination_port, &model[36], 2);
    std::memcpy(&action.vni, &model[46], 4);
    Frame base(model.begin() + 14, model.begin() + 34);
    base[2] = base[3] = base[10] = base[11] = 0;
    action.network_sum = sum_of(base, 0, 20);
    kernel->put(key_of(inner), action);
    const Ran ran = run(kernel->egress, inner);
    CHECK(ran.verdict == kRedirected);
    Frame expected = model;
    expected[15] = 2;
    put16(expected, 24, 0);
    put16(expected, 24, static_cast<uint16_t>(~sum_of(expected, 14, 20)));
    CHECK(ran.frame == expected);
  }
}

TEST_CASE("out of the tunnel: the inner frame") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  for (const Frame& inner : {ipv4_frame(6), ipv4_frame(17), ipv6_frame(6), ipv6_frame(17)}) {
    const OffloadKey key = tunnel_key_of(inner);
    CHECK(run(kernel->tunnel, tunnelled(inner)).verdict == kNext);
    kernel->put(key, out_by(1));
    const Ran ran = run(kernel->tunnel, tunnelled(inner));
    CHECK(ran.verdict == kRedirected);
    CHECK(ran.frame == inner);
    CHECK(kernel->entry(key).bytes == inner.size());

    const auto odd = [&](const char* what, const std::function<void(Frame&)>& change) {
      CAPTURE(what);
      Frame frame = tunnelled(inner);
      change(frame);
      put16(frame, 24, 0);
      put16(frame, 24, static_cast<uint16_t>(~sum_of(frame, 14, 20)));
      CHECK(run(kernel->tunnel, frame).verdict == kNext);
    };
    odd("another peer", [](Frame& frame) { frame[29] = 9; });
    odd("another local address", [](Frame& frame) { frame[33] = 9; });
    odd("another port", [](Frame& frame) { frame[37] ^= 1; });
    odd("another network", [](Frame& frame) { frame[48] = 43; });
    odd("another VXLAN flag", [](Frame& frame) { frame[42] = 0x88; });
    odd("congestion experienced", [](Frame& frame) { frame[15] = 3; });
    odd("options", [](Frame& frame) { frame[14] = 0x46; });
    odd("a fragment", [](Frame& frame) { frame[20] |= 0x20; });
    odd("longer than the frame", [](Frame& frame) {
      put16(frame, 16, static_cast<uint16_t>(get16(frame, 16) + 1));
      put16(frame, 38, static_cast<uint16_t>(get16(frame, 38) + 1));
    });
    odd("an inner packet that ends beyond UDP's", [](Frame& frame) {
      put16(frame, 16, static_cast<uint16_t>(get16(frame, 16) - 1));
      put16(frame, 38, static_cast<uint16_t>(get16(frame, 38) - 1));
    });
    odd("another length of UDP",
        [](Frame& frame) { put16(frame, 38, static_cast<uint16_t>(get16(frame, 38) - 1)); });
    Frame broken = tunnelled(inner);
    broken[24] ^= 1;
    CHECK(run(kernel->tunnel, broken).verdict == kNext);
  }
}

namespace {

// As the switch would see it: a plain TCP or UDP packet.
bool is_plain(const Frame& frame, net::Layout& layout) {
  const auto bytes = std::as_bytes(std::span(frame));
  if (net::parse(net::FrameView{bytes, bytes.size()}, layout) != net::DropReason::none) return false;
  const net::Headers& headers = layout.outer;
  return headers.vlans == 0 && !headers.fragment && headers.transport != net::kNoHeader &&
         (headers.ip_protocol == 6 || headers.ip_protocol == 17) &&
         headers.transport - headers.network == (headers.ip_version == 4 ? 20 : 40);
}

}  // namespace

TEST_CASE("what the switch would not take for a plain packet no program takes either") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto below = [&](std::size_t end) { return random() % end; };
  const auto change = [&](Frame& frame) {
    for (std::size_t times = 1 + below(3); times > 0; --times) {
      uint8_t& byte = frame[12 + below(frame.size() - 12)];
      byte = static_cast<uint8_t>(below(2) == 0 ? byte + below(5) - 2 : below(256));
    }
    if (below(8) == 0) frame.resize(std::max<std::size_t>(34, below(frame.size())));
  };
  int taken = 0;
  for (int i = 0; i < 20'000; ++i) {
    const uint8_t protocol = below(2) == 0 ? 6 : 17;
    Frame inner = below(2) == 0 ? ipv4_frame(protocol) : ipv6_frame(protocol);
    const bool through_tunnel = below(2) == 0;
    if (!through_tunnel || below(2) == 0) change(inner);
    Frame frame = inner;
    if (through_tunnel) {
      frame = tunnelled(inner);
      if (below(2) == 0) change(frame);
      put16(frame, 24, 0);
      put16(frame, 24, static_cast<uint16_t>(~sum_of(frame, 14, 20)));
    }
    // An entry for whatever the frame says of itself.
    OffloadKey key;
    if (through_tunnel) {
      if (frame.size() < 50 + 62) continue;
      inner.assign(frame.begin() + 50, frame.end());
      key = tunnel_key_of(inner);
      std::memcpy(&key.outer_source, &frame[26], 4);
      std::memcpy(&key.outer_destination, &frame[30], 4);
      std::memcpy(&key.vni, &frame[46], 4);
    } else {
      if (frame.size() < 62) continue;
      key = key_of(frame);
    }
    kernel->put(key, out_by(1));
    const Ran ran = run(through_tunnel ? kernel->tunnel : kernel->egress, frame);
    REQUIRE(map_remove(kernel->flows.get(), &key) == 0);
    if (ran.verdict != kRedirected) continue;
    ++taken;
    CAPTURE(i);
    CAPTURE(through_tunnel);
    net::Layout layout;
    REQUIRE(is_plain(frame, layout));
    if (!through_tunnel) continue;
    REQUIRE(layout.tunnel == net::TunnelKind::vxlan);
    // What UDP's length says there is.
    inner.resize(get16(frame, 38) - 16u);
    REQUIRE(is_plain(inner, layout));
  }
  CHECK(taken > 1'000);
}

TEST_CASE("a datagram without a checksum needs the outer one, which user space verifies") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  Frame inner = ipv4_frame(17);
  put16(inner, 40, 0);
  kernel->put(tunnel_key_of(inner), out_by(1));
  Frame frame = tunnelled(inner);
  CHECK(run(kernel->tunnel, frame).verdict == kRedirected);
  put16(frame, 40, 0x5555);
  CHECK(run(kernel->tunnel, frame).verdict == kNext);
}

// Two ends of a veth in a namespace of their own. What is sent at the one has its checksum left to be
// completed where the header before the frame says (struct virtio_net_hdr).
class Wire {
 public:
  // False without the capabilities.
  static bool open(const std::function<void(const Wire&)>& with) {
    bool entered = false;
    std::thread([&] {
      entered = ::unshare(CLONE_NEWNET) == 0;
      if (!entered) return;
      REQUIRE(std::system("ip link add here type veth peer name there address 02:00:00:00:00:0b &&"
                          "ip link set here up && ip link set there up") == 0);
      with(Wire());
    }).join();
    return entered;
  }

  int here() const { return static_cast<int>(::if_nametoindex("here")); }
  int there() const { return static_cast<int>(::if_nametoindex("there")); }

  // False: the kernel refuses such a place itself.
  bool send(const Frame& frame, std::size_t start, std::size_t field) const {
    Frame bytes(10);
    bytes[0] = 1;  // needs its checksum
    const auto put = [&](std::size_t at, std::size_t value) {
      bytes[at] = static_cast<uint8_t>(value);
      bytes[at + 1] = static_cast<uint8_t>(value >> 8);
    };
    put(6, start);
    put(8, field - start);
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return ::send(sender_.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  }
  int receiver() const { return receiver_.get(); }

 private:
  Wire() : sender_(open_at(here(), 0)), receiver_(open_at(there(), 0x0300)) {
    const int one = 1;
    REQUIRE(::setsockopt(sender_.get(), SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) == 0);
  }
  static Fd open_at(int link, uint16_t protocol) {
    Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = protocol;
    address.sll_ifindex = link;
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
  }

  Fd sender_, receiver_;
};

// The kernel completes it when the frame leaves the host, after the program has looked at addresses and
// ports.
TEST_CASE("a checksum that is left to be summed where none stands leaves the frame to user space") {
  const auto kernel = Kernel::open();
  if (!kernel) return;
  const auto check_taken = [&](const Wire& wire, const OffloadKey& key, const Frame& frame, std::size_t start,
                               std::size_t field, bool wanted) {
    CAPTURE(start);
    CAPTURE(field);
    kernel->put(key, out_by(1));
    if (!wire.send(frame, start, field)) return false;
    // The other end's part of the work may be done a moment later.
    for (int i = 0; i < 20 && kernel->entry(key).packets == 0; ++i) std::this_thread::yield();
    CHECK((kernel->entry(key).packets == 1) == wanted);
    return true;
  };
  Wire::open([&](const Wire& wire) {
    const auto check = [&](Frame frame, bool filter) {
      frame[0] = 2;
      frame[11] = 4;
      const std::size_t transport = frame[14] == 0x45 ? 34 : 54;
      const bool tcp = frame[transport == 34 ? 23 : 20] == 6;
      const std::size_t checksum = transport + (tcp ? 16 : 6), end = transport + (tcp ? 20 : 8);
      CAPTURE(filter);
      CAPTURE(frame.size());
      for (const std::size_t start : {std::size_t{0}, std::size_t{14}, transport, transport + 2, end}) {
        for (std::size_t field = start; field < end + 6; field += 2) {
          const bool in_place = (start == transport && field == checksum) || field >= end;
          const bool sent = check_taken(wire, key_of(frame), frame, start, field, in_place);
          CHECK((sent || start < transport));
        }
      }
    };
    for (const bool filter : {false, true}) {
      Fd attached;
      if (filter) {
        REQUIRE(attach_filter(wire.receiver(), kernel->filter.get()));
      } else {
        auto link = attach_tcx(kernel->egress.get(), wire.here(), Hook::tcx_egress);
        REQUIRE(link);
        attached = std::move(*link);
      }
      for (const Frame& frame : {ipv4_frame(6), ipv4_frame(17), ipv6_frame(6), ipv6_frame(17)})
        check(frame, filter);
    }
    const auto link = attach_tcx(kernel->tunnel.get(), wire.there(), Hook::tcx_ingress);
    REQUIRE(link);
    const Frame inner = ipv4_frame(6);
    Frame frame = tunnelled(inner);
    frame[0] = 2;
    frame[5] = 0x0b;
    const OffloadKey key = tunnel_key_of(inner);
    for (const auto& [start, field, in_place] : {std::tuple(34, 40, true),
                                                 {34, 48, true},
                                                 {84, 100, true},
                                                 {84, 104, true},
                                                 {34, 49, false},
                                                 {50, 62, false},
                                                 {64, 80, false},
                                                 {84, 86, false},
                                                 {84, 98, false}})
      CHECK(check_taken(wire, key, frame, static_cast<std::size_t>(start), static_cast<std::size_t>(field),
                        in_place));
  });
}

TEST_CASE("what describes no packet of the kernel's is refused") {
  CHECK_FALSE(kernel_packet({}));
  std::vector<std::byte> bytes(64, std::byte{0xff});
  CHECK_FALSE(kernel_packet(bytes));
  bytes[0] = std::byte{0x9f};
  bytes[1] = std::byte{0xeb};
  CHECK_FALSE(kernel_packet(bytes));
}

}  // namespace penstock::bpf

// The underlay's self-test: real frames through a scratch namespace.
//
//   VXLAN superframe -> tap "in" -> the kernel routes -> tap "out" -> must be the same superframe, whole
//   three datagrams as one train -> loopback -> must arrive, as a train or one by one
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstring>
#include <thread>

#include "native/offload/tunnel.h"
#include "native/packet/parse.h"
#include "native/port/underlay.h"
#include "native/port/vnet_header.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr int kArrivalMsMax = 500;
constexpr uint32_t kInnerPayload = 6000;
constexpr uint16_t kSegment = 1398;
constexpr uint8_t kSource[4] = {198, 51, 100, 1};  // RFC 5737: addresses for documentation
constexpr uint8_t kDestination[4] = {203, 0, 113, 1};

// Ethernet, IPv4, TCP and a body: a superframe that a virtual machine could have sent.
Packet* inner_superframe(PacketPool& pool) {
  Packet* packet = pool.take();
  BodyBuffer* body = pool.take_body();
  if (packet == nullptr || body == nullptr) return nullptr;
  std::byte* frame = packet->data();
  std::memset(frame, 0, 54);
  store8(frame, 2);
  store8(frame + 6, 2);
  store16(frame + kEtherTypeAt, kEtherIpv4);
  std::byte* ip = frame + kEthernetBytes;
  store8(ip, 0x45);
  store16(ip + kIpv4Length, kIpv4Bytes + kTcpBytes + kInnerPayload);
  store16(ip + kIpv4Fragment, kIpv4DontFragment);
  store8(ip + kIpv4Ttl, 64);
  store8(ip + kIpv4Protocol, kIpTcp);
  std::memcpy(ip + kIpv4Source, kSource, 4);
  std::memcpy(ip + kIpv4Destination, kDestination, 4);
  store8(ip + kIpv4Bytes + kTcpDataOffset, 0x50);
  store8(ip + kIpv4Bytes + kTcpFlags, kTcpAck);
  packet->head_length = 54;
  std::memset(body->bytes, 'p', kInnerPayload);
  body->used = kInnerPayload;
  if (!pool.append(*packet, body, 0, kInnerPayload)) return nullptr;
  packet->offload = {.gso = Gso::tcp4,
                     .checksum = ChecksumState::partial,
                     .gso_size = kSegment,
                     .header_length = 54,
                     .checksum_start = 34,
                     .checksum_offset = 16};
  return packet;
}

bool wait_readable(int fd) {
  pollfd waiting{fd, POLLIN, 0};
  return ::poll(&waiting, 1, kArrivalMsMax) == 1;
}

// The kernel sends frames of its own into a tap that comes up: those are passed over.
Result<void> expect_superframe(PortQueue& queue, PacketPool& pool, std::size_t length) {
  while (wait_readable(queue.descriptor())) {
    Batch batch;
    queue.receive(batch, pool);
    bool whole = false;
    bool split = false;
    for (Packet* packet : batch.all()) {
      const bool ours = parse(*packet) == DropReason::none && packet->layout.tunnel == TunnelKind::vxlan;
      whole |= ours && packet->length() == length && packet->offload.tunnel &&
               packet->offload.gso == Gso::tcp4 && packet->offload.gso_size == kSegment;
      split |= ours && packet->length() != length;
      PacketPool::release(packet);
    }
    if (whole) return {};
    if (split) return Error{EOPNOTSUPP, "the kernel segmented the tunnel superframe while it routed it"};
  }
  return Error{ETIMEDOUT, "a tunnel superframe written to a tap was not routed to another"};
}

Result<void> try_tap() {
  auto in = TapPort::open({.name = "in", .mtu = 65000});
  if (!in) return in.error();
  if (!(*in)->offloads().udp_tunnel_gso)
    return Error{EOPNOTSUPP, "taps of this kernel take no tunnel superframes (6.17 and later do)"};
  auto out = TapPort::open({.name = "out"});
  if (!out) return out.error();
  for (const char* knob : {"conf/in/forwarding", "conf/out/forwarding"}) {
    if (auto done = write_sysctl(std::string("ipv4/") + knob, "1"); !done) return done;
  }
  for (const char* knob : {"conf/all/rp_filter", "conf/in/rp_filter"}) {
    if (auto done = write_sysctl(std::string("ipv4/") + knob, "0"); !done) return done;
  }
  const auto facts = link_facts("in");
  if (!facts) return facts.error();
  IpPrefix destination;
  std::memcpy(destination.bytes.data(), kDestination, 4);
  if (auto done = add_link_route((*out)->link_index(), destination, nullptr); !done) return done;
  if (auto done = add_link_neighbour((*out)->link_index(), destination, {2, 0, 0, 0, 0, 9}); !done)
    return done;

  auto pool = PacketPool::create({.packets = 128, .bodies = 8, .slice_tables = 1});
  if (!pool) return pool.error();
  (*pool)->adopt();
  Packet* packet = inner_superframe(**pool);
  if (packet == nullptr || parse(*packet) != DropReason::none) return Error{EINVAL, "a frame of our own"};
  TunnelPath path;
  path.source_mac = {2, 0, 0, 0, 0, 8};
  path.destination_mac = facts->mac;
  std::memcpy(path.source.data(), kSource, 4);
  std::memcpy(path.destination.data(), kDestination, 4);
  if (encapsulate(*packet, TunnelTemplate(path), 1) != DropReason::none)
    return Error{EINVAL, "a frame of our own"};
  const std::size_t length = packet->length();
  if ((*in)->queue(0).transmit({&packet, 1}) != 1 || (*in)->counters(0).transmit.packets.get() != 1)
    return Error{EOPNOTSUPP, "a tap refused a tunnel superframe"};
  return expect_superframe((*out)->queue(0), **pool, length);
}

Result<void> try_udp(UnderlayProbe& probe) {
  if (auto done = set_link_up("lo", true); !done) return done;
  const Fd from(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
      to(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* name = reinterpret_cast<sockaddr*>(&address);
  if (::bind(to.get(), name, length) < 0 || ::getsockname(to.get(), name, &length) < 0 ||
      ::connect(from.get(), name, length) < 0)
    return Error::from_errno(errno, "UDP sockets on loopback");
  const int one = 1, segment = 500;
  const bool gathers = ::setsockopt(to.get(), IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) == 0;
  const bool splits = ::setsockopt(from.get(), IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0;
  std::array<char, 2000> buffer{};
  if (::send(from.get(), buffer.data(), 1500, 0) != 1500)
    return Error::from_errno(errno, "a train of datagrams");
  std::size_t received = 0;
  while (received < 1500) {
    const ssize_t got = wait_readable(to.get()) ? ::recv(to.get(), buffer.data(), buffer.size(), 0) : -1;
    if (got < 0) return Error{ETIMEDOUT, "a train of datagrams did not arrive"};
    probe.udp_coalesce = gathers && got > segment;
    received += static_cast<std::size_t>(got);
  }
  probe.udp_segment = splits;
  return {};
}

}  // namespace

UnderlayProbe probe_underlay() {
  UnderlayProbe probe;
  std::thread scratch([&probe] {
    if (::unshare(CLONE_NEWNET) < 0) {
      const Error error = Error::from_errno(errno, "a scratch network namespace for the self-test");
      probe.tap_finding = probe.udp_finding = error.message;
      return;
    }
    const auto tap = try_tap();
    probe.tap = tap.ok();
    probe.tap_finding = tap ? "tunnel superframes pass a tap and routing whole" : tap.error().message;
    const auto udp = try_udp(probe);
    if (!udp) {
      probe.udp_finding = udp.error().message;
    } else {
      probe.udp_finding = std::string("datagrams go ") + (probe.udp_segment ? "in trains" : "one by one") +
                          ", come " + (probe.udp_coalesce ? "in trains" : "one by one");
    }
  });
  scratch.join();
  return probe;
}

}  // namespace penstock::net

// What segmentation and encapsulation cost in memory, on one core (driven by segmentation.ts). One JSON line
// a measurement: {"figure", "unit", "peer", "value"}.
//
// Superframes of 64 900 payload bytes become 45 segments of 1 448 with every checksum; eight superframes take
// turns, so that payload comes from the second-level cache as it does behind a tap. The peer is librte_gso
// followed by DPDK's own checksum functions over its segments (compiled in when PENSTOCK_DPDK is defined).
#include <sched.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "native/offload/checksum_offload.h"
#include "native/offload/segment.h"
#include "native/offload/tunnel.h"
#include "native/packet/parse.h"

#ifdef PENSTOCK_DPDK
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_gso.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>
#endif

using namespace penstock::net;

namespace {

constexpr std::size_t kPayload = 64900;
constexpr uint16_t kSegment = 1448;
constexpr std::size_t kHeaders = 14 + 20 + 32;
constexpr int kSuperframes = 8;
constexpr double kSeconds = 0.15;
constexpr int kRounds = 10;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

// The processor time of this thread: what one core does, whoever else wants it.
double now() {
  timespec time{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) fail("no clock");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void report(const char* figure, const char* unit, const char* peer, double value) {
  std::printf("{\"figure\":\"%s\",\"unit\":\"%s\",\"peer\":\"%s\",\"value\":%.3f}\n", figure, unit, peer,
              value);
}

// A TCP superframe over IPv4 with timestamps.
std::vector<std::byte> superframe(unsigned seed) {
  std::vector<std::byte> frame(kHeaders + kPayload);
  for (std::size_t i = kHeaders; i < frame.size(); ++i) frame[i] = static_cast<std::byte>(i * 31 + seed);
  std::byte* at = frame.data();
  at[0] = at[6] = std::byte{2};
  wire::store16(at + 12, wire::kEtherIpv4);
  std::byte* ip = at + 14;
  wire::store8(ip, 0x45);
  wire::store16(ip + wire::kIpv4Length, static_cast<uint16_t>(frame.size() - 14));
  wire::store16(ip + wire::kIpv4Fragment, wire::kIpv4DontFragment);
  wire::store8(ip + wire::kIpv4Ttl, 64);
  wire::store8(ip + wire::kIpv4Protocol, wire::kIpTcp);
  wire::store32(ip + wire::kIpv4Source, 0x0a000001 + seed);
  wire::store32(ip + wire::kIpv4Destination, 0x0a000002);
  std::byte* tcp = ip + 20;
  wire::store16(tcp, static_cast<uint16_t>(1000 + seed));
  wire::store16(tcp + 2, 5001);
  wire::store8(tcp + wire::kTcpDataOffset, 8 << 4);
  wire::store8(tcp + wire::kTcpFlags, wire::kTcpAck | wire::kTcpPsh);
  std::memset(tcp + 20, 1, 12);
  return frame;
}

class Ours {
 public:
  Ours() {
    auto pool = PacketPool::create({.packets = 512, .bodies = kSuperframes, .slice_tables = 64});
    if (!pool) fail("no memory for packets");
    pool_ = std::move(*pool);
    pool_->adopt();
    for (int i = 0; i < kSuperframes; ++i) {
      const std::vector<std::byte> frame = superframe(static_cast<unsigned>(i));
      Packet* packet = pool_->take();
      BodyBuffer* body = pool_->take_body();
      packet->head_length = kHeadCapacity;
      std::memcpy(packet->data(), frame.data(), kHeadCapacity);
      body->used = static_cast<uint32_t>(frame.size() - kHeadCapacity);
      std::memcpy(body->bytes, frame.data() + kHeadCapacity, body->used);
      if (!pool_->append(*packet, body, 0, body->used) || parse(*packet) != DropReason::none) fail("a frame");
      packet->offload.gso = Gso::tcp4;
      packet->offload.gso_size = kSegment;
      packet->offload.header_length = kHeaders;
      packet->offload.checksum = ChecksumState::partial;
      packet->offload.checksum_start = 34;
      packet->offload.checksum_offset = wire::kTcpChecksum;
      packets_.push_back(packet);
    }
  }
  ~Ours() {
    for (Packet* packet : packets_) PacketPool::release(packet);
  }

  void split(std::size_t which, bool verify) {
    Segmenter segmenter;
    if (segmenter.begin(*packets_[which]) != DropReason::none) fail("not segmented");
    Packet* segments[64];
    std::size_t count = 0;
    while (Packet* segment = segmenter.next()) segments[count++] = segment;
    if (count != 45) fail("not 45 segments");
    for (std::size_t i = 0; i < count; ++i) {
      if (verify && (verify_transport(*segments[i], segments[i]->layout.outer) != ChecksumVerdict::good ||
                     !verify_network(segments[i]->data(), segments[i]->layout.outer))) {
        fail("a wrong checksum");
      }
      PacketPool::release(segments[i]);
    }
  }

 private:
  std::unique_ptr<PacketPool> pool_;
  std::vector<Packet*> packets_;
};

#ifdef PENSTOCK_DPDK
class Dpdk {
 public:
  explicit Dpdk(const char* core) {
    const char* arguments[] = {"segmentation", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry",
                               "-l",           core,        "-m",       "128",         "--iova-mode=va"};
    if (rte_eal_init(10, const_cast<char**>(arguments)) < 0) fail("DPDK's environment does not start");
    large_ = rte_pktmbuf_pool_create("large", 31, 0, 0, 65535, SOCKET_ID_ANY);
    direct_ = rte_pktmbuf_pool_create("direct", 1023, 128, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    indirect_ = rte_pktmbuf_pool_create("indirect", 1023, 128, 0, 0, SOCKET_ID_ANY);
    if (large_ == nullptr || direct_ == nullptr || indirect_ == nullptr) fail("DPDK has no memory");
    for (int i = 0; i < kSuperframes; ++i) {
      const std::vector<std::byte> frame = superframe(static_cast<unsigned>(i));
      rte_mbuf* packet = rte_pktmbuf_alloc(large_);
      void* to = rte_pktmbuf_append(packet, static_cast<uint16_t>(frame.size()));
      if (to == nullptr) fail("DPDK: no room for a superframe");
      std::memcpy(to, frame.data(), frame.size());
      packets_.push_back(packet);
    }
  }

  void split(std::size_t which) {
    rte_mbuf* packet = packets_[which];
    packet->l2_len = 14;
    packet->l3_len = 20;
    packet->l4_len = 32;
    packet->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4;
    packet->packet_type = RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_TCP;
    rte_gso_ctx context{};
    context.direct_pool = direct_;
    context.indirect_pool = indirect_;
    context.gso_types = RTE_ETH_TX_OFFLOAD_TCP_TSO;
    context.gso_size = static_cast<uint16_t>(kHeaders + kSegment);
    rte_mbuf* segments[64];
    const int count = rte_gso_segment(packet, &context, segments, 64);
    if (count != 45) fail("librte_gso: not 45 segments");
    for (int i = 0; i < count; ++i) {
      rte_mbuf* segment = segments[i];
      auto* ip = rte_pktmbuf_mtod_offset(segment, rte_ipv4_hdr*, 14);
      auto* tcp = rte_pktmbuf_mtod_offset(segment, rte_tcp_hdr*, 34);
      ip->hdr_checksum = 0;
      ip->hdr_checksum = rte_ipv4_cksum(ip);
      tcp->cksum = 0;
      tcp->cksum = rte_ipv4_udptcp_cksum_mbuf(segment, ip, 34);
    }
    rte_pktmbuf_free_bulk(segments, static_cast<unsigned>(count));
  }

 private:
  rte_mempool* large_ = nullptr;
  rte_mempool* direct_ = nullptr;
  rte_mempool* indirect_ = nullptr;
  std::vector<rte_mbuf*> packets_;
};
#endif

// Gigabits of payload a second.
template <typename Split>
double rate(Split&& split) {
  uint64_t bytes = 0;
  const double start = now();
  double end = start;
  while (end - start < kSeconds) {
    for (std::size_t i = 0; i < kSuperframes; ++i) split(i);
    bytes += kSuperframes * kPayload;
    end = now();
  }
  return static_cast<double>(bytes) * 8 / (end - start) / 1e9;
}

// 64-byte frames of as many flows as there are buffers: parsed, hashed, encapsulated; millions a second.
double encapsulation_rate(std::vector<Packet*>& packets, const TunnelTemplate& path) {
  uint64_t done = 0;
  const double start = now();
  double end = start;
  while (end - start < kSeconds) {
    for (Packet* packet : packets) {
      packet->flow_hash = 0;
      if (parse(*packet) != DropReason::none) fail("not parsed");
      if (encapsulate(*packet, path, 42) != DropReason::none) fail("not encapsulated");
      packet->pull(packet->layout.inner.ethernet);
    }
    done += packets.size();
    end = now();
  }
  return static_cast<double>(done) / (end - start) / 1e6;
}

std::vector<Packet*> small_packets(PacketPool& pool, std::size_t count) {
  std::vector<Packet*> packets;
  for (std::size_t i = 0; i < count; ++i) {
    Packet* packet = pool.take();
    if (packet == nullptr) fail("no packet");
    std::byte* frame = packet->data();
    std::memset(frame, 0, 64);
    packet->head_length = 60;
    frame[0] = frame[6] = std::byte{2};
    wire::store16(frame + 12, wire::kEtherIpv4);
    wire::store8(frame + 14, 0x45);
    wire::store16(frame + 16, 46);
    wire::store8(frame + 22, 64);
    wire::store8(frame + 23, wire::kIpUdp);
    wire::store32(frame + 26, static_cast<uint32_t>(0x0a000000 + i));
    wire::store32(frame + 30, 0x0b000001);
    wire::store16(frame + 34, static_cast<uint16_t>(i));
    wire::store16(frame + 36, 5001);
    wire::store16(frame + 38, 26);
    packets.push_back(packet);
  }
  return packets;
}

}  // namespace

int main() {
  cpu_set_t one;
  CPU_ZERO(&one);
  const int core = ::sched_getcpu();
  CPU_SET(core, &one);
  if (::sched_setaffinity(0, sizeof(one), &one) != 0) fail("cannot stay on one core");

  Ours ours;
  for (std::size_t i = 0; i < kSuperframes; ++i) ours.split(i, true);
#ifdef PENSTOCK_DPDK
  Dpdk dpdk(std::to_string(core).c_str());
#endif
  auto pool = PacketPool::create({.packets = 4096, .bodies = 1, .slice_tables = 1});
  if (!pool) fail("no memory for packets");
  (*pool)->adopt();
  std::vector<Packet*> packets = small_packets(**pool, 4096);
  TunnelPath path;
  path.source = {10, 0, 0, 1};
  path.destination = {10, 0, 0, 2};
  const TunnelTemplate tunnel(path);

  for (int round = 0; round < kRounds; ++round) {
    report("64 KiB into 45 segments", "Gb/s", "penstock", rate([&](std::size_t i) { ours.split(i, false); }));
#ifdef PENSTOCK_DPDK
    report("64 KiB into 45 segments", "Gb/s", "librte_gso", rate([&](std::size_t i) { dpdk.split(i); }));
#endif
    report("parse, hash, VXLAN", "Mpps", "penstock", encapsulation_rate(packets, tunnel));
  }
  for (Packet* packet : packets) PacketPool::release(packet);
  return 0;
}

#include "native/bpf/offload_program.h"

#include <cstddef>

#include "native/bpf/offload_record.h"

namespace penstock::bpf {
namespace {

// Offsets into struct __sk_buff (linux/bpf.h).
namespace skb {
constexpr int16_t kLength = 0, kPacketType = 4, kVlanPresent = 20, kLink = 40, kGsoSize = 176;
}

// enum bpf_func_id
constexpr int32_t kMapLookup = 1, kStoreBytes = 9, kRedirect = 23, kLoadBytes = 26, kChecksumDifference = 28,
                  kAdjustRoom = 50, kRedirectNeighbour = 152;

constexpr int32_t kTcxNext = -1, kTcxDrop = 2;
constexpr int32_t kIngress = 1;            // of kRedirect
constexpr int32_t kRecomputeChecksum = 1;  // of kStoreBytes
constexpr int32_t kRoomMac = 1;            // BPF_ADJ_ROOM_MAC
constexpr uint64_t kFixedGso = 1 << 0, kEncapIpv4 = 1 << 1, kEncapUdp = 1 << 4, kEncapEthernet = 1 << 6,
                   kDecapIpv4 = 1 << 7, kDecapIpv6 = 1 << 8;
constexpr uint64_t kInnerEthernet = uint64_t{14} << 56;

constexpr int32_t kIpv4Type = 0x0008, kIpv6Type = 0xdd86;  // EtherTypes as loaded by a little-endian machine
constexpr int32_t kTcp = 6, kUdp = 17;
constexpr int32_t kFragmentMask = 0xff3f;    // more fragments, offset; the same
constexpr int32_t kVxlanFlags = 0x00000008;  // the I flag alone; the same
constexpr int32_t kOddTcpFlags = 0x27;       // FIN, SYN, RST, URG
constexpr int32_t kEthernetBytes = 14, kIpv4Bytes = 20, kIpv6Bytes = 40, kUdpBytes = 8;
constexpr int32_t kTcpChecksum = 16, kUdpChecksumAt = 6;
constexpr int32_t kOuterBytes = static_cast<int32_t>(kVxlanRoom);  // what precedes the inner frame
constexpr int32_t kFrameMax = 65535;

// The stack, downwards from r10. The verifier wants every access to it aligned: frames begin two bytes before
// a word, so that the headers after Ethernet's begin with one.
constexpr int16_t kKey = -72;             // OffloadKey
constexpr int16_t kFrame = -138;          // the (inner) frame's first 62 bytes
constexpr int16_t kOuter = -202;          // outer headers, taken or made, and an Ethernet header: 64 bytes
constexpr int16_t kAction = -248;         // OffloadAction
constexpr int16_t kScratch = -256;        // two bytes of TCP; index of a map
constexpr int16_t kUdpChecksum = -264;    // the (inner) one
constexpr int16_t kUdpLength = -272;      // the (inner) one, as UDP's header tells it
constexpr int16_t kNetworkLength = -280;  // of the (inner) network packet, as its header tells it
constexpr int16_t kFrameEnd = -288;       // where the (inner) frame must have ended

#define KEY(field) static_cast<int16_t>(kKey + offsetof(OffloadKey, field))
#define ENTRY(field) static_cast<int16_t>(offsetof(OffloadEntry, field))
#define ACTION(field) static_cast<int16_t>(kAction + offsetof(OffloadAction, field))
#define SLOT(field) static_cast<int16_t>(offsetof(OffloadSlot, field))

// r6 is the packet throughout.
class Writer {
 public:
  explicit Writer(const OffloadMaps& maps) : maps_(maps), pass_(a_.label()) { a_.move(r6, r1); }

  // Looks the frame up that begins at `base`. Falls through with r7 = its entry and r9 = its ECN bits,
  // everything counted; jumps to pass otherwise. `tunnelled`: outer headers are at kOuter.
  void decide(uint32_t ingress, int32_t base, bool tunnelled);
  void load_outer();
  // The entry's action onto the stack.
  void keep_action();
  void encapsulate();
  void decapsulate();
  // Ends the program: does what kAction says.
  void act(bool may_encapsulate);
  void empty_slot();
  void leave_in_slot();
  void take_from_slot();
  std::vector<Instruction> finish(int32_t otherwise) {
    a_.place(pass_);
    a_.move(r0, otherwise);
    a_.exit();
    return std::move(a_).finish();
  }

 private:
  void load_bytes(int32_t offset, int16_t to, int32_t count) {
    a_.move(r2, offset);
    load_bytes_at_r2(to, count, pass_);
  }
  void load_bytes_at_r2(int16_t to, int32_t count, Assembler::Label otherwise);
  void store_bytes(int32_t offset, int16_t from, int32_t count);
  void stack_address(Register to, int16_t at);
  void copy(int16_t to, int16_t from, int32_t bytes);
  void copy_action(Register to, int16_t to_at, Register from, int16_t from_at);
  void fold(Register sum, Register scratch);
  void find_slot(Assembler::Label absent);
  void end_in_drop();
  void parse_ipv4(int32_t base);
  void parse_ipv6(int32_t base);
  void check_end(int32_t base);
  void keep_transport(int16_t transport, int16_t protocol, int32_t version);
  void parse_transport(int32_t base, bool tunnelled);
  void look_up();
  void check_checksum(int32_t base);
  void check_size(int32_t base, bool tunnelled);
  void check_tunnel();

  const OffloadMaps& maps_;
  Assembler a_;
  Assembler::Label pass_;
};

void Writer::stack_address(Register to, int16_t at) {
  a_.move(to, r10);
  a_.apply(Operation::add, to, at);
}

// r2 = where in the packet they begin.
void Writer::load_bytes_at_r2(int16_t to, int32_t count, Assembler::Label otherwise) {
  a_.move(r1, r6);
  stack_address(r3, to);
  a_.move(r4, count);
  a_.call(kLoadBytes);
  a_.jump_if(r0, Compare::unequal, 0, otherwise);
}

void Writer::store_bytes(int32_t offset, int16_t from, int32_t count) {
  a_.move(r1, r6);
  a_.move(r2, offset);
  stack_address(r3, from);
  a_.move(r4, count);
  a_.move(r5, kRecomputeChecksum);
  a_.call(kStoreBytes);
}

// In words where both places allow it, else in halves.
void Writer::copy(int16_t to, int16_t from, int32_t bytes) {
  for (int32_t at = 0; at < bytes;) {
    const bool whole = bytes - at >= 4 && (to + at) % 4 == 0 && (from + at) % 4 == 0;
    const Width width = whole ? Width::word : Width::half;
    a_.load(r1, r10, static_cast<int16_t>(from + at), width);
    a_.store(r10, static_cast<int16_t>(to + at), r1, width);
    at += whole ? 4 : 2;
  }
}

void Writer::copy_action(Register to, int16_t to_at, Register from, int16_t from_at) {
  for (std::size_t at = 0; at < sizeof(OffloadAction); at += 8) {
    a_.load(r1, from, static_cast<int16_t>(from_at + at), Width::quad);
    a_.store(to, static_cast<int16_t>(to_at + at), r1, Width::quad);
  }
}

// The ones' complement sum in 16 bits of one in 32.
void Writer::fold(Register sum, Register scratch) {
  for (int i = 0; i < 2; ++i) {
    a_.move(scratch, sum);
    a_.apply(Operation::shift_right, scratch, 16);
    a_.apply(Operation::bit_and, scratch, 0xffff);
    a_.apply(Operation::bit_and, sum, 0xffff);
    a_.apply(Operation::add, sum, scratch);
  }
}

// r0 = this processor's slot.
void Writer::find_slot(Assembler::Label absent) {
  a_.store(r10, kScratch, 0, Width::word);
  a_.map(r1, maps_.slots);
  stack_address(r2, kScratch);
  a_.call(kMapLookup);
  a_.jump_if(r0, Compare::equal, 0, absent);
}

void Writer::end_in_drop() {
  a_.move(r0, kTcxDrop);
  a_.exit();
}

void Writer::decide(uint32_t ingress, int32_t base, bool tunnelled) {
  const auto ipv6 = a_.label(), transport = a_.label();
  a_.load(r1, r6, skb::kVlanPresent, Width::word);
  a_.jump_if(r1, Compare::unequal, 0, pass_);
  if (!tunnelled) {
    a_.load(r1, r6, skb::kLength, Width::word);
    a_.store(r10, kFrameEnd, r1, Width::quad);
  }
  load_bytes(base, kFrame, kEthernetBytes + kIpv4Bytes + kUdpBytes);
  for (int16_t at = 0; at < 72; at = static_cast<int16_t>(at + 8))
    a_.store(r10, static_cast<int16_t>(kKey + at), 0, Width::quad);
  a_.store(r10, KEY(ingress), static_cast<int32_t>(ingress), Width::word);
  copy(KEY(stations), kFrame, 12);
  a_.load(r1, r10, kFrame + 12, Width::half);
  a_.jump_if(r1, Compare::equal, kIpv6Type, ipv6);
  a_.jump_if(r1, Compare::unequal, kIpv4Type, pass_);
  parse_ipv4(base);
  a_.jump(transport);
  a_.place(ipv6);
  parse_ipv6(base);
  a_.place(transport);
  parse_transport(base, tunnelled);
  if (tunnelled) check_tunnel();
  look_up();
  check_checksum(base);
  check_size(base, tunnelled);
  a_.move(r1, 1);
  a_.atomic_add(r7, ENTRY(packets), r1);
  a_.load(r1, r6, skb::kLength, Width::word);
  if (base != 0) a_.apply(Operation::subtract, r1, base);
  a_.atomic_add(r7, ENTRY(bytes), r1);
}

// Leaves r8 = length of the network header, r9 = ECN bits; addresses, ports, protocol in the key. Whatever
// packet/parse.h refuses goes on to it.
void Writer::parse_ipv4(int32_t base) {
  constexpr int16_t ip = kFrame + kEthernetBytes;
  a_.load(r1, r10, ip, Width::byte);
  a_.jump_if(r1, Compare::unequal, 0x45, pass_);
  a_.load(r1, r10, ip + 6, Width::half);
  a_.jump_if(r1, Compare::any_bit, kFragmentMask, pass_);
  a_.load(r1, r10, ip + 2, Width::half);
  a_.swap_bytes(r1, 16);
  check_end(base);
  a_.load(r9, r10, ip + 1, Width::byte);
  a_.apply(Operation::bit_and, r9, 3);
  copy(KEY(source), ip + 12, 4);
  copy(KEY(destination), ip + 16, 4);
  keep_transport(ip + kIpv4Bytes, ip + 9, 4);
  a_.move(r8, kIpv4Bytes);
}

void Writer::parse_ipv6(int32_t base) {
  constexpr int16_t ip = kFrame + kEthernetBytes;
  load_bytes(base, kFrame, kEthernetBytes + kIpv6Bytes + kUdpBytes);
  a_.load(r1, r10, ip, Width::byte);
  a_.apply(Operation::shift_right, r1, 4);
  a_.jump_if(r1, Compare::unequal, 6, pass_);
  a_.load(r1, r10, ip + 4, Width::half);
  a_.swap_bytes(r1, 16);
  a_.apply(Operation::add, r1, kIpv6Bytes);
  check_end(base);
  a_.load(r9, r10, ip + 1, Width::byte);
  a_.apply(Operation::shift_right, r9, 4);
  a_.apply(Operation::bit_and, r9, 3);
  copy(KEY(source), ip + 8, 16);
  copy(KEY(destination), ip + 24, 16);
  keep_transport(ip + kIpv6Bytes, ip + 6, 6);
  a_.move(r8, kIpv6Bytes);
}

// r1 = length of the network packet.
void Writer::check_end(int32_t base) {
  a_.store(r10, kNetworkLength, r1, Width::quad);
  a_.apply(Operation::add, r1, kEthernetBytes + base);
  a_.load(r2, r10, kFrameEnd, Width::quad);
  a_.jump_if(r1, Compare::above, r2, pass_);
}

// Of the headers on the stack. Leaves r1 = protocol.
void Writer::keep_transport(int16_t transport, int16_t protocol, int32_t version) {
  copy(KEY(source_port), transport, 4);
  a_.load(r1, r10, transport + 4, Width::half);
  a_.swap_bytes(r1, 16);
  a_.store(r10, kUdpLength, r1, Width::quad);
  a_.load(r1, r10, transport + 6, Width::half);
  a_.store(r10, kUdpChecksum, r1, Width::quad);
  a_.store(r10, KEY(ip_version), version, Width::byte);
  a_.load(r1, r10, protocol, Width::byte);
  a_.store(r10, KEY(protocol), r1, Width::byte);
}

// r1 = protocol. Adds the transport header's length to r8.
void Writer::parse_transport(int32_t base, bool tunnelled) {
  const auto udp = a_.label(), done = a_.label();
  a_.jump_if(r1, Compare::equal, kUdp, udp);
  a_.jump_if(r1, Compare::unequal, kTcp, pass_);
  a_.move(r2, r8);
  a_.apply(Operation::add, r2, kEthernetBytes + base + 12);
  load_bytes_at_r2(kScratch, 2, pass_);
  a_.load(r1, r10, kScratch + 1, Width::byte);
  a_.jump_if(r1, Compare::any_bit, kOddTcpFlags, pass_);
  a_.load(r1, r10, kScratch, Width::byte);
  a_.apply(Operation::shift_right, r1, 4);
  a_.apply(Operation::shift_left, r1, 2);
  a_.jump_if(r1, Compare::below, 20, pass_);
  a_.apply(Operation::add, r8, r1);
  a_.jump(done);
  a_.place(udp);
  a_.load(r1, r10, kUdpLength, Width::quad);
  a_.jump_if(r1, Compare::below, kUdpBytes, pass_);
  a_.apply(Operation::add, r1, r8);
  a_.load(r2, r10, kNetworkLength, Width::quad);
  a_.jump_if(r1, Compare::above, r2, pass_);
  a_.apply(Operation::add, r8, kUdpBytes);
  if (tunnelled) {
    // Without a checksum of its own an inner datagram has but the outer one, which nobody verifies here.
    a_.load(r1, r10, kUdpChecksum, Width::quad);
    a_.jump_if(r1, Compare::unequal, 0, done);
    a_.load(r1, r10, kOuter + kEthernetBytes + kIpv4Bytes + 6, Width::half);
    a_.jump_if(r1, Compare::unequal, 0, pass_);
  }
  a_.place(done);
  a_.load(r1, r10, kNetworkLength, Width::quad);
  a_.jump_if(r8, Compare::above, r1, pass_);
}

// The outer headers: for this host, IPv4 without options and fragments, right in its checksum, UDP that fills
// it, VXLAN. Leaves where they say that the inner frame ends.
void Writer::load_outer() {
  constexpr int16_t ip = kOuter + kEthernetBytes, udp = ip + kIpv4Bytes;
  a_.load(r1, r6, skb::kPacketType, Width::word);
  a_.jump_if(r1, Compare::unequal, 0, pass_);
  load_bytes(0, kOuter, kOuterBytes);
  a_.load(r1, r10, kOuter + 12, Width::half);
  a_.jump_if(r1, Compare::unequal, kIpv4Type, pass_);
  a_.load(r1, r10, ip, Width::byte);
  a_.jump_if(r1, Compare::unequal, 0x45, pass_);
  a_.load(r1, r10, ip + 6, Width::half);
  a_.jump_if(r1, Compare::any_bit, kFragmentMask, pass_);
  a_.load(r1, r10, ip + 9, Width::byte);
  a_.jump_if(r1, Compare::unequal, kUdp, pass_);
  a_.load(r1, r10, udp + kUdpBytes, Width::word);
  a_.jump_if(r1, Compare::unequal, kVxlanFlags, pass_);
  a_.load(r1, r10, udp + 4, Width::half);
  a_.swap_bytes(r1, 16);
  a_.apply(Operation::add, r1, kIpv4Bytes);
  a_.load(r2, r10, ip + 2, Width::half);
  a_.swap_bytes(r2, 16);
  a_.jump_if(r1, Compare::unequal, r2, pass_);
  a_.apply(Operation::add, r1, kEthernetBytes);
  a_.load(r2, r6, skb::kLength, Width::word);
  a_.jump_if(r1, Compare::above, r2, pass_);
  a_.store(r10, kFrameEnd, r1, Width::quad);
  a_.move(r1, 0);
  a_.move(r2, 0);
  stack_address(r3, ip);
  a_.move(r4, kIpv4Bytes);
  a_.move(r5, 0);
  a_.call(kChecksumDifference);
  fold(r0, r1);
  a_.jump_if(r0, Compare::unequal, 0xffff, pass_);
}

// What the outer headers add to the key; the congestion marks must need no change (RFC 6040, 4.2).
void Writer::check_tunnel() {
  constexpr int16_t ip = kOuter + kEthernetBytes, udp = ip + kIpv4Bytes;
  const auto same = a_.label();
  a_.load(r1, r10, ip + 1, Width::byte);
  a_.apply(Operation::bit_and, r1, 3);
  a_.jump_if(r1, Compare::equal, 0, same);
  a_.jump_if(r1, Compare::unequal, r9, pass_);
  a_.place(same);
  copy(KEY(outer_source), ip + 12, 4);
  copy(KEY(outer_destination), ip + 16, 4);
  copy(KEY(tunnel_port), udp + 2, 2);
  copy(KEY(vni), udp + kUdpBytes + 4, 4);
}

void Writer::look_up() {
  a_.map(r1, maps_.flows);
  stack_address(r2, kKey);
  a_.call(kMapLookup);
  a_.jump_if(r0, Compare::equal, 0, pass_);
  a_.move(r7, r0);
  a_.map_value(r1, maps_.control);
  a_.load(r1, r1, offsetof(OffloadControl, epoch), Width::quad);
  a_.load(r2, r7, ENTRY(epoch), Width::quad);
  a_.jump_if(r1, Compare::unequal, r2, pass_);
}

// As the switch has it (switch_admit.cc). What lies in outer headers goes with them.
void Writer::check_checksum(int32_t base) {
  const KernelPacket& packet = maps_.packet;
  const auto done = a_.label(), ipv4 = a_.label(), transport = a_.label(), elsewhere = a_.label();
  a_.move(r1, r6);
  a_.call_kernel(packet.cast);
  a_.load(r1, r0, packet.summed, Width::byte);
  a_.apply(Operation::bit_and, r1, packet.partial);
  a_.jump_if(r1, Compare::unequal, packet.partial, done);
  // r1 = where its sum begins in the frame, r2 = its field from there.
  a_.load(r1, r0, packet.checksum_start, Width::half);
  a_.load(r2, r0, packet.head, Width::quad);
  a_.apply(Operation::add, r1, r2);
  a_.load(r2, r0, packet.data, Width::quad);
  a_.apply(Operation::subtract, r1, r2);
  a_.load(r2, r0, packet.checksum_offset, Width::half);
  a_.jump_if(r1, Compare::above, kFrameMax, pass_);
  a_.load(r3, r10, KEY(ip_version), Width::byte);
  a_.jump_if(r3, Compare::equal, 4, ipv4);
  a_.jump_if(r1, Compare::equal, base + kEthernetBytes + kIpv6Bytes, transport);
  a_.jump(elsewhere);
  a_.place(ipv4);
  a_.jump_if(r1, Compare::unequal, base + kEthernetBytes + kIpv4Bytes, elsewhere);
  a_.place(transport);
  a_.load(r3, r10, KEY(protocol), Width::byte);
  a_.move(r4, kTcpChecksum);
  const auto tcp = a_.label();
  a_.jump_if(r3, Compare::equal, kTcp, tcp);
  a_.move(r4, kUdpChecksumAt);
  a_.place(tcp);
  a_.jump_if(r2, Compare::equal, r4, done);
  a_.place(elsewhere);
  a_.apply(Operation::add, r1, r2);
  if (base != 0) a_.jump_if(r1, Compare::at_most, base - 2, done);
  a_.move(r2, r8);
  a_.apply(Operation::add, r2, base + kEthernetBytes);
  a_.jump_if(r1, Compare::below, r2, pass_);
  a_.place(done);
}

// r8 = the headers that each segment of a superframe has.
void Writer::check_size(int32_t base, bool tunnelled) {
  const auto plain = a_.label(), compare = a_.label(), segments = a_.label();
  a_.load(r2, r6, skb::kLength, Width::word);
  a_.load(r1, r6, skb::kGsoSize, Width::word);
  a_.jump_if(r1, Compare::equal, 0, plain);
  a_.load(r3, r7, ENTRY(action.flags), Width::word);
  a_.jump_if(r3, Compare::any_bit, static_cast<int32_t>(kNoSuperframes), pass_);
  // Tunnels and datagrams that were sent as one: each has a header of its own after all.
  a_.load(r3, r10, KEY(protocol), Width::byte);
  a_.jump_if(r3, Compare::equal, kTcp, segments);
  if (tunnelled) {
    a_.jump(pass_);
  } else {
    a_.load(r3, r7, ENTRY(action.kind), Width::word);
    a_.jump_if(r3, Compare::equal, static_cast<int32_t>(OffloadKind::encapsulate), pass_);
  }
  a_.place(segments);
  a_.apply(Operation::add, r1, r8);
  a_.jump(compare);
  a_.place(plain);
  a_.move(r1, r2);
  a_.apply(Operation::subtract, r1, kEthernetBytes + base);
  a_.place(compare);
  a_.load(r3, r7, ENTRY(action.mtu), Width::word);
  a_.jump_if(r1, Compare::above, r3, pass_);
  if (!tunnelled) a_.jump_if(r2, Compare::above, kFrameMax - static_cast<int32_t>(kVxlanRoom), pass_);
}

void Writer::keep_action() {
  copy_action(r10, kAction, r7, ENTRY(action));
}

// What was left there and never taken (the program went meanwhile) is not for the frames to come.
void Writer::empty_slot() {
  const auto none = a_.label();
  find_slot(none);
  a_.store(r0, SLOT(link), 0, Width::word);
  a_.place(none);
}

void Writer::leave_in_slot() {
  find_slot(pass_);
  copy_action(r0, SLOT(action), r7, ENTRY(action));
  a_.store(r0, SLOT(traffic), r9, Width::word);
  a_.load(r1, r6, skb::kLength, Width::word);
  a_.store(r0, SLOT(length), r1, Width::word);
  a_.load(r1, r6, skb::kLink, Width::word);
  a_.store(r0, SLOT(link), r1, Width::word);
  a_.move(r0, 0);
  a_.exit();
}

void Writer::take_from_slot() {
  find_slot(pass_);
  a_.load(r1, r0, SLOT(link), Width::word);
  a_.store(r0, SLOT(link), 0, Width::word);
  a_.load(r2, r6, skb::kLink, Width::word);
  a_.jump_if(r1, Compare::unequal, r2, pass_);
  a_.load(r1, r0, SLOT(length), Width::word);
  a_.load(r2, r6, skb::kLength, Width::word);
  a_.jump_if(r1, Compare::unequal, r2, pass_);
  a_.load(r9, r0, SLOT(traffic), Width::word);
  copy_action(r10, kAction, r0, SLOT(action));
}

void Writer::act(bool may_encapsulate) {
  const auto out = a_.label(), in = a_.label();
  a_.load(r1, r10, ACTION(kind), Width::word);
  a_.jump_if(r1, Compare::equal, static_cast<int32_t>(OffloadKind::out), out);
  a_.jump_if(r1, Compare::equal, static_cast<int32_t>(OffloadKind::in), in);
  if (may_encapsulate) {
    encapsulate();
  } else {
    end_in_drop();
  }
  for (const auto& [label, flags] : {std::pair(out, 0), std::pair(in, kIngress)}) {
    a_.place(label);
    a_.load(r1, r10, ACTION(link), Width::word);
    a_.move(r2, flags);
    a_.call(kRedirect);
    a_.exit();
  }
}

// r9 = the inner ECN bits.
void Writer::encapsulate() {
  constexpr int16_t ip = kOuter + kEthernetBytes, udp = ip + kIpv4Bytes, vxlan = udp + kUdpBytes;
  const auto failed = a_.label();
  // The inner Ethernet header moves behind the new ones.
  a_.move(r2, 0);
  load_bytes_at_r2(vxlan + 8, kEthernetBytes, failed);
  a_.load(r8, r6, skb::kLength, Width::word);
  a_.apply(Operation::add, r8, static_cast<int32_t>(kVxlanRoom) - kEthernetBytes);  // outer IP length
  a_.move(r1, r6);
  a_.move(r2, static_cast<int32_t>(kVxlanRoom));
  a_.move(r3, kRoomMac);
  a_.move_quad(r4, kFixedGso | kEncapIpv4 | kEncapUdp | kEncapEthernet | kInnerEthernet);
  a_.call(kAdjustRoom);
  a_.jump_if(r0, Compare::unequal, 0, failed);

  // Stations: the neighbour's output fills them in.
  for (int16_t at = 0; at < 12; at = static_cast<int16_t>(at + 2))
    a_.store(r10, static_cast<int16_t>(kOuter + at), 0, Width::half);
  a_.store(r10, kOuter + 12, kIpv4Type, Width::half);
  a_.store(r10, ip, 0x45, Width::byte);
  a_.store(r10, ip + 1, r9, Width::byte);
  a_.move(r1, r8);
  a_.swap_bytes(r1, 16);
  a_.store(r10, ip + 2, r1, Width::half);
  a_.store(r10, ip + 4, 0, Width::half);
  a_.store(r10, ip + 6, 0x0040, Width::half);  // DF
  a_.store(r10, ip + 8, 64, Width::byte);
  a_.store(r10, ip + 9, kUdp, Width::byte);
  a_.load(r1, r10, ACTION(network_sum), Width::word);
  a_.apply(Operation::add, r1, r8);
  a_.apply(Operation::add, r1, r9);
  fold(r1, r2);
  a_.apply(Operation::exclusive_or, r1, 0xffff);
  a_.swap_bytes(r1, 16);
  a_.store(r10, ip + 10, r1, Width::half);
  copy(ip + 12, ACTION(local), 4);
  copy(ip + 16, ACTION(remote), 4);
  copy(udp, ACTION(source_port), 4);
  a_.apply(Operation::subtract, r8, kIpv4Bytes);
  a_.swap_bytes(r8, 16);
  a_.store(r10, udp + 4, r8, Width::half);
  a_.store(r10, udp + 6, 0, Width::half);
  a_.store(r10, vxlan, kVxlanFlags & 0xffff, Width::half);
  a_.store(r10, vxlan + 2, 0, Width::half);
  copy(vxlan + 4, ACTION(vni), 4);
  store_bytes(0, kOuter, kEthernetBytes + static_cast<int32_t>(kVxlanRoom));
  a_.jump_if(r0, Compare::unequal, 0, failed);
  a_.load(r1, r10, ACTION(link), Width::word);
  a_.move(r2, 0);
  a_.move(r3, 0);
  a_.move(r4, 0);
  a_.call(kRedirectNeighbour);
  a_.exit();
  // Out of memory: the frame is lost as a full queue would lose it.
  a_.place(failed);
  end_in_drop();
}

// The inner Ethernet header takes the place of the outer one.
void Writer::decapsulate() {
  const auto ipv6 = a_.label(), shrink = a_.label(), done = a_.label(), failed = a_.label();
  a_.load(r1, r10, kFrame + 12, Width::half);
  a_.jump_if(r1, Compare::equal, kIpv6Type, ipv6);
  a_.move(r4, static_cast<int32_t>(kFixedGso | kDecapIpv4));
  a_.jump(shrink);
  a_.place(ipv6);
  a_.move(r4, static_cast<int32_t>(kFixedGso | kDecapIpv6));
  a_.place(shrink);
  a_.move(r1, r6);
  a_.move(r2, -static_cast<int32_t>(kVxlanRoom));
  a_.move(r3, kRoomMac);
  a_.call(kAdjustRoom);
  a_.jump_if(r0, Compare::unequal, 0, failed);
  store_bytes(0, kFrame, kEthernetBytes);
  a_.jump_if(r0, Compare::equal, 0, done);
  a_.place(failed);
  end_in_drop();
  a_.place(done);
}

}  // namespace

std::vector<Instruction> filter_program(const OffloadMaps& maps, uint32_t ingress) {
  Writer program(maps);
  program.empty_slot();
  program.decide(ingress, 0, false);
  program.leave_in_slot();
  return program.finish(-1);  // the whole frame
}

std::vector<Instruction> slot_program(const OffloadMaps& maps) {
  Writer program(maps);
  program.take_from_slot();
  program.act(true);
  return program.finish(kTcxNext);
}

std::vector<Instruction> egress_program(const OffloadMaps& maps, uint32_t ingress) {
  Writer program(maps);
  program.decide(ingress, 0, false);
  program.keep_action();
  program.act(true);
  return program.finish(kTcxNext);
}

std::vector<Instruction> tunnel_program(const OffloadMaps& maps, uint32_t ingress) {
  Writer program(maps);
  program.load_outer();
  program.decide(ingress, kOuterBytes, true);
  program.keep_action();
  program.decapsulate();
  program.act(false);
  return program.finish(kTcxNext);
}

}  // namespace penstock::bpf

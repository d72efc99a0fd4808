#include "native/port/fanout.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

// linux/if_packet.h of 6.6
constexpr uint16_t kFlagIgnoreOutgoing = 0x4000;

constexpr uint32_t kNet = static_cast<uint32_t>(SKF_NET_OFF);
constexpr uint32_t kProtocol = static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_PROTOCOL);
constexpr uint32_t kPacketType = static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE);

// A program under construction whose jumps are to labels.
class Program {
 public:
  void emit(uint16_t code, uint32_t value) { code_.push_back(BPF_STMT(code, value)); }
  // To `label` when the comparison holds, else onwards.
  void jump_if(uint16_t condition, uint32_t value, std::size_t label) {
    fixes_.push_back({code_.size(), label});
    code_.push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | condition | BPF_K), value, 0, 0));
  }
  void jump(std::size_t label) {
    fixes_.push_back({code_.size(), label});
    code_.push_back(BPF_STMT(BPF_JMP | BPF_JA, 0));
  }
  void label(std::size_t name) {
    if (name >= labels_.size()) labels_.resize(name + 1);
    labels_[name] = code_.size();
  }
  std::vector<sock_filter> finish() {
    for (const auto& [at, name] : fixes_) {
      const std::size_t distance = labels_[name] - at - 1;
      sock_filter& instruction = code_[at];
      if (BPF_OP(instruction.code) == BPF_JA) {
        instruction.k = static_cast<uint32_t>(distance);
      } else {
        instruction.jt = static_cast<uint8_t>(distance);
      }
    }
    return std::move(code_);
  }

 private:
  std::vector<sock_filter> code_;
  std::vector<std::pair<std::size_t, std::size_t>> fixes_;
  std::vector<std::size_t> labels_;
};

constexpr uint16_t kLoadWord = BPF_LD | BPF_W | BPF_ABS;
constexpr uint16_t kLoadHalf = BPF_LD | BPF_H | BPF_ABS;
constexpr uint16_t kLoadByte = BPF_LD | BPF_B | BPF_ABS;
constexpr uint16_t kXor = BPF_ALU | BPF_XOR | BPF_X;

// A ^= *word; by way of X.
void mix_word(Program& program, uint32_t offset) {
  program.emit(BPF_MISC | BPF_TAX, 0);
  program.emit(kLoadWord, kNet + offset);
  program.emit(kXor, 0);
}

std::vector<sock_filter> steering_program() {
  enum Label : std::size_t { ipv4, ipv6, ports4, ports6, spread };
  Program program;
  program.emit(kLoadHalf, kProtocol);
  program.jump_if(BPF_JEQ, ETH_P_IP, ipv4);
  program.jump_if(BPF_JEQ, ETH_P_IPV6, ipv6);
  program.emit(BPF_RET | BPF_K, 0);

  // M[0] collects the hash.
  program.label(ipv4);
  program.emit(kLoadWord, kNet + kIpv4Source);
  mix_word(program, kIpv4Destination);
  program.emit(BPF_ST, 0);
  program.emit(kLoadHalf, kNet + kIpv4Fragment);
  program.jump_if(BPF_JSET, kIpv4MoreFragments | kIpv4OffsetMask, spread);
  program.emit(kLoadByte, kNet + kIpv4Protocol);
  program.jump_if(BPF_JEQ, kIpTcp, ports4);
  program.jump_if(BPF_JEQ, kIpUdp, ports4);
  program.jump(spread);

  program.label(ports4);
  program.emit(BPF_LDX | BPF_B | BPF_MSH, kNet);  // X = header length
  program.emit(BPF_LD | BPF_H | BPF_IND, kNet);
  program.emit(BPF_ST, 1);
  program.emit(BPF_LD | BPF_H | BPF_IND, kNet + kDestinationPort);
  program.emit(BPF_LDX | BPF_MEM, 1);
  program.emit(kXor, 0);
  program.emit(BPF_LDX | BPF_MEM, 0);
  program.emit(kXor, 0);
  program.emit(BPF_ST, 0);
  program.jump(spread);

  program.label(ipv6);
  program.emit(kLoadWord, kNet + kIpv6Source);
  for (uint32_t offset = kIpv6Source + 4; offset < kIpv6Bytes; offset += 4) mix_word(program, offset);
  program.emit(BPF_ST, 0);
  program.emit(kLoadByte, kNet + kIpv6Next);
  program.jump_if(BPF_JEQ, kIpTcp, ports6);
  program.jump_if(BPF_JEQ, kIpUdp, ports6);
  program.jump(spread);

  program.label(ports6);
  program.emit(kLoadHalf, kNet + kIpv6Bytes + kSourcePort);
  program.emit(BPF_MISC | BPF_TAX, 0);
  program.emit(kLoadHalf, kNet + kIpv6Bytes + kDestinationPort);
  program.emit(kXor, 0);
  program.emit(BPF_LDX | BPF_MEM, 0);
  program.emit(kXor, 0);
  program.emit(BPF_ST, 0);

  // Multiplicative hashing; the kernel takes the result modulo the number of sockets.
  program.label(spread);
  program.emit(BPF_LD | BPF_MEM, 0);
  program.emit(BPF_ALU | BPF_MUL | BPF_K, 0x9e3779b1);
  program.emit(BPF_ALU | BPF_RSH | BPF_K, 16);
  program.emit(BPF_RET | BPF_A, 0);
  return program.finish();
}

int join(int socket, uint16_t id, uint16_t flags) {
  const uint32_t value = id | static_cast<uint32_t>(PACKET_FANOUT_CBPF | flags) << 16;
  return ::setsockopt(socket, SOL_PACKET, PACKET_FANOUT, &value, sizeof(value));
}

// Before 6.6 a group does not ask its sockets whether they ignore outgoing frames.
Result<void> filter_outgoing(int socket) {
  sock_filter code[] = {BPF_STMT(kLoadByte, kPacketType),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
  const sock_fprog program{4, code};
  if (::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0) return {};
  return Error::from_errno(errno, "filter of a packet socket");
}

}  // namespace

Result<void> join_fanout(std::span<const int> sockets) {
  uint16_t flags = kFlagIgnoreOutgoing;
  if (join(sockets[0], 0, flags | PACKET_FANOUT_FLAG_UNIQUEID) < 0) {
    flags = 0;
    for (const int socket : sockets) {
      if (auto done = filter_outgoing(socket); !done) return done;
    }
    if (join(sockets[0], 0, PACKET_FANOUT_FLAG_UNIQUEID) < 0)
      return Error::from_errno(errno, "packet fanout");
  }
  std::vector<sock_filter> code = steering_program();
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::setsockopt(sockets[0], SOL_PACKET, PACKET_FANOUT_DATA, &program, sizeof(program)) < 0)
    return Error::from_errno(errno, "program of a packet fanout");
  uint32_t joined = 0;
  socklen_t length = sizeof(joined);
  if (::getsockopt(sockets[0], SOL_PACKET, PACKET_FANOUT, &joined, &length) < 0)
    return Error::from_errno(errno, "identifier of a packet fanout");
  for (const int socket : sockets.subspan(1)) {
    if (join(socket, static_cast<uint16_t>(joined), flags) < 0)
      return Error::from_errno(errno, "packet fanout");
  }
  return {};
}

}  // namespace penstock::net

// The namespace, its tap, bridge and veth, and the packet socket at the end.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "test/offload/segment_oracle.h"

namespace penstock::net::oracle {
namespace {

using test::Bytes;

// linux/if_tun.h and linux/virtio_net.h of Linux 6.17; Debian's headers are older.
constexpr unsigned kTunTunnelGso = 0x080, kTunTunnelGsoChecksum = 0x100;
constexpr unsigned kTunUso4 = 0x20, kTunUso6 = 0x40;
constexpr uint8_t kNeedsChecksum = 1, kTunnelChecksum = 8;
constexpr uint8_t kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdp = 5, kGsoTunnel4 = 0x20, kGsoTunnel6 = 0x40,
                  kGsoEcn = 0x80;

struct VnetHeader {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_length = 0, gso_size = 0, checksum_start = 0, checksum_offset = 0, buffers = 0;
  uint32_t hash_value = 0;
  uint16_t hash_report = 0, padding = 0;
  uint16_t outer_transport = 0, inner_network = 0;
};
static_assert(sizeof(VnetHeader) == 24);

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

void command(const std::string& line) {
  if (std::system((line + " >/dev/null").c_str()) != 0) throw std::runtime_error("failed: " + line);
}

void ethtool(int socket, const char* interface, uint32_t what) {
  ethtool_value value{};
  value.cmd = what;
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&value);
  if (::ioctl(socket, SIOCETHTOOL, &request) != 0) fail(std::string("ethtool on ") + interface);
}

void disable_ipv6() {
  for (const char* which : {"all", "default"}) {
    const std::string path = std::string("/proc/sys/net/ipv6/conf/") + which + "/disable_ipv6";
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) continue;  // a kernel without IPv6 sends nothing of its own either
    if (::write(file, "1", 1) != 1) fail(path);
    ::close(file);
  }
}

}  // namespace

KernelPath::KernelPath() {
  if (::unshare(CLONE_NEWNET) != 0) fail("a network namespace");
  disable_ipv6();
  tap_ = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (tap_ < 0) fail("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, "oracletap", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap_, TUNSETIFF, &request) != 0) fail("TUNSETIFF");
  int size = sizeof(VnetHeader);
  const unsigned plain = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | kTunUso4 | kTunUso6;
  const unsigned tunnels = plain | kTunTunnelGso | kTunTunnelGsoChecksum;
  if (::ioctl(tap_, TUNSETVNETHDRSZ, &size) != 0 || ::ioctl(tap_, TUNSETOFFLOAD, tunnels) != 0) {
    tunnels_missing_ = "this kernel's tap takes no tunnel superframes (Linux 6.17 does)";
    if (::ioctl(tap_, TUNSETOFFLOAD, plain) != 0) fail("TUNSETOFFLOAD");
  }
  command("ip link add oraclea type veth peer name oracleb");
  command("ip link add oraclebr type bridge mcast_snooping 0 forward_delay 0");
  for (const char* name : {"oracletap", "oraclea", "oracleb", "oraclebr"}) {
    command(std::string("ip link set ") + name + " mtu 65520 txqueuelen 10000");
  }
  command("ip link set oracletap master oraclebr");
  command("ip link set oraclea master oraclebr");

  socket_ = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
  if (socket_ < 0) fail("a packet socket");
  for (const char* name : {"oraclea", "oracleb"}) {
    for (const uint32_t what : {ETHTOOL_SGRO, ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_STXCSUM, ETHTOOL_SSG}) {
      ethtool(socket_, name, what);
    }
  }
  for (const char* name : {"oracletap", "oraclea", "oracleb", "oraclebr"}) {
    command(std::string("ip link set ") + name + " up");
  }
  const int buffer = 64 << 20;
  const int on = 1;
  if (::setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) != 0) fail("SO_RCVBUFFORCE");
  if (::setsockopt(socket_, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) != 0) fail("PACKET_AUXDATA");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex("oracleb"));
  if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) fail("bind to the veth");
}

KernelPath::~KernelPath() {
  if (tap_ >= 0) ::close(tap_);
  if (socket_ >= 0) ::close(socket_);
}

void KernelPath::write(const Bytes& frame, const Offload& offload, bool outer_v6) {
  VnetHeader header;
  header.flags = kNeedsChecksum;
  header.checksum_start = offload.checksum_start;
  header.checksum_offset = offload.checksum_offset;
  if (offload.gso != Gso::none) {
    header.gso_type = offload.gso == Gso::tcp4 ? kGsoTcp4 : offload.gso == Gso::tcp6 ? kGsoTcp6 : kGsoUdp;
    if (offload.ecn) header.gso_type |= kGsoEcn;
    header.gso_size = offload.gso_size;
    header.header_length = offload.header_length;
  }
  if (offload.tunnel) {
    header.gso_type |= outer_v6 ? kGsoTunnel6 : kGsoTunnel4;
    if (offload.outer_checksum) header.flags |= kTunnelChecksum;
    header.outer_transport = offload.outer_transport;
    header.inner_network = offload.inner_network;
  }
  const iovec pieces[2] = {{&header, sizeof(header)}, {const_cast<std::byte*>(frame.data()), frame.size()}};
  if (::writev(tap_, pieces, 2) < 0) fail("write to the tap");
}

std::vector<Bytes> KernelPath::read(std::size_t count) {
  std::vector<Bytes> frames;
  std::vector<std::byte> buffer(70000);
  while (true) {
    pollfd ready{socket_, POLLIN, 0};
    const int timeout_ms = frames.size() < count ? 1000 : 0;
    if (::poll(&ready, 1, timeout_ms) <= 0) return frames;
    iovec piece{buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[256];
    msghdr message{};
    sockaddr_ll from{};
    message.msg_name = &from;
    message.msg_namelen = sizeof(from);
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t length = ::recvmsg(socket_, &message, 0);
    if (length < 0) fail("read from the veth");
    if (from.sll_pkttype == PACKET_OUTGOING) continue;
    Bytes frame(buffer.begin(), buffer.begin() + length);
    if (frame[0] != std::byte{2} || frame[5] != std::byte{7}) continue;  // none of ours
    for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr; item = CMSG_NXTHDR(&message, item)) {
      if (item->cmsg_level != SOL_PACKET || item->cmsg_type != PACKET_AUXDATA) continue;
      tpacket_auxdata data{};
      std::memcpy(&data, CMSG_DATA(item), sizeof(data));
      if ((data.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
      // The kernel took the outermost tag out of the frame.
      Bytes tag;
      test::put16(tag, data.tp_vlan_tpid);
      test::put16(tag, data.tp_vlan_tci);
      frame.insert(frame.begin() + 12, tag.begin(), tag.end());
    }
    frames.push_back(std::move(frame));
  }
}

}  // namespace penstock::net::oracle

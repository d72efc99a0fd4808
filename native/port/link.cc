#include "native/port/link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>

#include "native/base/fd.h"
#include "native/port/netlink.h"

namespace penstock::net {
namespace {

// linux/if_addr.h of 5.18 and later
constexpr uint16_t kAddressProtocol = 11;         // IFA_PROTO
constexpr uint16_t kGsoMaxSize = 41;              // IFLA_GSO_MAX_SIZE
constexpr uint8_t kAddressProtocolLinkLocal = 3;  // IFAPROT_KERNEL_LL

Result<ifreq> named_request(const std::string& name) {
  if (!valid_link_name(name)) return Error{EINVAL, "\"" + name + "\" is no name of an interface"};
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

Result<void> link_ioctl(unsigned long command, ifreq& request, const char* what) {
  const Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Error::from_errno(errno, "socket");
  if (::ioctl(fd.get(), command, &request) == 0) return {};
  return Error::from_errno(errno, std::string(what) + " of interface " + request.ifr_name);
}

int family_of(const IpPrefix& prefix) {
  return prefix.version == 4 ? AF_INET : AF_INET6;
}

std::span<const std::byte> bytes_of(const IpPrefix& prefix) {
  return std::as_bytes(std::span(prefix.bytes.data(), prefix.size()));
}

Result<void> route_request(NetlinkMessage& message, const std::string& what) {
  auto netlink = Netlink::open(NETLINK_ROUTE);
  if (!netlink) return netlink.error();
  return netlink->request(message, what.c_str());
}

constexpr uint16_t kCreate = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;

}  // namespace

std::string IpPrefix::text() const {
  char buffer[INET6_ADDRSTRLEN] = {};
  inet_ntop(version == 4 ? AF_INET : AF_INET6, bytes.data(), buffer, sizeof(buffer));
  return std::string(buffer) + "/" + std::to_string(length);
}

Result<IpPrefix> IpPrefix::parse(const std::string& text) {
  IpPrefix prefix;
  const std::size_t slash = text.find('/');
  const std::string address = text.substr(0, slash);
  prefix.version = address.find(':') == std::string::npos ? 4 : 6;
  const unsigned long bits_max = prefix.size() * 8;
  prefix.length = static_cast<uint8_t>(bits_max);
  const Error wrong{EINVAL, "\"" + text + "\" is no IP address; write 10.0.0.1/24 or fd00::1/64"};
  if (inet_pton(family_of(prefix), address.c_str(), prefix.bytes.data()) != 1) return wrong;
  if (slash == std::string::npos) return prefix;
  char* end = nullptr;
  const unsigned long length = std::strtoul(text.c_str() + slash + 1, &end, 10);
  if (end == text.c_str() + slash + 1 || *end != '\0' || length > bits_max) return wrong;
  prefix.length = static_cast<uint8_t>(length);
  return prefix;
}

bool valid_link_name(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ || name == "." || name == "..") return false;
  return name.find_first_of("/: \t\n\v\f\r%") == std::string::npos;
}

Result<LinkFacts> link_facts(const std::string& name) {
  auto request = named_request(name);
  if (!request) return request.error();
  LinkFacts facts;
  if (auto done = link_ioctl(SIOCGIFINDEX, *request, "index"); !done) return done.error();
  facts.index = request->ifr_ifindex;
  if (auto done = link_ioctl(SIOCGIFFLAGS, *request, "flags"); !done) return done.error();
  facts.up = (request->ifr_flags & IFF_UP) != 0;
  if (auto done = link_ioctl(SIOCGIFMTU, *request, "MTU"); !done) return done.error();
  facts.mtu = static_cast<uint32_t>(request->ifr_mtu);
  if (auto done = link_ioctl(SIOCGIFHWADDR, *request, "MAC"); !done) return done.error();
  std::memcpy(facts.mac.data(), request->ifr_hwaddr.sa_data, facts.mac.size());
  return facts;
}

bool link_coalesces(const std::string& name) {
  auto request = named_request(name);
  if (!request) return true;
  ethtool_value asked{.cmd = ETHTOOL_GGRO, .data = 0};
  request->ifr_data = reinterpret_cast<char*>(&asked);
  return !link_ioctl(SIOCETHTOOL, *request, "coalescing") || asked.data != 0;
}

std::string link_driver(const std::string& name) {
  auto request = named_request(name);
  if (!request) return "";
  ethtool_drvinfo asked{};
  asked.cmd = ETHTOOL_GDRVINFO;
  request->ifr_data = reinterpret_cast<char*>(&asked);
  return link_ioctl(SIOCETHTOOL, *request, "driver") ? asked.driver : "";
}

Result<void> set_link_up(const std::string& name, bool up) {
  auto request = named_request(name);
  if (!request) return request.error();
  if (auto done = link_ioctl(SIOCGIFFLAGS, *request, "flags"); !done) return done;
  request->ifr_flags = static_cast<short>(up ? request->ifr_flags | IFF_UP : request->ifr_flags & ~IFF_UP);
  return link_ioctl(SIOCSIFFLAGS, *request, up ? "setting up" : "setting down");
}

Result<void> set_link_mtu(const std::string& name, uint32_t mtu) {
  auto request = named_request(name);
  if (!request) return request.error();
  request->ifr_mtu = static_cast<int>(mtu);
  return link_ioctl(SIOCSIFMTU, *request, "setting the MTU");
}

Result<void> set_link_mac(const std::string& name, const MacAddress& mac) {
  auto request = named_request(name);
  if (!request) return request.error();
  request->ifr_hwaddr.sa_family = 1;  // ARPHRD_ETHER
  std::memcpy(request->ifr_hwaddr.sa_data, mac.data(), mac.size());
  return link_ioctl(SIOCSIFHWADDR, *request, "setting the MAC");
}

Result<void> set_link_gso_max(int index, uint32_t bytes) {
  NetlinkMessage message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
  ifinfomsg header{};
  header.ifi_index = index;
  message.header(header).u32(kGsoMaxSize, bytes);
  return route_request(message, "bounding the superframes of an interface");
}

Result<void> settle_link(int index) {
  NetlinkMessage message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
  ifinfomsg header{};
  header.ifi_index = index;
  message.header(header);
  return route_request(message, "waiting for changes of an interface");
}

Result<std::vector<IpPrefix>> link_addresses(int index) {
  auto netlink = Netlink::open(NETLINK_ROUTE);
  if (!netlink) return netlink.error();
  NetlinkMessage message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
  message.header(ifaddrmsg{});
  std::vector<IpPrefix> found;
  auto done = netlink->dump(message, "listing addresses", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != RTM_NEWADDR) return;
    const auto* header = static_cast<const ifaddrmsg*>(NLMSG_DATA(&answer));
    if (static_cast<int>(header->ifa_index) != index) return;
    IpPrefix prefix;
    prefix.version = header->ifa_family == AF_INET ? 4 : 6;
    prefix.length = header->ifa_prefixlen;
    bool by_kernel = false;
    for (const NetlinkAttribute& attribute : netlink_attributes(answer, sizeof(ifaddrmsg))) {
      const bool mine = attribute.type == (prefix.version == 4 ? IFA_LOCAL : IFA_ADDRESS);
      if (mine && attribute.value.size() == prefix.size())
        std::memcpy(prefix.bytes.data(), attribute.value.data(), prefix.size());
      if (attribute.type == kAddressProtocol && !attribute.value.empty())
        by_kernel = attribute.value[0] == std::byte{kAddressProtocolLinkLocal};
    }
    if (!by_kernel) found.push_back(prefix);
  });
  if (!done) return done.error();
  return found;
}

Result<void> add_link_route(int index, const IpPrefix& destination, const IpPrefix* source) {
  NetlinkMessage message(RTM_NEWROUTE, kCreate);
  rtmsg header{};
  header.rtm_family = static_cast<uint8_t>(family_of(destination));
  header.rtm_dst_len = destination.length;
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = RTPROT_STATIC;
  header.rtm_scope = destination.version == 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header.rtm_type = RTN_UNICAST;
  message.header(header);
  message.attribute(RTA_DST, bytes_of(destination));
  message.u32(RTA_OIF, static_cast<uint32_t>(index));
  if (source != nullptr) message.attribute(RTA_PREFSRC, bytes_of(*source));
  return route_request(message, "adding route to " + destination.text());
}

Result<void> add_link_neighbour(int index, const IpPrefix& address, const MacAddress& mac) {
  NetlinkMessage message(RTM_NEWNEIGH, kCreate);
  ndmsg header{};
  header.ndm_family = static_cast<uint8_t>(family_of(address));
  header.ndm_ifindex = index;
  header.ndm_state = NUD_PERMANENT;
  message.header(header);
  message.attribute(NDA_DST, bytes_of(address));
  message.attribute(NDA_LLADDR, std::as_bytes(std::span(mac)));
  return route_request(message, "adding neighbour " + address.text());
}

Result<std::string> read_sysctl(const std::string& path) {
  const Fd fd(::open(("/proc/sys/net/" + path).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Error::from_errno(errno, "sysctl net/" + path);
  char buffer[256];
  const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
  if (got < 0) return Error::from_errno(errno, "sysctl net/" + path);
  std::string value(buffer, static_cast<std::size_t>(got));
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

Result<void> write_sysctl(const std::string& path, const std::string& value) {
  const Fd fd(::open(("/proc/sys/net/" + path).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return Error::from_errno(errno, "sysctl net/" + path);
  if (::write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size())) return {};
  return Error::from_errno(errno, "setting sysctl net/" + path);
}

}  // namespace penstock::net

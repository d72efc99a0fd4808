#include "native/port/netlink.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cassert>

namespace penstock::net {
namespace {

constexpr int kAnswerSecondsMax = 5;

std::size_t padded(std::size_t length) {
  return (length + 3) & ~std::size_t{3};
}

template <typename Each>
void for_each_message(std::span<const std::byte> bytes, Each each) {
  for (std::size_t offset = 0; offset + sizeof(nlmsghdr) <= bytes.size();) {
    const auto* header = reinterpret_cast<const nlmsghdr*>(bytes.data() + offset);
    if (header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > bytes.size() - offset) return;
    each(*header);
    offset += padded(header->nlmsg_len);
  }
}

// The errno of an acknowledgement; 0 when all is well.
int answered(const nlmsghdr& message) {
  return -static_cast<const nlmsgerr*>(NLMSG_DATA(&message))->error;
}

}  // namespace

NetlinkMessage::NetlinkMessage(uint16_t type, uint16_t flags) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = flags;
  append(&header, sizeof(header));
}

void NetlinkMessage::append(const void* data, std::size_t length) {
  const auto* begin = static_cast<const std::byte*>(data);
  bytes_.insert(bytes_.end(), begin, begin + length);
  bytes_.resize(padded(bytes_.size()));
}

NetlinkMessage& NetlinkMessage::attribute(uint16_t type, std::span<const std::byte> value) {
  nlattr header{static_cast<uint16_t>(sizeof(nlattr) + value.size()), type};
  append(&header, sizeof(header));
  append(value.data(), value.size());
  return *this;
}

NetlinkMessage& NetlinkMessage::text(uint16_t type, std::string_view value) {
  const std::string terminated(value);
  return attribute(type, std::as_bytes(std::span(terminated.c_str(), terminated.size() + 1)));
}

NetlinkMessage& NetlinkMessage::u32(uint16_t type, uint32_t value) {
  return attribute(type, std::as_bytes(std::span(&value, 1)));
}

NetlinkMessage& NetlinkMessage::be32(uint16_t type, uint32_t value) {
  return u32(type, htonl(value));
}

NetlinkMessage& NetlinkMessage::begin(uint16_t type) {
  open_.push_back(bytes_.size());
  nlattr header{0, static_cast<uint16_t>(type | NLA_F_NESTED)};
  append(&header, sizeof(header));
  return *this;
}

NetlinkMessage& NetlinkMessage::end() {
  assert(!open_.empty());
  const auto length = static_cast<uint16_t>(bytes_.size() - open_.back());
  std::memcpy(bytes_.data() + open_.back(), &length, sizeof(length));
  open_.pop_back();
  return *this;
}

std::span<const std::byte> NetlinkMessage::bytes(uint32_t sequence) {
  assert(open_.empty());
  nlmsghdr header;
  std::memcpy(&header, bytes_.data(), sizeof(header));
  header.nlmsg_len = static_cast<uint32_t>(bytes_.size());
  header.nlmsg_seq = sequence;
  std::memcpy(bytes_.data(), &header, sizeof(header));
  return bytes_;
}

uint32_t NetlinkAttribute::u32() const {
  uint32_t number = 0;
  if (value.size() >= sizeof(number)) std::memcpy(&number, value.data(), sizeof(number));
  return number;
}

std::string NetlinkAttribute::text() const {
  const char* begin = reinterpret_cast<const char*>(value.data());
  return std::string(begin, strnlen(begin, value.size()));
}

std::vector<NetlinkAttribute> netlink_attributes(const nlmsghdr& message, std::size_t family_bytes) {
  std::vector<NetlinkAttribute> found;
  const auto* begin = reinterpret_cast<const std::byte*>(&message);
  std::size_t offset = NLMSG_HDRLEN + padded(family_bytes);
  while (offset + sizeof(nlattr) <= message.nlmsg_len) {
    nlattr header;
    std::memcpy(&header, begin + offset, sizeof(header));
    if (header.nla_len < sizeof(nlattr) || offset + header.nla_len > message.nlmsg_len) break;
    found.push_back({static_cast<uint16_t>(header.nla_type & NLA_TYPE_MASK),
                     {begin + offset + sizeof(nlattr), header.nla_len - sizeof(nlattr)}});
    offset += padded(header.nla_len);
  }
  return found;
}

Result<Netlink> Netlink::open(int protocol, uint32_t groups) {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd.valid()) return Error::from_errno(errno, "netlink socket");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0)
    return Error::from_errno(errno, "bind of a netlink socket");
  // The kernel answers at once; a bound on waiting all the same.
  const timeval limit{kAnswerSecondsMax, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  return Netlink(std::move(fd));
}

Result<void> Netlink::send(std::span<const std::byte> bytes, const char* what) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const ssize_t sent = ::sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                                reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel));
  if (sent != static_cast<ssize_t>(bytes.size())) return Error::from_errno(errno, what);
  return {};
}

Result<std::size_t> Netlink::receive(const char* what) {
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), buffer_.data(), buffer_.size(), 0);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return Error::from_errno(errno, what);
  }
}

Result<void> Netlink::request(NetlinkMessage& message, const char* what) {
  return transaction({&message, 1}, 1, what);
}

Result<void> Netlink::transaction(std::span<NetlinkMessage> messages, std::size_t acknowledged,
                                  const char* what) {
  std::vector<std::byte> all;
  const uint32_t first = sequence_ + 1;
  for (NetlinkMessage& message : messages) {
    const auto bytes = message.bytes(++sequence_);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  if (auto sent = send(all, what); !sent) return sent;
  int failure = 0;
  while (acknowledged > 0 && failure == 0) {
    const auto got = receive(what);
    if (!got) return got.error();
    for_each_message({buffer_.data(), *got}, [&](const nlmsghdr& message) {
      if (message.nlmsg_type != NLMSG_ERROR || message.nlmsg_seq - first > sequence_ - first) return;
      if (failure == 0) failure = answered(message);
      if (acknowledged > 0) --acknowledged;
    });
  }
  if (failure != 0) return Error::from_errno(failure, what);
  return {};
}

Result<void> Netlink::dump(NetlinkMessage& message, const char* what,
                           const std::function<void(const nlmsghdr&)>& each) {
  if (auto sent = send(message.bytes(++sequence_), what); !sent) return sent;
  bool done = false;
  int failure = 0;
  while (!done) {
    const auto got = receive(what);
    if (!got) return got.error();
    for_each_message({buffer_.data(), *got}, [&](const nlmsghdr& answer) {
      if (answer.nlmsg_seq != sequence_ || done) return;
      done = answer.nlmsg_type == NLMSG_DONE || answer.nlmsg_type == NLMSG_ERROR;
      if (answer.nlmsg_type == NLMSG_ERROR) failure = answered(answer);
      if (!done) each(answer);
    });
  }
  if (failure != 0) return Error::from_errno(failure, what);
  return {};
}

bool Netlink::drain(const std::function<void(const nlmsghdr&)>& each) {
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno != ENOBUFS;
    for_each_message({buffer_.data(), static_cast<std::size_t>(got)}, each);
  }
}

}  // namespace penstock::net

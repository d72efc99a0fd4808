// The sender of tunnel packets: what goes out together, over loopback.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <array>
#include <vector>

#include "native/port/tunnel_socket.h"
#include "test/native/support/offload_pool.h"

namespace penstock::net::test {
namespace {

TEST_CASE("datagrams go in trains of one size, and empty ones, which a rule may send by an underlay, alone") {
  const auto loopback = IpPrefix::parse("127.0.0.1/32");
  REQUIRE(loopback.ok());
  const Fd receiver(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(name);
  auto* address = reinterpret_cast<sockaddr*>(&name);
  REQUIRE(::bind(receiver.get(), address, length) == 0);
  REQUIRE(::getsockname(receiver.get(), address, &length) == 0);
  auto sender = TunnelSender::open(*loopback, wire::kIpUdp, true);
  REQUIRE(sender.ok());

  auto pool = make_pool();
  const std::vector<std::size_t> sizes{0, 0, 100, 100, 0, 100, 40, 0};
  std::vector<Packet*> packets;
  for (const std::size_t bytes : sizes) {
    Scenario of;
    of.udp = true;
    of.destination_port = ntohs(name.sin_port);
    of.inner4.destination = 0x7f000001;
    of.payload.resize(bytes);
    packets.push_back(load_parsed(*pool, build(of, 0, bytes, false)));
  }
  QueueCounters counters;
  CHECK((*sender)->transmit(packets, counters.transmit) == packets.size());
  CHECK(counters.transmit.packets.get() == packets.size());
  std::vector<std::size_t> received;
  std::array<char, 200> buffer;
  for (ssize_t got = 0; (got = ::recv(receiver.get(), buffer.data(), buffer.size(), 0)) >= 0;)
    received.push_back(static_cast<std::size_t>(got));
  CHECK(received == sizes);
  CHECK(pool->free_packets() == pool->sizes().packets);
}

}  // namespace
}  // namespace penstock::net::test

// The bytes in which the state of a port travels: whole, versioned, and refused when anything is wrong with
// them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>

#include "native/base/crc32c.h"
#include "native/switch/port_image.h"

namespace penstock::net::test {

using Bytes = std::vector<std::byte>;

static PortImage random_image(std::mt19937_64& random) {
  PortImage image;
  for (std::size_t i = 0; i < 1 + random() % 3; ++i)
    image.networks.push_back("net" + std::to_string(random() % 1000));
  const auto mac = [&] { return 1 + random() % ((1ULL << 48) - 1); };
  for (std::size_t i = 0; i < random() % 5; ++i)
    image.addresses.push_back(
        {mac(), static_cast<uint32_t>(random()), static_cast<uint16_t>(random() % image.networks.size())});
  image.received_debt_ns = random();
  image.transmitted_debt_ns = random();
  for (std::size_t i = 0; i < random() % 20; ++i) {
    PortImage::Connection one;
    for (auto* address : {&one.original.source, &one.original.destination, &one.reply.source})
      for (auto& byte : *address) byte = static_cast<uint8_t>(random());
    one.original.source_port = static_cast<uint16_t>(random());
    one.reply.destination_port = static_cast<uint16_t>(random());
    one.original.protocol = one.reply.protocol = static_cast<uint8_t>(random());
    one.original.ip_version = one.reply.ip_version = random() % 2 == 0 ? 4 : 6;
    one.original.vni = one.reply.vni = static_cast<uint32_t>(random() % image.networks.size());
    one.tcp_state = random() % 8;
    one.replied = random() % 2 == 0;
    one.fin_seen = random() % 4;
    one.expires_seconds = static_cast<uint32_t>(random());
    for (auto& ack : one.ack_max) ack = static_cast<uint32_t>(random());
    for (auto& packets : one.packets) packets = random();
    for (auto& bytes : one.bytes) bytes = random();
    one.source_mac = mac();
    one.translated_destination_mac = mac();
    one.mark = static_cast<uint16_t>(random());
    image.connections.push_back(one);
  }
  for (std::size_t i = 0; i < random() % 3; ++i) image.groups.push_back(std::string(1 + random() % 255, 'g'));
  return image;
}

static void put32(Bytes& bytes, std::size_t at, uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

// The same image with its length and checksum put right.
static Bytes sealed(Bytes bytes) {
  put32(bytes, 12, static_cast<uint32_t>(bytes.size()));
  put32(bytes, bytes.size() - 4, crc32c(0, std::span(bytes).first(bytes.size() - 4)));
  return bytes;
}

TEST_CASE("what is written is read back, whatever it is") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const PortImage image = random_image(random);
    const auto read = read_port_image(*write_port_image(image));
    REQUIRE(read.ok());
    CHECK(*read == image);
  }
}

TEST_CASE("an image that is cut anywhere or has any bit turned over is refused") {
  std::mt19937_64 random(7);
  const Bytes whole = *write_port_image(random_image(random));
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK_FALSE(read_port_image(std::span(whole).first(length)).ok());
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes damaged = whole;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const bool minor = bit / 8 == 10 || bit / 8 == 11;
    CAPTURE(bit);
    CHECK_FALSE(read_port_image(damaged).ok());
    if (minor) CHECK(read_port_image(sealed(damaged)).ok());
  }
}

TEST_CASE("another major version is refused by its number, a section of a later minor one is skipped") {
  Bytes newer = *write_port_image({});
  newer[8] = std::byte{2};
  const auto refused = read_port_image(newer);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == EPROTO);
  CHECK(refused.error().message == "the state of a port: version 2, this switch reads 1");

  std::mt19937_64 random(3);
  const PortImage image = random_image(random);
  Bytes more = *write_port_image(image);
  more.resize(more.size() - 4);
  const std::size_t at = more.size();
  more.resize(at + 8 + 5 + 4);
  put32(more, at, 77);
  put32(more, at + 4, 5);
  const auto read = read_port_image(sealed(more));
  REQUIRE(read.ok());
  CHECK(*read == image);
}

}  // namespace penstock::net::test

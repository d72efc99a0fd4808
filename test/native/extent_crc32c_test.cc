// CRC-32C against published vectors (RFC 3720 B.4), and the fast form against the portable one at every
// length and alignment that crosses a lane.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <numeric>
#include <random>
#include <string_view>
#include <vector>

#include "native/base/crc32c.h"

using penstock::crc32c;
using penstock::crc32c_portable;

static std::vector<std::byte> bytes_of(std::size_t count, auto&& at) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; i++) bytes[i] = static_cast<std::byte>(at(i));
  return bytes;
}

TEST_CASE("published vectors") {
  CHECK(crc32c(0, std::as_bytes(std::span{std::string_view{"123456789"}})) == 0xE3069283);
  CHECK(crc32c(0, bytes_of(32, [](auto) { return 0; })) == 0x8A9136AA);
  CHECK(crc32c(0, bytes_of(32, [](auto) { return 0xff; })) == 0x62A8AB43);
  CHECK(crc32c(0, bytes_of(32, [](auto i) { return i; })) == 0x46DD794E);
  CHECK(crc32c(0, {}) == 0);
}

TEST_CASE("the fast form equals the portable one, and chains") {
  std::mt19937 random(7);
  const auto data = bytes_of(20000, [&](auto) { return random() & 0xff; });
  for (std::size_t length = 0; length < 9000; length += 1 + length / 37) {
    for (std::size_t offset : {0, 1, 5}) {
      const auto piece = std::span{data}.subspan(offset, length);
      const uint32_t expected = crc32c_portable(0, piece);
      REQUIRE(crc32c(0, piece) == expected);
      const std::size_t cut = length / 3;
      REQUIRE(crc32c(crc32c(0, piece.first(cut)), piece.subspan(cut)) == expected);
    }
  }
}

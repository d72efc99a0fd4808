// The Internet checksum against its definition, word by word: every kernel, every length and alignment that
// crosses a step, extreme contents, pieces, and incremental changes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

#include "native/base/checksum.h"
#include "test/native/support/frames.h"

using namespace penstock;
using penstock::net::test::Bytes;
using penstock::net::test::naive_sum;
using penstock::net::test::random_bytes;
using penstock::net::test::slice;

namespace {

constexpr ChecksumKernel kKernels[] = {ChecksumKernel::portable, ChecksumKernel::sse2, ChecksumKernel::avx2};

// The piece alone in memory of its own, so that the address sanitizer sees a byte too many.
struct Exact {
  explicit Exact(const Bytes& bytes, std::size_t misalign = 0)
      : memory(new std::byte[bytes.size() + misalign]), data(memory.get() + misalign, bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), memory.get() + misalign);
  }
  std::unique_ptr<std::byte[]> memory;
  std::span<const std::byte> data;
};

}  // namespace

TEST_CASE("the example of RFC 1071") {
  const Bytes bytes = {std::byte{0x00}, std::byte{0x01}, std::byte{0xf2}, std::byte{0x03},
                       std::byte{0xf4}, std::byte{0xf5}, std::byte{0xf6}, std::byte{0xf7}};
  CHECK(checksum_sum(bytes) == 0xddf2);
  CHECK(checksum_sum({}) == 0);
}

TEST_CASE("every kernel equals the definition at every length and alignment") {
  std::mt19937 random(3);
  for (std::size_t length = 0; length < 700; ++length) {
    const Bytes bytes = random_bytes(length, random);
    const unsigned expected = naive_sum(bytes);
    for (const std::size_t misalign : {0, 1, 7}) {
      const Exact exact(bytes, misalign);
      REQUIRE(checksum_sum(exact.data) == expected);
      for (const ChecksumKernel kernel : kKernels) {
        if (!checksum_has(kernel)) continue;
        REQUIRE(checksum_sum_with(kernel, exact.data) == expected);
        const Exact target(Bytes(length), misalign);
        auto* to = const_cast<std::byte*>(target.data.data());
        REQUIRE(checksum_copy_with(kernel, to, exact.data) == expected);
        REQUIRE(std::equal(bytes.begin(), bytes.end(), to));
        std::fill(to, to + length, std::byte{0});
        REQUIRE(checksum_copy(to, exact.data) == expected);
        REQUIRE(std::equal(bytes.begin(), bytes.end(), to));
      }
    }
  }
}

TEST_CASE("extreme contents do not overflow a lane") {
  for (const unsigned value : {0x00U, 0x01U, 0x7fU, 0x80U, 0xffU}) {
    for (const std::size_t length : {65535UL, 65536UL, 3UL << 20, (4UL << 20) + 5}) {
      const Bytes bytes(length, static_cast<std::byte>(value));
      const unsigned expected = naive_sum(bytes);
      for (const ChecksumKernel kernel : kKernels) {
        if (checksum_has(kernel)) CHECK(checksum_sum_with(kernel, bytes) == expected);
      }
    }
  }
}

TEST_CASE("pieces add up, odd ones too") {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    const Bytes bytes = random_bytes(random() % 300, random);
    const std::size_t cut = bytes.empty() ? 0 : random() % (bytes.size() + 1);
    const uint16_t first = checksum_sum(slice(bytes, 0, cut));
    const uint16_t second = checksum_sum(slice(bytes, cut, bytes.size() - cut));
    REQUIRE(checksum_append(first, cut, second) == naive_sum(bytes));
  }
}

TEST_CASE("an incremental change equals summing again (RFC 1624)") {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    Bytes header = random_bytes(20, random);
    header[0] = std::byte{0x45};
    if (round % 3 == 0) std::fill(header.begin() + 4, header.end(), std::byte{0xff});
    const auto checksum = static_cast<uint16_t>(~naive_sum(header));
    const std::size_t at = 2 * (1 + random() % 8);
    const auto from16 = static_cast<uint16_t>(net::test::get16(header, at));
    const uint32_t from32 = uint32_t{from16} << 16 | net::test::get16(header, at + 2);
    const uint32_t to = round % 5 == 0 ? 0 : round % 5 == 1 ? 0xffffffff : static_cast<uint32_t>(random());
    net::test::set16(header, at, to >> 16);
    REQUIRE(checksum_replace(checksum, from16, static_cast<uint16_t>(to >> 16)) ==
            static_cast<uint16_t>(~naive_sum(header)));
    net::test::set16(header, at + 2, to & 0xffff);
    REQUIRE(checksum_replace32(checksum, from32, to) == static_cast<uint16_t>(~naive_sum(header)));
  }
}

TEST_CASE("pseudo headers equal the sum of their bytes") {
  std::mt19937 random(9);
  for (int round = 0; round < 500; ++round) {
    const uint32_t length = random() % 70000;
    const auto protocol = static_cast<uint8_t>(random());
    for (const std::size_t size : {4, 16}) {
      const Bytes addresses = random_bytes(2 * size, random);
      Bytes pseudo = addresses;
      net::test::put32(pseudo, length);
      net::test::put32(pseudo, protocol);
      const std::byte* source = addresses.data();
      const uint16_t sum = size == 4 ? checksum_pseudo_ipv4(source, source + size, protocol, length)
                                     : checksum_pseudo_ipv6(source, source + size, protocol, length);
      REQUIRE(sum == naive_sum(pseudo));
    }
  }
}

TEST_CASE("subtracting a part leaves the rest") {
  CHECK(checksum_subtract(checksum_add(0x1234, 0xf000), 0xf000) == 0x1234);
  CHECK(checksum_fold(0xffff'ffff'ffffULL) == 0xffff);
}

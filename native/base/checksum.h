// The Internet checksum (RFC 1071): the one's complement sum of big-endian 16-bit words, and its complement.
//
// A sum here is a folded 16-bit number in host order; sums of adjoining pieces are added with `checksum_add`,
// a piece that starts at an odd offset with its bytes swapped (`checksum_append` minds that). Zero and 0xffff
// are both zero; a sum is 0x0000 only when every byte was.
//
// Long pieces are summed 32 bytes at a time with AVX2, or 16 with SSE2, chosen once at run time; elsewhere in
// 64-bit words. Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock {

// End-around carry, for any number of additions below 2^48.
constexpr uint16_t checksum_fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
}

constexpr uint16_t checksum_add(uint16_t a, uint16_t b) {
  const uint32_t sum = uint32_t{a} + b;
  return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
}

// What a - b is in one's complement; b must be a part of a.
constexpr uint16_t checksum_subtract(uint16_t a, uint16_t b) {
  return checksum_add(a, static_cast<uint16_t>(~b));
}

uint16_t checksum_sum(std::span<const std::byte> data);

// Copies `data` to `to` (as long, not overlapping) and sums it, in one pass.
uint16_t checksum_copy(std::byte* to, std::span<const std::byte> data);

// The sum of a piece that follows `offset` bytes already in `sum`.
inline uint16_t checksum_append(uint16_t sum, std::size_t offset, uint16_t piece) {
  return checksum_add(sum, (offset & 1) != 0 ? __builtin_bswap16(piece) : piece);
}

// A checksum field after one of the words it covers changed (RFC 1624, equation 3).
constexpr uint16_t checksum_replace(uint16_t checksum, uint16_t from, uint16_t to) {
  return static_cast<uint16_t>(
      ~checksum_fold(uint64_t{static_cast<uint16_t>(~checksum)} + static_cast<uint16_t>(~from) + to));
}
constexpr uint16_t checksum_replace32(uint16_t checksum, uint32_t from, uint32_t to) {
  checksum = checksum_replace(checksum, static_cast<uint16_t>(from >> 16), static_cast<uint16_t>(to >> 16));
  return checksum_replace(checksum, static_cast<uint16_t>(from), static_cast<uint16_t>(to));
}

// Sums of the pseudo headers of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1). Addresses point to 4 and to
// 16 bytes, `length` is the transport's, header included.
uint16_t checksum_pseudo_ipv4(const std::byte* source, const std::byte* destination, uint8_t protocol,
                              uint32_t length);
uint16_t checksum_pseudo_ipv6(const std::byte* source, const std::byte* destination, uint8_t protocol,
                              uint32_t length);

// The forms that the machine may not have, for tests and benchmarks: which are there, and each of them.
enum class ChecksumKernel : uint8_t { portable, sse2, avx2 };
bool checksum_has(ChecksumKernel kernel);
uint16_t checksum_sum_with(ChecksumKernel kernel, std::span<const std::byte> data);
uint16_t checksum_copy_with(ChecksumKernel kernel, std::byte* to, std::span<const std::byte> data);

}  // namespace penstock

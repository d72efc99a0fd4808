// The crc32 instruction has a latency of three cycles and a throughput of one, so three independent lanes run
// at once and are joined afterwards:
//
//   | lane a: L bytes | lane b: L bytes | lane c: L bytes | tail
//   crc(a b c) = shift(crc(a), 2L) ^ shift(crc(b), L) ^ crc(c)
//
// shift(r, n) appends n zero bytes to r, a multiplication by x^(8n) modulo the polynomial, done by four table
// look-ups. The long lane is chosen so that three of them and two words make one 4 KiB page.
#include "native/base/crc32c.h"

#include <array>
#include <cstring>

namespace penstock {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected: bit 31 is x^0
constexpr std::size_t kLongLane = 1360;
constexpr std::size_t kShortLane = 128;

using Table = std::array<uint32_t, 256>;

constexpr uint32_t times_x(uint32_t value) {
  return (value & 1) != 0 ? (value >> 1) ^ kPolynomial : value >> 1;
}

constexpr std::array<Table, 8> make_slices() {
  std::array<Table, 8> slices{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; bit++) value = times_x(value);
    slices[0][byte] = value;
  }
  for (uint32_t byte = 0; byte < 256; byte++) {
    for (std::size_t slice = 1; slice < 8; slice++) {
      const uint32_t previous = slices[slice - 1][byte];
      slices[slice][byte] = (previous >> 8) ^ slices[0][previous & 0xff];
    }
  }
  return slices;
}

constexpr std::array<Table, 8> kSlices = make_slices();

}  // namespace

uint32_t crc32c_portable(uint32_t seed, std::span<const std::byte> data) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(data.data());
  std::size_t left = data.size();
  uint32_t crc = ~seed;
  for (; left >= 8; bytes += 8, left -= 8) {
    const uint32_t low = crc ^ (uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 |
                                uint32_t{bytes[3]} << 24);
    crc = kSlices[7][low & 0xff] ^ kSlices[6][low >> 8 & 0xff] ^ kSlices[5][low >> 16 & 0xff] ^
          kSlices[4][low >> 24] ^ kSlices[3][bytes[4]] ^ kSlices[2][bytes[5]] ^ kSlices[1][bytes[6]] ^
          kSlices[0][bytes[7]];
  }
  for (; left > 0; bytes++, left--) crc = (crc >> 8) ^ kSlices[0][(crc ^ *bytes) & 0xff];
  return ~crc;
}

#if defined(__x86_64__)
namespace {

using Shift = std::array<Table, 4>;

// Entry [k][b]: the remainder whose k-th byte is b, times x^(8 * zero_bytes).
constexpr Shift make_shift(std::size_t zero_bytes) {
  uint32_t power = 0x80000000;
  for (std::size_t bit = 0; bit < zero_bytes * 8; bit++) power = times_x(power);
  std::array<uint32_t, 32> of_bit{};  // of_bit[31 - i] = x^i * power
  for (int bit = 31; bit >= 0; bit--, power = times_x(power)) of_bit[static_cast<std::size_t>(bit)] = power;
  Shift shift{};
  for (std::size_t lane = 0; lane < 4; lane++) {
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t value = 0;
      for (std::size_t bit = 0; bit < 8; bit++) {
        if ((byte >> bit & 1) != 0) value ^= of_bit[lane * 8 + bit];
      }
      shift[lane][byte] = value;
    }
  }
  return shift;
}

constexpr Shift kShiftLong = make_shift(kLongLane);
constexpr Shift kShiftShort = make_shift(kShortLane);

uint64_t apply(const Shift& shift, uint64_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^
         shift[3][crc >> 24 & 0xff];
}

uint64_t load(const std::byte* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

template <std::size_t kLane>
__attribute__((target("sse4.2"))) uint64_t three_lanes(uint64_t crc, const std::byte*& bytes,
                                                       std::size_t& left, const Shift& shift) {
  for (; left >= 3 * kLane; bytes += 3 * kLane, left -= 3 * kLane) {
    uint64_t b = 0;
    uint64_t c = 0;
    for (std::size_t at = 0; at < kLane; at += 8) {
      crc = __builtin_ia32_crc32di(crc, load(bytes + at));
      b = __builtin_ia32_crc32di(b, load(bytes + kLane + at));
      c = __builtin_ia32_crc32di(c, load(bytes + 2 * kLane + at));
    }
    crc = apply(shift, apply(shift, crc) ^ b) ^ c;
  }
  return crc;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t seed, std::span<const std::byte> data) {
  const std::byte* bytes = data.data();
  std::size_t left = data.size();
  uint64_t crc = static_cast<uint32_t>(~seed);
  crc = three_lanes<kLongLane>(crc, bytes, left, kShiftLong);
  crc = three_lanes<kShortLane>(crc, bytes, left, kShiftShort);
  for (; left >= 8; bytes += 8, left -= 8) crc = __builtin_ia32_crc32di(crc, load(bytes));
  auto narrow = static_cast<uint32_t>(crc);
  for (; left > 0; bytes++, left--) {
    narrow = __builtin_ia32_crc32qi(narrow, static_cast<unsigned char>(*bytes));
  }
  return ~narrow;
}

}  // namespace

uint32_t crc32c(uint32_t seed, std::span<const std::byte> data) {
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  return has_instruction ? crc32c_sse42(seed, data) : crc32c_portable(seed, data);
}
#else
uint32_t crc32c(uint32_t seed, std::span<const std::byte> data) {
  return crc32c_portable(seed, data);
}
#endif

}  // namespace penstock

// The bytes of one page image in a segment: {length, crc32c}, then `length` bytes, padded to 64.
// The checksum starts from a seed, so that a place never written (zeros) is not an empty image.
#pragma once

#include <algorithm>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/cache/log.h"

namespace penstock::cache {

inline constexpr uint32_t kImageSeed = 0x5053'434c;

inline uint64_t image_bytes(uint64_t length) {
  return (kImageHeaderBytes + length + kPayloadUnit - 1) & ~(kPayloadUnit - 1);
}

inline void encode_image(const PageImage& image, std::span<std::byte> out) {
  const auto length = static_cast<uint32_t>(image.bytes.size());
  const uint32_t crc = crc32c(kImageSeed, image.bytes);
  std::memcpy(out.data(), &length, sizeof length);
  std::memcpy(out.data() + sizeof length, &crc, sizeof crc);
  if (length > 0) std::memcpy(out.data() + kImageHeaderBytes, image.bytes.data(), length);
}

// Fills `page`, zeros beyond the image. False: damaged.
inline bool decode_image(std::span<const std::byte> raw, std::span<std::byte> page) {
  uint32_t length = 0;
  uint32_t crc = 0;
  if (raw.size() < kImageHeaderBytes) return false;
  std::memcpy(&length, raw.data(), sizeof length);
  std::memcpy(&crc, raw.data() + sizeof length, sizeof crc);
  if (length > kPageSize || length > raw.size() - kImageHeaderBytes) return false;
  const auto bytes = raw.subspan(kImageHeaderBytes, length);
  if (crc32c(kImageSeed, bytes) != crc) return false;
  std::copy(bytes.begin(), bytes.end(), page.begin());
  std::fill(page.begin() + length, page.end(), std::byte{0});
  return true;
}

}  // namespace penstock::cache

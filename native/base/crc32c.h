// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of pages, journal frames and cache records.
//
// Chains: crc32c(crc32c(0, a), b) == crc32c(0, a followed by b). Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock {

uint32_t crc32c(uint32_t seed, std::span<const std::byte> data);

// The table-driven form that machines without SSE 4.2 use; tests compare the two.
uint32_t crc32c_portable(uint32_t seed, std::span<const std::byte> data);

}  // namespace penstock

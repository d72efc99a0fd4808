// GENEVE (RFC 8926, 3.4), over UDP 6081; options are carried, not understood.
//
//   | Ver 2 | Opt Len 6 | O C rsvd 6 | protocol 0x6558 | VNI 24 | reserved 8 | options, 4 bytes each ...
#pragma once

#include <array>
#include <cstring>

#include "native/offload/tunnel.h"
#include "native/packet/wire.h"

namespace penstock::net {

inline constexpr std::size_t kGeneveOptionsMax = 124;
inline constexpr uint8_t kGeneveControl = 0x80, kGeneveCritical = 0x40, kGeneveOptionCritical = 0x80;

// What was passed on carries this option: class 0xff00 (experimental, RFC 8926 6), type 1, no data.
inline constexpr std::array<std::byte, 4> kGenevePassedOn{std::byte{0xff}, std::byte{0}, std::byte{1},
                                                          std::byte{0}};

// Calls with the first byte of each option until that answers true.
template <typename Found>
bool any_geneve_option(std::span<const std::byte> options, Found found) {
  for (std::size_t at = 0; at + 4 <= options.size();) {
    if (found(options.data() + at)) return true;
    at += 4 + (wire::load8(options.data() + at + 3) & 0x1f) * std::size_t{4};
  }
  return false;
}

// Options whose first byte of the type says so are critical, and the header must announce them.
inline bool geneve_options_critical(std::span<const std::byte> options) {
  return any_geneve_option(
      options, [](const std::byte* at) { return (wire::load8(at + 2) & kGeneveOptionCritical) != 0; });
}

inline bool geneve_passed_on(std::span<const std::byte> options) {
  return any_geneve_option(
      options, [](const std::byte* at) { return std::memcmp(at, kGenevePassedOn.data(), 3) == 0; });
}

inline void push_geneve(Packet& packet, const TunnelTemplate& path, uint32_t vni,
                        std::span<const std::byte> options, uint32_t hash) {
  const std::size_t length = wire::kGeneveBytes + options.size();
  std::byte* header = packet.push(length);
  wire::store8(header, static_cast<uint8_t>(options.size() / 4));
  wire::store8(header + 1, geneve_options_critical(options) ? kGeneveCritical : uint8_t{0});
  wire::store16(header + 2, wire::kEtherBridging);
  wire::store32(header + 4, vni << 8);
  if (!options.empty()) std::memcpy(header + wire::kGeneveBytes, options.data(), options.size());
  push_outer(packet, path, length, hash);
}

// A control packet is not forwarded (3.4), and an option that must be understood is not (3.5.1): both are
// tunnel_option.
inline DropReason read_geneve(const std::byte* header, TunnelInfo& info) {
  if ((wire::load8(header + 1) & (kGeneveControl | kGeneveCritical)) != 0) return DropReason::tunnel_option;
  info.vni = wire::load32(header + 4) >> 8;
  info.context = info.vni;
  info.options = {header + wire::kGeneveBytes, (wire::load8(header) & 0x3f) * std::size_t{4}};
  info.passed_on = geneve_passed_on(info.options);
  return DropReason::none;
}

}  // namespace penstock::net

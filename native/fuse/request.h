// A request as it came from the kernel, checked once: after parse() every accessor is in bounds.
//
//   | InHeader | fixed arguments | names / value / data | extensions |
//              '---------------- body -----------------'
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "native/fuse/protocol.h"

namespace penstock::fuse {

inline constexpr uint32_t kNoGroup = UINT32_MAX;
inline constexpr std::size_t kMaxNames = 2;

struct Request {
  InHeader header{};
  std::span<const std::byte> body;
  // NUL-terminated names of the request, in order, without the NUL; empty when the opcode has none.
  std::array<std::string_view, kMaxNames> names{};
  // The supplementary group of the caller that owns the parent directory, or kNoGroup.
  uint32_t group = kNoGroup;

  Opcode opcode() const { return static_cast<Opcode>(header.opcode); }

  // The fixed arguments. parse() saw to it that they are there.
  template <typename Arguments>
  Arguments arguments() const {
    assert(body.size() >= sizeof(Arguments));
    Arguments out;
    std::memcpy(&out, body.data(), sizeof(out));
    return out;
  }

  // What follows the fixed arguments.
  std::span<const std::byte> tail(std::size_t fixed) const {
    assert(body.size() >= fixed);
    return body.subspan(fixed);
  }
};

// SETXATTR of a kernel without init_flag::setxattr_ext (before 5.13), with the end of SetxattrIn that it
// lacks.
std::vector<std::byte> widened_setxattr(std::span<const std::byte> bytes);

// Nothing when the bytes are not one whole, well-formed request. An opcode we do not know parses with a raw
// body.
std::optional<Request> parse_request(std::span<const std::byte> bytes);

}  // namespace penstock::fuse

// The request parser over arbitrary bytes: it may refuse, never read outside, and what it accepts is
// consistent.
#include <cstdint>
#include <cstdlib>

#include "native/fuse/request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto request = penstock::fuse::parse_request(bytes);
  if (!request) return 0;
  if (request->header.len != size || request->body.size() > size) std::abort();
  std::size_t total = 0;
  for (const std::string_view name : request->names) {
    for (const char letter : name) {
      if (letter == '\0') std::abort();
      ++total;
    }
  }
  return total > size ? std::abort(), 0 : 0;
}

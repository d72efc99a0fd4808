// The state of a port against arbitrary bytes: it is refused, or read and written back as the same. The
// checksum is put right first, so that what lies behind it is reached.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native/base/crc32c.h"
#include "native/switch/port_image.h"

using namespace penstock;

static void put32(std::vector<std::byte>& bytes, std::size_t at, uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(begin, begin + size);
  static_cast<void>(net::read_port_image(bytes));
  // magic, version and length of a real one before the input, its sum behind it
  std::vector<std::byte> framed = *net::write_port_image({});
  framed.resize(16);
  framed.insert(framed.end(), bytes.begin(), bytes.end());
  framed.resize(framed.size() + 4);
  put32(framed, 12, static_cast<uint32_t>(framed.size()));
  put32(framed, framed.size() - 4, crc32c(0, std::span(framed).first(framed.size() - 4)));
  const auto image = net::read_port_image(framed);
  if (!image) return 0;
  const auto again = net::read_port_image(*net::write_port_image(*image));
  if (!again || !(*again == *image)) std::abort();
  return 0;
}

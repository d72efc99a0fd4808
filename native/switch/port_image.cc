#include "native/switch/port_image.h"

#include <algorithm>
#include <cstring>

#include "native/base/crc32c.h"

namespace penstock::net {
namespace {

constexpr char kMagic[] = {'P', 'N', 'S', 'T', 'P', 'O', 'R', 'T'};
constexpr std::size_t kHeaderBytes = 16, kSumBytes = 4;
constexpr std::size_t kAddressBytes = 16, kMeterBytes = 16, kConnectionBytes = 168;
constexpr std::size_t kNamesMax = 4096;
constexpr uint64_t kMacMax = (1ULL << 48) - 1;
constexpr auto kTcpStateMax = static_cast<uint8_t>(TcpState::closed);
constexpr uint8_t kReplied = 1, kFinShift = 1, kFins = 3;

enum class Section : uint32_t { networks = 1, addresses = 2, meters = 3, connections = 4, groups = 5 };
constexpr uint32_t kSectionMax = 5;

class Writer {
 public:
  template <typename T>
  void put(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
      bytes_.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i)));
  }
  void copy(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void pad(std::size_t bytes) { bytes_.resize(bytes_.size() + bytes); }
  // The length of a section stands before its body and is known after it.
  void begin(Section section) {
    put(static_cast<uint32_t>(section));
    put(uint32_t{0});
    body_ = bytes_.size();
  }
  void begin(Section section, std::size_t record_bytes) {
    begin(section);
    put(static_cast<uint32_t>(record_bytes));
  }
  void end() { patch(body_ - 4, static_cast<uint32_t>(bytes_.size() - body_)); }
  void patch(std::size_t at, uint32_t value) {
    for (std::size_t i = 0; i < 4; ++i) bytes_[at + i] = static_cast<std::byte>(value >> (8 * i));
  }
  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> all() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
  std::size_t body_ = 0;
};

// Whoever takes has looked at left() before.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  template <typename T>
  T take() {
    uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<uint64_t>(bytes_[i]) << (8 * i);
    bytes_ = bytes_.subspan(sizeof(T));
    return static_cast<T>(value);
  }
  std::span<const std::byte> take(std::size_t count) {
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }

 private:
  std::span<const std::byte> bytes_;
};

void put_direction(Writer& to, const FlowKey& key) {
  to.copy(std::as_bytes(std::span(key.source)));
  to.copy(std::as_bytes(std::span(key.destination)));
  to.put(key.source_port);
  to.put(key.destination_port);
  to.put(key.protocol);
  to.put(key.ip_version);
  to.pad(2);
}

FlowKey take_direction(Reader& from, uint16_t network) {
  FlowKey key;
  std::memcpy(key.source.data(), from.take(16).data(), 16);
  std::memcpy(key.destination.data(), from.take(16).data(), 16);
  key.source_port = from.take<uint16_t>();
  key.destination_port = from.take<uint16_t>();
  key.protocol = from.take<uint8_t>();
  key.ip_version = from.take<uint8_t>();
  from.take(2);
  key.vni = network;
  return key;
}

void put_connection(Writer& to, const PortImage::Connection& one) {
  put_direction(to, one.original);
  put_direction(to, one.reply);
  to.put(static_cast<uint16_t>(one.original.vni));
  to.put(one.tcp_state);
  to.put(static_cast<uint8_t>((one.replied ? kReplied : 0) | one.fin_seen << kFinShift));
  to.put(one.expires_seconds);
  for (const uint32_t ack : one.ack_max) to.put(ack);
  for (const uint64_t packets : one.packets) to.put(packets);
  for (const uint64_t bytes : one.bytes) to.put(bytes);
  for (const uint64_t mac :
       {one.source_mac, one.destination_mac, one.translated_source_mac, one.translated_destination_mac})
    to.put(mac);
  to.put(one.mark);
  to.pad(6);
}

void put_names(Writer& to, Section section, const std::vector<std::string>& names) {
  to.begin(section);
  for (const std::string& name : names) {
    to.put(static_cast<uint8_t>(name.size()));
    to.copy(std::as_bytes(std::span(name)));
  }
  to.end();
}

PortImage::Connection take_connection(Reader from) {
  PortImage::Connection one;
  const FlowKey original = take_direction(from, 0);
  const FlowKey reply = take_direction(from, 0);
  const auto network = from.take<uint16_t>();
  one.original = original;
  one.reply = reply;
  one.original.vni = one.reply.vni = network;
  one.tcp_state = from.take<uint8_t>();
  const auto bits = from.take<uint8_t>();
  one.replied = (bits & kReplied) != 0;
  one.fin_seen = static_cast<uint8_t>(bits >> kFinShift & kFins);
  one.expires_seconds = from.take<uint32_t>();
  for (uint32_t& ack : one.ack_max) ack = from.take<uint32_t>();
  for (uint64_t& packets : one.packets) packets = from.take<uint64_t>();
  for (uint64_t& bytes : one.bytes) bytes = from.take<uint64_t>();
  one.source_mac = from.take<uint64_t>();
  one.destination_mac = from.take<uint64_t>();
  one.translated_source_mac = from.take<uint64_t>();
  one.translated_destination_mac = from.take<uint64_t>();
  one.mark = from.take<uint16_t>();
  return one;
}

// Which words of a connection make no sense; null when all do.
const char* nonsense(const PortImage::Connection& one, std::size_t networks) {
  const auto version = [](const FlowKey& key) { return key.ip_version == 4 || key.ip_version == 6; };
  if (!version(one.original) || one.original.ip_version != one.reply.ip_version ||
      one.original.protocol != one.reply.protocol)
    return "a connection of no IP version, or of two protocols";
  if (one.original.vni >= networks) return "a connection of a network that is not named";
  if (one.tcp_state > kTcpStateMax) return "a connection in an unknown state";
  for (const uint64_t mac :
       {one.source_mac, one.destination_mac, one.translated_source_mac, one.translated_destination_mac})
    if (mac > kMacMax) return "an address longer than a MAC address";
  return nullptr;
}

Error too_big() {
  return Error{EFBIG, "the state of a port: more than 64 MiB"};
}

Error bad(const std::string& what) {
  return Error{EINVAL, "the state of a port: " + what};
}

// Calls with each record's first `needed` bytes; false when the section is no list of records of at least
// that size.
template <typename Visit>
bool each_record(Reader body, std::size_t needed, Visit visit) {
  if (body.left() < 4) return false;
  const std::size_t size = body.take<uint32_t>();
  if (size < needed || body.left() % size != 0) return false;
  while (body.left() > 0) visit(Reader(body.take(size)));
  return true;
}

bool read_names(Reader body, std::vector<std::string>& names) {
  while (body.left() > 0) {
    const std::size_t length = body.take<uint8_t>();
    if (length == 0 || length > body.left() || names.size() == kNamesMax) return false;
    const auto text = body.take(length);
    names.emplace_back(reinterpret_cast<const char*>(text.data()), length);
  }
  return true;
}

Result<void> read_section(Section section, Reader body, PortImage& image) {
  switch (section) {
    case Section::networks:
      return read_names(body, image.networks) ? Result<void>{} : bad("names of networks are cut short");
    case Section::groups:
      return read_names(body, image.groups) ? Result<void>{} : bad("names of security groups are cut short");
    case Section::addresses: {
      const bool whole = each_record(body, kAddressBytes, [&](Reader record) {
        PortImage::Address address;
        address.mac = record.take<uint64_t>();
        address.age_seconds = record.take<uint32_t>();
        address.network = record.take<uint16_t>();
        image.addresses.push_back(address);
      });
      return whole ? Result<void>{} : bad("addresses are cut short");
    }
    case Section::meters: {
      const bool whole = each_record(body, kMeterBytes, [&](Reader record) {
        const auto direction = record.take<uint32_t>();
        record.take(4);
        const auto debt = record.take<uint64_t>();
        if (direction == 0) image.received_debt_ns = debt;
        if (direction == 1) image.transmitted_debt_ns = debt;
      });
      return whole ? Result<void>{} : bad("meters are cut short");
    }
    case Section::connections: {
      const bool whole = each_record(body, kConnectionBytes, [&](const Reader& record) {
        image.connections.push_back(take_connection(record));
      });
      return whole ? Result<void>{} : bad("connections are cut short");
    }
  }
  return {};  // of a later minor version
}

// What can be said only when every section was read, whatever their order.
Result<void> check(const PortImage& image) {
  for (const PortImage::Address& address : image.addresses)
    if (address.network >= image.networks.size() || address.mac > kMacMax || address.mac == 0)
      return bad("an address of no station or of a network that is not named");
  for (const PortImage::Connection& one : image.connections)
    if (const char* what = nonsense(one, image.networks.size())) return bad(what);
  return {};
}

}  // namespace

Result<std::vector<std::byte>> write_port_image(const PortImage& image) {
  const auto names = [&](const std::vector<std::string>& list) {
    return list.size() <= kNamesMax && std::all_of(list.begin(), list.end(), [](const std::string& name) {
             return !name.empty() && name.size() <= kPortImageNameMax;
           });
  };
  if (!names(image.networks) || !names(image.groups))
    return Error{ENAMETOOLONG, "the state of a port: a name has between 1 and 255 bytes"};
  Writer to;
  to.copy(std::as_bytes(std::span(kMagic)));
  to.put(kPortImageMajor);
  to.put(kPortImageMinor);
  to.put(uint32_t{0});  // the length, below
  put_names(to, Section::networks, image.networks);
  to.begin(Section::addresses, kAddressBytes);
  for (const PortImage::Address& address : image.addresses) {
    to.put(address.mac);
    to.put(address.age_seconds);
    to.put(address.network);
    to.pad(2);
  }
  to.end();
  to.begin(Section::meters, kMeterBytes);
  for (const uint32_t direction : {0U, 1U}) {
    to.put(direction);
    to.pad(4);
    to.put(direction == 0 ? image.received_debt_ns : image.transmitted_debt_ns);
  }
  to.end();
  to.begin(Section::connections, kConnectionBytes);
  for (const PortImage::Connection& one : image.connections) {
    // Looked at here, too, since the lengths in the image have four bytes.
    if (to.size() > kPortImageBytesMax) return too_big();
    put_connection(to, one);
  }
  to.end();
  put_names(to, Section::groups, image.groups);
  if (to.size() + kSumBytes > kPortImageBytesMax) return too_big();
  to.patch(kHeaderBytes - 4, static_cast<uint32_t>(to.size() + kSumBytes));
  to.put(crc32c(0, to.all()));
  return to.take();
}

Result<PortImage> read_port_image(std::span<const std::byte> bytes) {
  if (bytes.size() > kPortImageBytesMax) return too_big();
  if (bytes.size() < kHeaderBytes + kSumBytes || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0)
    return bad("these bytes are something else, or cut short");
  Reader from(bytes);
  from.take(sizeof(kMagic));
  // The version first: a later one may have another checksum.
  if (const auto major = from.take<uint16_t>(); major != kPortImageMajor)
    return Error{EPROTO, "the state of a port: version " + std::to_string(major) + ", this switch reads " +
                             std::to_string(kPortImageMajor)};
  from.take(2);
  if (from.take<uint32_t>() != bytes.size()) return bad("cut short, or followed by something");
  Reader sum(bytes.last(kSumBytes));
  if (sum.take<uint32_t>() != crc32c(0, bytes.first(bytes.size() - kSumBytes)))
    return bad("damaged: the checksum is wrong");
  PortImage image;
  uint32_t seen = 0;
  while (from.left() > kSumBytes) {
    if (from.left() < 8 + kSumBytes) return bad("a section is cut short");
    const auto kind = from.take<uint32_t>();
    if (kind <= kSectionMax && (seen & 1u << kind) != 0) return bad("a section comes twice");
    if (kind <= kSectionMax) seen |= 1u << kind;
    const auto section = static_cast<Section>(kind);
    const std::size_t length = from.take<uint32_t>();
    if (length > from.left() - kSumBytes) return bad("a section is cut short");
    if (auto read = read_section(section, Reader(from.take(length)), image); !read) return read.error();
  }
  if (auto right = check(image); !right) return right.error();
  return image;
}

}  // namespace penstock::net

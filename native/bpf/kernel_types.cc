#include "native/bpf/kernel_types.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "native/base/fd.h"

namespace penstock::bpf {
namespace {

constexpr const char* kTypesOfKernel = "/sys/kernel/btf/vmlinux";

// linux/btf.h
constexpr uint16_t kMagic = 0xeb9f;
constexpr std::size_t kHeaderBytes = 24, kTypeBytes = 12, kMemberBytes = 12;
constexpr uint32_t kInt = 1, kArray = 3, kStruct = 4, kUnion = 5, kEnum = 6, kFunction = 12, kPrototype = 13,
                   kVariable = 14, kSection = 15, kTag = 17, kEnum64 = 19;
// Structures without a name within one another.
constexpr int kDepthMax = 8;
constexpr uint32_t kPartialBits = 2;

class Types {
 public:
  explicit Types(std::span<const std::byte> bytes) : bytes_(bytes) {
    if (bytes.size() < kHeaderBytes || (word(0) & 0xffff) != kMagic) return;
    const std::size_t begin = std::size_t{word(4)} + word(8);
    const std::size_t end = begin + word(12);
    strings_ = std::size_t{word(4)} + word(16);
    strings_end_ = strings_ + word(20);
    if (end > bytes.size() || strings_end_ > bytes.size()) return;
    for (std::size_t at = begin; at + kTypeBytes <= end; at += kTypeBytes + tail(at)) places_.push_back(at);
  }

  // Identifiers begin with 1; 0: there is none.
  uint32_t find(uint32_t kind, std::string_view name) const {
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (kind_of(places_[i]) == kind && text(word(places_[i])) == name) return static_cast<uint32_t>(i + 1);
    return 0;
  }

  struct Field {
    uint32_t bit = 0;   // from the structure's start
    uint32_t bits = 0;  // 0: no bit field
  };
  // A member of the structure, or of one without a name in it.
  bool member(uint32_t id, std::string_view name, Field& field, uint32_t base = 0, int depth = 0) const {
    if (id == 0 || id > places_.size() || depth > kDepthMax) return false;
    const std::size_t type = places_[id - 1];
    if (kind_of(type) != kStruct && kind_of(type) != kUnion) return false;
    const bool bit_fields = word(type + 4) >> 31 != 0;
    for (std::size_t i = 0; i < (word(type + 4) & 0xffff); ++i) {
      const std::size_t at = type + kTypeBytes + i * kMemberBytes;
      const uint32_t place = word(at + 8);
      const uint32_t bit = base + (bit_fields ? place & 0xffffff : place);
      const std::string_view called = text(word(at));
      if (called == name) {
        field = {bit, bit_fields ? place >> 24 : 0};
        return true;
      }
      if (called.empty() && member(word(at + 4), name, field, bit, depth + 1)) return true;
    }
    return false;
  }

 private:
  uint32_t word(std::size_t at) const {
    uint32_t value = 0;
    if (at + sizeof(value) <= bytes_.size()) std::memcpy(&value, bytes_.data() + at, sizeof(value));
    return value;
  }
  std::string_view text(uint32_t at) const {
    if (strings_ + at >= strings_end_) return {};
    const char* start = reinterpret_cast<const char*>(bytes_.data()) + strings_ + at;
    return {start, ::strnlen(start, strings_end_ - strings_ - at)};
  }
  uint32_t kind_of(std::size_t type) const { return word(type + 4) >> 24 & 31; }
  // Bytes of what follows a type's first three words.
  std::size_t tail(std::size_t type) const {
    const std::size_t count = word(type + 4) & 0xffff;
    switch (kind_of(type)) {
      case kInt:
      case kVariable:
      case kTag:
        return 4;
      case kArray:
        return 12;
      case kEnum:
      case kPrototype:
        return 8 * count;
      case kStruct:
      case kUnion:
      case kSection:
      case kEnum64:
        return 12 * count;
      default:
        return 0;
    }
  }

  std::span<const std::byte> bytes_;
  std::size_t strings_ = 0, strings_end_ = 0;
  std::vector<std::size_t> places_;
};

}  // namespace

Result<KernelPacket> kernel_packet(std::span<const std::byte> bytes) {
  const Types types(bytes);
  const auto unknown = [](const std::string& what) {
    return Error{EPROTO, "the kernel's types tell nothing of " + what};
  };
  KernelPacket found;
  found.cast = static_cast<int32_t>(types.find(kFunction, "bpf_cast_to_kern_ctx"));
  if (found.cast == 0) return unknown("bpf_cast_to_kern_ctx");
  const uint32_t packet = types.find(kStruct, "sk_buff");
  Types::Field field;
  if (!types.member(packet, "ip_summed", field) || field.bits != kPartialBits || field.bit % 8 > 6)
    return unknown("sk_buff.ip_summed");
  found.summed = static_cast<int16_t>(field.bit / 8);
  found.partial = static_cast<uint8_t>(3U << field.bit % 8);
  for (const auto& [name, place] :
       {std::pair("csum_start", &found.checksum_start), std::pair("csum_offset", &found.checksum_offset),
        std::pair("head", &found.head), std::pair("data", &found.data)}) {
    if (!types.member(packet, name, field) || field.bits != 0 || field.bit % 8 != 0)
      return unknown(std::string("sk_buff.") + name);
    *place = static_cast<int16_t>(field.bit / 8);
  }
  return found;
}

Result<KernelPacket> kernel_packet() {
  const Fd file(::open(kTypesOfKernel, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return Error::from_errno(errno, "the kernel's types");
  std::vector<std::byte> bytes(std::size_t{1} << 23);
  std::size_t length = 0;
  for (;;) {
    const ssize_t got = ::read(file.get(), bytes.data() + length, bytes.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno(errno, "the kernel's types");
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
    if (length == bytes.size()) bytes.resize(2 * length);
  }
  return kernel_packet(std::span<const std::byte>(bytes).first(length));
}

}  // namespace penstock::bpf

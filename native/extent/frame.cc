#include "native/extent/frame.h"

#include <cstring>

#include "native/base/crc32c.h"

namespace penstock::extent {
namespace {

constexpr uint32_t kMagic = 0x4d465350;  // "PSFM"

struct Header {
  uint32_t magic = 0;
  uint32_t length = 0;
  uint64_t number = 0;
  uint32_t kind = 0;
  uint32_t crc = 0;
};
static_assert(sizeof(Header) == kFrameHeaderBytes);

uint32_t checksum(Header header, std::span<const std::byte> payload) {
  header.crc = 0;
  return crc32c(crc32c(0, std::as_bytes(std::span{&header, 1})), payload);
}

bool is_plausible(const Header& header) {
  return header.magic == kMagic && header.length <= kFramePayloadMax && header.kind >= 1 && header.kind <= 3;
}

}  // namespace

void append_frame(FrameKind kind, uint64_t number, std::span<const std::byte> payload,
                  std::vector<std::byte>& out) {
  Header header{kMagic, static_cast<uint32_t>(payload.size()), number, static_cast<uint32_t>(kind), 0};
  header.crc = checksum(header, payload);
  const std::size_t end = out.size() + frame_bytes(payload.size());
  const auto bytes = std::as_bytes(std::span{&header, 1});
  out.reserve(end);
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.insert(out.end(), payload.begin(), payload.end());
  out.resize(end);
}

std::optional<std::vector<std::byte>> last_payload(File& file, FrameKind kind, std::size_t payload_bytes) {
  const Result<uint64_t> size = file.size();
  const std::size_t whole = frame_bytes(payload_bytes);
  if (!size || *size < whole) return std::nullopt;
  std::vector<std::byte> frame(whole);
  const Result<std::size_t> got = file.read(*size - whole, frame);
  if (!got || *got != whole) return std::nullopt;
  Header header;
  std::memcpy(&header, frame.data(), sizeof(header));
  const auto payload = std::span{frame}.subspan(kFrameHeaderBytes, payload_bytes);
  const bool is_valid = is_plausible(header) && header.length == payload_bytes &&
                        header.kind == static_cast<uint32_t>(kind) && checksum(header, payload) == header.crc;
  if (!is_valid) return std::nullopt;
  return std::vector<std::byte>(payload.begin(), payload.end());
}

Result<FrameReader> FrameReader::open(File& file, uint64_t next_number) {
  const Result<uint64_t> size = file.size();
  if (!size) return size.error();
  return FrameReader(file, size.value(), next_number);
}

Result<FrameReader::Outcome> FrameReader::next() {
  if (offset_ == size_) return Outcome::end;
  if (size_ - offset_ < kFrameHeaderBytes) return Outcome::bad;
  Header header;
  const auto header_bytes = std::as_writable_bytes(std::span{&header, 1});
  if (auto got = file_->read(offset_, header_bytes); !got) return got.error();
  if (!is_plausible(header) || header.number != next_number_) return Outcome::bad;
  if (size_ - offset_ < frame_bytes(header.length)) return Outcome::bad;
  const std::size_t padded = frame_bytes(header.length) - kFrameHeaderBytes;
  payload_.resize(padded);
  const Result<std::size_t> got = file_->read(offset_ + kFrameHeaderBytes, payload_);
  if (!got) return got.error();
  if (got.value() != padded) return Outcome::bad;
  for (std::size_t at = header.length; at < padded; at++) {
    if (payload_[at] != std::byte{0}) return Outcome::bad;
  }
  payload_.resize(header.length);
  if (checksum(header, payload_) != header.crc) return Outcome::bad;
  kind_ = static_cast<FrameKind>(header.kind);
  offset_ += frame_bytes(header.length);
  next_number_++;
  return Outcome::frame;
}

Result<bool> FrameReader::is_followed_by_valid_frame() {
  std::vector<std::byte> rest(size_ - offset_);
  const Result<std::size_t> got = file_->read(offset_, rest);
  if (!got) return got.error();
  rest.resize(got.value());
  for (std::size_t at = 8; at + kFrameHeaderBytes <= rest.size(); at += 8) {
    Header header;
    std::memcpy(&header, rest.data() + at, sizeof(header));
    if (!is_plausible(header) || header.number <= next_number_) continue;
    const std::size_t left = rest.size() - at - kFrameHeaderBytes;
    if (header.length > left) continue;
    if (checksum(header, std::span{rest}.subspan(at + kFrameHeaderBytes, header.length)) == header.crc)
      return true;
  }
  return false;
}

}  // namespace penstock::extent

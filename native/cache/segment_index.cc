#include "native/cache/segment_index.h"

#include "native/base/crc32c.h"

namespace penstock::cache {
namespace {

constexpr uint32_t kOffsetMask = (1u << kOffsetBits) - 1;

uint32_t header_crc(const IndexHeader& header) {
  return crc32c(0, raw(header).first(offsetof(IndexHeader, crc)));
}

}  // namespace

// FNV-1a: it tells boots apart, which are few.
uint64_t boot_stamp(const std::string& boot_id) {
  uint64_t hash = 0xcbf2'9ce4'8422'2325;
  for (const char letter : boot_id) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100'0000'01b3;
  return hash;
}

void IndexWriter::add(uint64_t ino, uint64_t lsn, IndexKind kind, std::span<const std::byte> body) {
  IndexEntry entry;
  entry.ino = ino;
  entry.lsn = lsn;
  entry.length = static_cast<uint32_t>(body.size());
  entry.kind = kind;
  const auto head = raw(entry);
  entries_.insert(entries_.end(), head.begin(), head.end());
  entries_.insert(entries_.end(), body.begin(), body.end());
  count_ += 1;
  lsn_max_ = std::max(lsn_max_, lsn);
}

uint32_t IndexWriter::place(const Log& log, Location location) {
  if (location >= kZeros) return location;
  const uint64_t id = log.disk_place(location).segment;
  const auto [found, is_new] = slots_.try_emplace(id, static_cast<uint32_t>(segment_ids_.size()));
  if (is_new) segment_ids_.push_back(id);
  return found->second << kOffsetBits | (location & kOffsetMask);
}

std::vector<std::byte> IndexWriter::finish(IndexHeader header) const {
  std::vector<std::byte> content(sizeof header);
  const auto ids = std::as_bytes(std::span(segment_ids_));
  content.reserve(sizeof header + ids.size() + entries_.size());
  content.insert(content.end(), ids.begin(), ids.end());
  content.insert(content.end(), entries_.begin(), entries_.end());
  header.segment_ids = static_cast<uint32_t>(segment_ids_.size());
  header.entries = count_;
  header.lsn_max = std::max(header.last_lsn, lsn_max_);
  header.body_bytes = content.size() - sizeof header;
  header.body_crc = crc32c(0, std::span<const std::byte>(content).subspan(sizeof header));
  header.crc = header_crc(header);
  std::memcpy(content.data(), &header, sizeof header);
  return content;
}

std::optional<SegmentIndex> SegmentIndex::parse(std::span<const std::byte> content, uint64_t boot,
                                                const Segment& segment) {
  SegmentIndex index;
  if (content.size() < sizeof(IndexHeader)) return std::nullopt;
  std::memcpy(&index.header_, content.data(), sizeof(IndexHeader));
  const IndexHeader& header = index.header_;
  if (header.magic != kIndexMagic || header.version != kIndexVersion || header.crc != header_crc(header))
    return std::nullopt;
  if (header.boot != boot || header.segment_id != segment.id || header.first_lsn != segment.first_lsn)
    return std::nullopt;
  const uint64_t ids_bytes = header.segment_ids * sizeof(uint64_t);
  if (header.body_bytes != content.size() - sizeof(IndexHeader) || ids_bytes > header.body_bytes)
    return std::nullopt;
  if (header.records_end > segment.bytes || header.payload_start > segment.bytes) return std::nullopt;
  const auto body = content.subspan(sizeof(IndexHeader));
  if (crc32c(0, body) != header.body_crc) return std::nullopt;
  index.segment_ids_.resize(header.segment_ids);
  if (ids_bytes > 0) std::memcpy(index.segment_ids_.data(), body.data(), ids_bytes);
  index.entries_ = body.subspan(ids_bytes);
  return index;
}

void SegmentIndex::resolve(const Log& log) {
  slots_.clear();
  for (const uint64_t id : segment_ids_) {
    const Segment* segment = log.segment_by_id(id);
    slots_.push_back(segment == nullptr ? std::nullopt : std::optional(segment->slot));
  }
}

Location SegmentIndex::locate(uint32_t place) const {
  if (place >= kZeros) return place;
  const std::size_t at = place >> kOffsetBits;
  if (at >= slots_.size() || !slots_[at]) return kNowhere;
  return *slots_[at] << kOffsetBits | (place & kOffsetMask);
}

}  // namespace penstock::cache

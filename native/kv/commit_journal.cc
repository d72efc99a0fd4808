#include "native/kv/commit_journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/base/fd.h"

namespace penstock::kv {

namespace {

constexpr uint64_t kMagic = 0x324c4e524a4b4e50;         // "PNKJRNL2"
constexpr uint64_t kMagicOneHalf = 0x314c4e524a4b4e50;  // "PNKJRNL1"
constexpr uint32_t kTurned = 0xffff'ffff;               // a length that no record has; no bytes follow

struct Header {
  uint64_t magic;
  uint64_t generation;
  uint64_t base;
  uint32_t crc;
  uint32_t padding;
};
static_assert(sizeof(Header) == 32);

struct RecordHeader {
  uint32_t crc;  // of what follows it, and the bytes
  uint32_t length;
  uint64_t generation;
};
static_assert(sizeof(RecordHeader) == 16);

struct Bound {
  uint64_t synced;
  uint32_t crc;
  uint32_t padding;
};
static_assert(sizeof(Bound) == 16);

constexpr std::size_t kHalves = 2;

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + 7) & ~std::size_t{7};
}

uint32_t checksum(const Header& header) {
  return crc32c(0, std::as_bytes(std::span(&header, 1)).first(offsetof(Header, crc)));
}

uint32_t checksum(const Bound& bound) {
  return crc32c(0, std::as_bytes(std::span(&bound.synced, 1)));
}

uint32_t checksum(const RecordHeader& header, std::span<const std::byte> bytes) {
  return crc32c(crc32c(0, std::as_bytes(std::span(&header, 1)).subspan(sizeof(header.crc))), bytes);
}

Header header_of(const std::byte* half) {
  Header header;
  std::memcpy(&header, half, sizeof(header));
  return header;
}

bool is_whole(const Header& header) {
  return (header.magic == kMagic || header.magic == kMagicOneHalf) && header.crc == checksum(header);
}

// Appends the bytes of a generation's records to `into`; true when it has turned.
bool take_records(std::span<const std::byte> half, uint64_t generation, std::vector<std::byte>& into) {
  for (std::size_t at = CommitJournal::kRecordsOffset; at + sizeof(RecordHeader) <= half.size();) {
    RecordHeader record;
    std::memcpy(&record, half.data() + at, sizeof(record));
    if (record.generation != generation) return false;
    if (record.length == kTurned) return record.crc == checksum(record, {});
    if (record.length > half.size() - at - sizeof(record)) return false;
    const std::span<const std::byte> bytes = half.subspan(at + sizeof(record), record.length);
    if (record.crc != checksum(record, bytes)) return false;
    into.insert(into.end(), bytes.begin(), bytes.end());
    at += sizeof(record) + padded(record.length);
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<CommitJournal>> CommitJournal::open(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return Error::from_errno(errno, "cannot open " + path);
  // A store to a mapped page must never need a block that the disk has no room for.
  if (const int failed = ::posix_fallocate(fd.get(), 0, kFileBytes); failed != 0)
    return Error::from_errno(failed, "cannot allocate " + path);
  void* memory = ::mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (memory == MAP_FAILED) return Error::from_errno(errno, "cannot map " + path);
  // Random, so that records of a forgotten generation are never taken for those of a later one.
  uint64_t generation = 0;
  if (::getrandom(&generation, sizeof(generation), 0) != sizeof(generation)) {
    ::munmap(memory, kFileBytes);
    return Error::from_errno(errno, "getrandom");
  }
  return std::unique_ptr<CommitJournal>(new CommitJournal(static_cast<std::byte*>(memory), generation));
}

CommitJournal::~CommitJournal() {
  ::munmap(memory_, kFileBytes);
}

std::vector<std::byte> CommitJournal::replay(uint64_t sequence) const {
  std::vector<std::byte> records;
  for (std::size_t index = 0; index < kHalves; ++index) {
    const Header header = header_of(half(index));
    if (!is_whole(header) || header.base != sequence) continue;
    const std::size_t bytes = header.magic == kMagicOneHalf ? kFileBytes : kHalfBytes;
    if (!take_records({half(index), bytes}, header.generation, records)) break;
    const Header next = header_of(half(1 - index));
    if (is_whole(next) && next.generation == header.generation + 1)
      take_records({half(1 - index), kHalfBytes}, next.generation, records);
    break;
  }
  return records;
}

void CommitJournal::restart(uint64_t sequence) {
  std::memset(half(1 - current_), 0, sizeof(Header));
  begin(sequence);
}

void CommitJournal::turn(uint64_t sequence) {
  write_record(kTurned, {});
  current_ = 1 - current_;
  begin(sequence);
}

void CommitJournal::begin(uint64_t sequence) {
  Header header{kMagic, ++generation_, sequence, 0, 0};
  header.crc = checksum(header);
  std::memcpy(half(current_), &header, sizeof(header));
  end_ = kRecordsOffset;
}

Result<void> CommitJournal::sync() {
  for (std::size_t index = 0; index < kHalves; ++index) {
    if (::msync(half(index), kRecordsOffset, MS_SYNC) != 0)
      return Error::from_errno(errno, "sync of the commit journal");
  }
  return {};
}

uint64_t CommitJournal::synced_in(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Bound bound;
  if (!fd.valid() || ::pread(fd.get(), &bound, sizeof(bound), kBoundOffset) != sizeof(bound)) return 0;
  return bound.crc == checksum(bound) ? bound.synced : 0;
}

void CommitJournal::note_synced(uint64_t sequence) {
  Bound bound{sequence, 0, 0};
  bound.crc = checksum(bound);
  std::memcpy(memory_ + kBoundOffset, &bound, sizeof(bound));
}

bool CommitJournal::append(std::span<const std::byte> record) {
  const std::size_t needed = sizeof(RecordHeader) + padded(record.size());
  // What is left must hold the record `turned`.
  if (needed + sizeof(RecordHeader) > kHalfBytes - end_) return false;
  write_record(static_cast<uint32_t>(record.size()), record);
  return true;
}

void CommitJournal::write_record(uint32_t length, std::span<const std::byte> bytes) {
  RecordHeader header{0, length, generation_};
  header.crc = checksum(header, bytes);
  std::byte* at = half(current_) + end_;
  if (!bytes.empty()) std::memcpy(at + sizeof(header), bytes.data(), bytes.size());
  std::memcpy(at, &header, sizeof(header));
  end_ += sizeof(header) + padded(bytes.size());
}

}  // namespace penstock::kv

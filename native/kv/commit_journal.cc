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

constexpr uint64_t kMagic = 0x314c4e524a4b4e50;  // "PNKJRNL1"

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

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + 7) & ~std::size_t{7};
}

uint32_t checksum(const Header& header) {
  return crc32c(0, std::as_bytes(std::span(&header, 1)).first(offsetof(Header, crc)));
}

uint32_t checksum(const RecordHeader& header, std::span<const std::byte> bytes) {
  return crc32c(crc32c(0, std::as_bytes(std::span(&header, 1)).subspan(sizeof(header.crc))), bytes);
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
  Header header;
  std::memcpy(&header, memory_, sizeof(header));
  if (header.magic != kMagic || header.crc != checksum(header) || header.base != sequence) return records;
  for (std::size_t at = kRecordsOffset; at + sizeof(RecordHeader) <= kFileBytes;) {
    RecordHeader record;
    std::memcpy(&record, memory_ + at, sizeof(record));
    if (record.generation != header.generation) break;
    if (record.length > kFileBytes - at - sizeof(record)) break;
    const std::span<const std::byte> bytes(memory_ + at + sizeof(record), record.length);
    if (record.crc != checksum(record, bytes)) break;
    records.insert(records.end(), bytes.begin(), bytes.end());
    at += sizeof(record) + padded(record.length);
  }
  return records;
}

void CommitJournal::restart(uint64_t sequence) {
  Header header{kMagic, ++generation_, sequence, 0, 0};
  header.crc = checksum(header);
  std::memcpy(memory_, &header, sizeof(header));
  end_ = kRecordsOffset;
}

Result<void> CommitJournal::sync() {
  if (::msync(memory_, kRecordsOffset, MS_SYNC) != 0)
    return Error::from_errno(errno, "sync of the commit journal");
  return {};
}

bool CommitJournal::append(std::span<const std::byte> record) {
  const std::size_t needed = sizeof(RecordHeader) + padded(record.size());
  if (needed > kFileBytes - end_) return false;
  RecordHeader header{0, static_cast<uint32_t>(record.size()), generation_};
  header.crc = checksum(header, record);
  std::memcpy(memory_ + end_ + sizeof(header), record.data(), record.size());
  std::memcpy(memory_ + end_, &header, sizeof(header));
  end_ += needed;
  return true;
}

}  // namespace penstock::kv

#include "native/extent/journal.h"

#include <cstdio>

#include "native/extent/frame.h"

namespace penstock::extent {
namespace {

std::string numbered(const char* prefix, uint64_t number) {
  char name[48];
  std::snprintf(name, sizeof(name), "%s-%010llu", prefix, static_cast<unsigned long long>(number));
  return name;
}

// ENOSPC past the point where it is harmless must not look harmless.
Error fatal(Error error) {
  if (error.code == ENOSPC) error.code = EIO;
  return error;
}

}  // namespace

std::string journal_name(uint64_t segment) {
  return numbered("journal", segment);
}
std::string checkpoint_name(uint64_t segment) {
  return numbered("checkpoint", segment);
}

Result<std::unique_ptr<Journal>> Journal::create(FileSystem& file_system, std::string directory,
                                                 uint64_t store_id, uint64_t segment, uint64_t next_number,
                                                 uint64_t segment_bytes) {
  std::unique_ptr<Journal> journal(new Journal(file_system, std::move(directory), store_id, segment_bytes));
  journal->next_number_ = next_number;
  if (auto done = journal->ensure_spare(); !done) return done.error();
  if (auto done = journal->begin_segment(segment); !done) return done.error();
  return journal;
}

Result<std::unique_ptr<Journal>> Journal::resume(FileSystem& file_system, std::string directory,
                                                 uint64_t store_id, uint64_t segment, uint64_t next_number,
                                                 uint64_t segment_bytes) {
  std::unique_ptr<Journal> journal(new Journal(file_system, std::move(directory), store_id, segment_bytes));
  auto file = file_system.open(journal->directory_ + "/" + journal_name(segment), OpenMode::read_write);
  if (!file) return file.error();
  const auto size = (*file)->size();
  if (!size) return size.error();
  journal->file_ = std::move(*file);
  journal->segment_ = segment;
  journal->first_number_ = journal->next_number_ = next_number;
  journal->offset_ = journal->allocated_ = *size;
  return journal;
}

Result<void> Journal::ensure_spare() {
  if (spare_ != nullptr) return {};
  const std::string path = directory_ + "/" + kSpareName;
  auto file = file_system_.open(path, OpenMode::create);
  if (!file) return file.error();
  // One left by an earlier run keeps its space: on a full disk it could not be had again.
  const auto size = (*file)->size();
  if (!size) return size.error();
  Result<void> done = *size == 0 ? Result<void>() : (*file)->truncate(0);
  if (done) done = (*file)->allocate(0, segment_bytes_, false);
  if (!done) {
    if (auto removed = file_system_.unlink(path); !removed) return fatal(removed.error());
    return done;
  }
  spare_ = std::move(*file);
  return {};
}

Result<void> Journal::begin_segment(uint64_t segment) {
  const std::string spare = directory_ + "/" + kSpareName;
  if (auto done = file_system_.rename(spare, directory_ + "/" + journal_name(segment)); !done) {
    return fatal(done.error());
  }
  file_ = std::move(spare_);
  segment_ = segment;
  first_number_ = next_number_;
  offset_ = 0;
  allocated_ = segment_bytes_;
  const FileHeader header{1, FileHeader::kJournal, store_id_, segment, next_number_ + 1};
  if (auto done = write(std::as_bytes(std::span{&header, 1}), true); !done) return done;
  if (auto done = file_system_.sync_directory(directory_); !done) return fatal(done.error());
  return {};
}

Result<void> Journal::rotate() {
  if (auto done = ensure_spare(); !done) return done;
  return begin_segment(segment_ + 1);
}

Result<void> Journal::append(std::span<const std::byte> changes, Room room) {
  const std::size_t bytes = frame_bytes(changes.size());
  if (changes.size() > kFramePayloadMax) return Error{E2BIG, "a batch of changes exceeds a journal frame"};
  if (Result<void> spare = ensure_spare(); !spare && (spare.error().code != ENOSPC || room == Room::normal)) {
    return spare;
  }
  const uint64_t header_bytes = frame_bytes(sizeof(FileHeader));
  if (offset_ + bytes > allocated_ && offset_ > header_bytes) {
    const auto rotated = rotate();
    if (!rotated && (rotated.error().code != ENOSPC || room == Room::normal)) return rotated;
  }
  if (offset_ + bytes > allocated_) {
    if (auto done = file_->allocate(offset_, bytes, false); !done) return done;
    allocated_ = offset_ + bytes;
  }
  return write(changes, false);
}

Result<void> Journal::write(std::span<const std::byte> payload, bool is_header) {
  buffer_.clear();
  append_frame(is_header ? FrameKind::header : FrameKind::changes, next_number_, payload, buffer_);
  if (auto done = file_->write(offset_, buffer_); !done) return fatal(done.error());
  if (auto done = file_->sync_data(); !done) return fatal(done.error());
  offset_ += buffer_.size();
  bytes_written_ += buffer_.size();
  next_number_++;
  if (buffer_.capacity() > (1 << 20)) std::vector<std::byte>().swap(buffer_);
  return {};
}

}  // namespace penstock::extent

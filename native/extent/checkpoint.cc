#include "native/extent/checkpoint.h"

#include <algorithm>
#include <cstring>

#include "native/extent/frame.h"
#include "native/extent/journal.h"
#include "native/extent/recovery.h"

namespace penstock::extent {
namespace {

constexpr std::size_t kFrameTarget = 1 << 20;

Error damaged(const std::string& path, const std::string& what) {
  return Error{EBADMSG, path + " is damaged: " + what + "; restore the store from a replica or a backup"};
}

// As its footer has it, for making room; 0 when there is none to read. No more than the file can hold.
uint64_t versions_in(File& file) {
  uint64_t versions = 0;
  const auto footer = last_payload(file, FrameKind::footer, sizeof(versions));
  const auto size = file.size();
  if (!footer || !size) return 0;
  std::memcpy(&versions, footer->data(), sizeof(versions));
  return std::min(versions, *size / kStageHeaderBytes);
}

}  // namespace

std::string CheckpointWriter::temporary() const {
  return directory_ + "/" + checkpoint_name(segment_) + ".tmp";
}

Result<CheckpointWriter> CheckpointWriter::begin(FileSystem& file_system, const std::string& directory,
                                                 uint64_t store_id, uint64_t segment, uint64_t first_number) {
  CheckpointWriter writer(file_system, directory, segment);
  auto file = file_system.open(writer.temporary(), OpenMode::create);
  if (!file) return file.error();
  writer.file_ = std::move(*file);
  if (auto done = writer.file_->truncate(0); !done) return done.error();
  const FileHeader header{1, FileHeader::kCheckpoint, store_id, segment, first_number};
  if (auto done = writer.put(static_cast<uint32_t>(FrameKind::header), std::as_bytes(std::span{&header, 1}));
      !done) {
    writer.abandon();
    return done.error();
  }
  return writer;
}

Result<void> CheckpointWriter::put(uint32_t kind, std::span<const std::byte> payload) {
  buffer_.clear();
  append_frame(static_cast<FrameKind>(kind), frames_, payload, buffer_);
  if (auto done = file_->write(offset_, buffer_); !done) return done;
  offset_ += buffer_.size();
  frames_++;
  return {};
}

Result<void> CheckpointWriter::write(const StripeMap& map) {
  std::vector<std::byte> payload;
  Result<void> outcome;
  for (std::size_t shard = 0; shard < VersionTable::kShards && outcome; shard++) {
    map.table().for_each_in_shard(shard, [&](const VersionEntry& entry) {
      if (!outcome) return;
      map.encode_whole(entry, payload);
      if (payload.size() < kFrameTarget) return;
      outcome = put(static_cast<uint32_t>(FrameKind::changes), payload);
      payload.clear();
    });
  }
  if (outcome && !payload.empty()) outcome = put(static_cast<uint32_t>(FrameKind::changes), payload);
  if (!outcome) return outcome;
  const uint64_t versions = map.table().versions();
  return put(static_cast<uint32_t>(FrameKind::footer), std::as_bytes(std::span{&versions, 1}));
}

Result<void> CheckpointWriter::finish() {
  if (auto done = file_->sync_data(); !done) return done;
  if (auto done = file_system_->rename(temporary(), directory_ + "/" + checkpoint_name(segment_)); !done)
    return done;
  return file_system_->sync_directory(directory_);
}

void CheckpointWriter::abandon() {
  file_.reset();
  // Best effort: the next open removes leftovers as well.
  (void)file_system_->unlink(temporary()).ok();
}

Result<CheckpointPosition> load_checkpoint(FileSystem& file_system, const std::string& directory,
                                           uint64_t store_id, uint64_t segment, StripeMap& map) {
  const std::string path = directory + "/" + checkpoint_name(segment);
  auto file = file_system.open(path, OpenMode::read);
  if (!file) return file.error();
  auto reader = FrameReader::open(**file, 0);
  if (!reader) return reader.error();
  map.reserve(versions_in(**file));
  MapReplayer replayer(map);
  CheckpointPosition position;
  bool complete = false;
  for (uint64_t frame = 0;; frame++) {
    const uint64_t at = reader->offset();
    const auto outcome = reader->next();
    if (!outcome) return outcome.error();
    if (outcome.value() == FrameReader::Outcome::end) break;
    if (outcome.value() == FrameReader::Outcome::bad)
      return damaged(path, "no valid frame at " + std::to_string(at));
    const auto payload = reader->payload();
    if (frame == 0) {
      auto header = check_header(path, *reader, FileHeader::kCheckpoint, store_id, segment);
      if (!header) return header.error();
      position = {segment, header->next_number, 0};
    } else if (reader->kind() == FrameKind::changes && !complete) {
      if (auto done = decode(payload, replayer); !done) return damaged(path, done.error().message);
    } else if (reader->kind() == FrameKind::footer && !complete && payload.size() == sizeof(uint64_t)) {
      uint64_t versions = 0;
      std::memcpy(&versions, payload.data(), sizeof(versions));
      if (versions != map.table().versions()) return damaged(path, "versions are missing");
      complete = true;
    } else {
      return damaged(path, "an unexpected frame at " + std::to_string(at));
    }
  }
  if (!complete) return damaged(path, "its end is missing");
  position.bytes = reader->offset();
  return position;
}

}  // namespace penstock::extent

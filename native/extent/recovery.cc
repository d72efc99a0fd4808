#include "native/extent/recovery.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "native/extent/checkpoint.h"
#include "native/extent/journal.h"

namespace penstock::extent {
namespace {

Error damaged(const std::string& path, const std::string& what) {
  return Error{EBADMSG, path + " is damaged: " + what + "; restore the store from a replica or a backup"};
}

// The number in "<prefix>-<digits>", or 0.
uint64_t number_in(const std::string& name, const std::string& prefix) {
  if (name.size() <= prefix.size() + 1 || name.compare(0, prefix.size() + 1, prefix + "-") != 0) return 0;
  uint64_t number = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + prefix.size() + 1, end, number);
  return parsed.ec == std::errc() && parsed.ptr == end ? number : 0;
}

struct Files {
  uint64_t checkpoint = 0;  // 0: none
  std::vector<uint64_t> segments;
  std::vector<std::string> obsolete;
};

Result<Files> find_files(FileSystem& file_system, const std::string& directory) {
  const auto names = file_system.list(directory);
  if (!names) return names.error();
  Files files;
  for (const std::string& name : names.value())
    files.checkpoint = std::max(files.checkpoint, number_in(name, "checkpoint"));
  for (const std::string& name : names.value()) {
    const uint64_t segment = number_in(name, "journal");
    const uint64_t checkpoint = number_in(name, "checkpoint");
    if (segment != 0 && segment >= files.checkpoint) files.segments.push_back(segment);
    const bool is_old =
        (segment != 0 && segment < files.checkpoint) || (checkpoint != 0 && checkpoint < files.checkpoint);
    if (is_old || name.ends_with(".tmp")) files.obsolete.push_back(name);
  }
  std::sort(files.segments.begin(), files.segments.end());
  return files;
}

}  // namespace

Result<void> MapReplayer::stage(const StageChange& change) {
  if (auto fits = map_.check(change); !fits) return Error{EBADMSG, fits.error().message};
  map_.apply(change);
  return {};
}

Result<void> MapReplayer::drop(const DropChange& change) {
  if (!map_.contains(change.stripe, change.version)) {
    return Error{EBADMSG, "stripe " + std::to_string(change.stripe) + " version " +
                              std::to_string(change.version) + " is dropped but was never staged"};
  }
  map_.apply(change, 0);
  return {};
}

Result<FileHeader> check_header(const std::string& path, const FrameReader& reader, uint32_t role,
                                uint64_t store_id, uint64_t segment) {
  FileHeader header;
  if (reader.kind() != FrameKind::header || reader.payload().size() != sizeof(header)) {
    return damaged(path, "it does not begin with a header");
  }
  std::memcpy(&header, reader.payload().data(), sizeof(header));
  if (header.format != 1 || header.role != role)
    return damaged(path, "its header is of another kind or format");
  if (header.store_id != store_id || header.segment != segment) {
    return damaged(path, "it belongs to another store or place");
  }
  return header;
}

Result<Replayed> replay_segment(File& file, const std::string& path, uint64_t store_id, uint64_t segment,
                                uint64_t first_number, bool is_last, ChangeVisitor& visitor) {
  auto reader = FrameReader::open(file, first_number);
  if (!reader) return reader.error();
  for (;;) {
    const uint64_t at = reader->offset();
    const auto outcome = reader->next();
    if (!outcome) return outcome.error();
    if (outcome.value() == FrameReader::Outcome::end) {
      if (at == 0 && !is_last) return damaged(path, "it is empty");
      return Replayed{at == 0, at, reader->next_number()};
    }
    if (outcome.value() == FrameReader::Outcome::bad) {
      const std::string place = "no valid frame at byte " + std::to_string(at);
      if (!is_last) return damaged(path, place + ", yet a later segment exists");
      const auto followed = reader->is_followed_by_valid_frame();
      if (!followed) return followed.error();
      if (followed.value()) return damaged(path, place + ", yet valid frames follow");
      return Replayed{true, at, reader->next_number()};
    }
    if (at == 0) {
      if (auto header = check_header(path, *reader, FileHeader::kJournal, store_id, segment); !header) {
        return header.error();
      }
    } else if (reader->kind() != FrameKind::changes) {
      return damaged(path, "an unexpected frame at byte " + std::to_string(at));
    } else if (auto done = decode(reader->payload(), visitor); !done) {
      return damaged(path, done.error().message + " (frame at byte " + std::to_string(at) + ")");
    }
  }
}

Result<Recovered> recover(FileSystem& file_system, const std::string& directory, uint64_t store_id,
                          StripeMap& map) {
  const auto files = find_files(file_system, directory);
  if (!files) return files.error();
  Recovered recovered;
  if (files->checkpoint != 0) {
    const auto position = load_checkpoint(file_system, directory, store_id, files->checkpoint, map);
    if (!position) return position.error();
    recovered.next_segment = position->segment;
    recovered.next_number = position->first_number;
    recovered.checkpoint_bytes = position->bytes;
    // A checkpoint is put in place only after its segment was made durable.
    if (files->segments.empty()) return damaged(directory, journal_name(position->segment) + " is missing");
  }
  MapReplayer replayer(map);
  recovered.obsolete = files->obsolete;
  for (const uint64_t segment : files->segments) {
    const std::string path = directory + "/" + journal_name(segment);
    if (segment != recovered.next_segment) {
      return damaged(directory, journal_name(recovered.next_segment) + " is missing");
    }
    auto file = file_system.open(path, OpenMode::read_write);
    if (!file) return file.error();
    const bool is_last = segment == files->segments.back();
    const auto replayed =
        replay_segment(**file, path, store_id, segment, recovered.next_number, is_last, replayer);
    if (!replayed) return replayed.error();
    if (replayed->torn) {
      const auto size = (*file)->size();
      if (!size) return size.error();
      recovered.torn_bytes += size.value() - replayed->valid_bytes;
      if (replayed->valid_bytes == 0) {
        // Its header was never synced, so nothing was acknowledged from it.
        if (segment == files->checkpoint) return damaged(path, "its header is missing");
        recovered.obsolete.push_back(journal_name(segment));
        break;
      }
      recovered.last_valid_bytes = replayed->valid_bytes;
    }
    recovered.files.push_back(std::move(*file));
    recovered.next_segment = segment + 1;
    recovered.next_number = replayed->next_number;
    recovered.journal_bytes += replayed->valid_bytes;
    recovered.segments++;
  }
  return recovered;
}

Result<void> settle(FileSystem& file_system, const std::string& directory, Recovered& recovered) {
  if (recovered.last_valid_bytes != 0) {
    if (auto done = recovered.files.back()->truncate(recovered.last_valid_bytes); !done) return done;
  }
  for (const auto& file : recovered.files) {
    if (auto done = file->sync_data(); !done) return done;
  }
  recovered.files.clear();
  if (auto done = file_system.sync_directory(directory); !done) return done;
  for (const std::string& name : recovered.obsolete) {
    if (auto done = file_system.unlink(directory + "/" + name); !done) return done;
  }
  return {};
}

}  // namespace penstock::extent

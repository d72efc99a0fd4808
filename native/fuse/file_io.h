// What the FUSE data path asks of whoever holds the bytes (native/cache implements it; tests have a small
// double).
//
// Every call is synchronous, from any FUSE worker thread, and never waits for JavaScript or the network: when
// something is missing the outcome says what, the session parks the request, tells JavaScript, and runs the
// call again when told to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace penstock::fuse {

// Twelve bytes, no padding: the cache keeps two for each of a million files.
struct [[gnu::packed, gnu::aligned(4)]] Timespec {
  int64_t sec = 0;
  uint32_t nsec = 0;
};

// Size and times of a file that has local, unpublished state: they override what JavaScript last said.
struct LocalAttributes {
  uint64_t size = 0;   // bytes
  uint64_t pages = 0;  // allocated 4 KiB pages
  Timespec mtime;
  Timespec ctime;
};

enum class IoStatus : uint8_t {
  done,
  need_attach,  // the file is unknown here: JavaScript must say its size, version and layout state
  need_map,     // which pages of chunk [need_offset, need_length) exist in the store is unknown
  need_fetch,   // pages [need_offset, need_length) must be downloaded first
  need_grant,   // no page grant left: JavaScript must reserve quota and space
  need_clean,   // too much is dirty: JavaScript must publish some of it first
  error,        // errno in `error`
};

struct IoOutcome {
  IoStatus status = IoStatus::done;
  int error = 0;
  uint64_t need_offset = 0;  // bytes
  uint64_t need_length = 0;
  uint64_t bytes = 0;  // read or written
};

// Where the bytes of a read go straight from the file they lie in.
class FileRangeSink {
 public:
  virtual ~FileRangeSink() = default;
  // [offset, offset + length) of `descriptor`; it is done with them when it returns. False: none were taken.
  virtual bool send(int descriptor, uint64_t offset, std::size_t length) = 0;
};

class FileIo {
 public:
  virtual ~FileIo() = default;
  // Fills `out` from `offset`; `bytes` is short only at end of file.
  virtual IoOutcome read(uint64_t ino, uint64_t offset, std::span<std::byte> out) = 0;
  // As `read`, but what is read goes to `sink`, and nobody changes it before the sink has returned: how many
  // bytes it took. Nothing: they do not all lie in one file, or the sink took none; `read` is the way then.
  virtual std::optional<uint64_t> send(uint64_t ino, uint64_t offset, std::size_t length,
                                       FileRangeSink& sink) {
    return std::nullopt;
  }
  // All or nothing. On `done` the write is recorded: it survives kill -9.
  virtual IoOutcome write(uint64_t ino, uint64_t offset, std::span<const std::byte> data) = 0;
  virtual std::optional<LocalAttributes> attributes(uint64_t ino) = 0;
};

}  // namespace penstock::fuse

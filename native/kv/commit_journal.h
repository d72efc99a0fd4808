// What was committed since the store last took a batch, in a file mapped into memory: a commit is a copy and
// a checksum, without a system call, and the kernel keeps it when the process is killed.
//
// Two halves in turn, so that the store can take one as a batch on another thread while commits go on:
//
//   0                                4096                                              kHalfBytes
//   | magic | generation | base | crc | record | record | record | turned | (older generations, ignored)
//     u64     u64          u64    u32   { u32 crc | u32 length | u64 generation | bytes, padded to 8 }
//   | the same again ...                                                               | kFileBytes
//   kBoundOffset, in the first page: | synced | crc |
//                                      u64      u32
//
//   half 0   append append turn ─ the store takes its batch ─> ┊           ┌ append append ...
//   half 1                    └ append append append append ...┊ ... turn ─┘ ─ the store takes its batch ─>
//
// `base` is the store's sequence before the half's batch; `turn` is told the sequence after it, which is the
// base of the next generation. At opening a half stands if, and only if, the store is at its base:
//
//   the store is at                 after a kill, while                         replayed, as one batch
//   base of generation n            n is written, or its batch is under way     n, and n + 1 if n has turned
//   base of generation n + 1        the batch of n has been taken               n + 1
//
// After a power loss the store may have lost older batches too, or kept one while our header was lost; then
// no base agrees, and what the store holds is the prefix that stands. Where one agrees, its records up to the
// first whose checksum or generation is wrong continue the store. The next generation continues them only if
// they are whole: they end with the record `turned`, and the other half holds the generation after theirs.
// The headers of a new life are on disk before its first commit, so that no header of an abandoned history
// can meet a store that reached its sequence another way.
//
// Power loss takes nothing that was synced: a sync has the store take everything first.
//
// `synced` is a sequence that the store's log was synced at or beyond, written after that sync: a store that
// ends before it is damaged. The kernel writes the page when it likes, so a power loss may leave an older
// bound, or none, which is no harm.
//
// Version 1 had one half as large as the file, and no turns; it is still replayed.
//
// Thread: one; note_synced() any, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/result.h"

namespace penstock::kv {

class CommitJournal {
 public:
  static constexpr std::size_t kFileBytes = 1 << 20;
  static constexpr std::size_t kHalfBytes = kFileBytes / 2;
  static constexpr std::size_t kRecordsOffset = 4096;
  static constexpr std::size_t kBoundOffset = 2048;

  // The bound in the file at `path`, which need not exist; 0 when it has none.
  static uint64_t synced_in(const std::string& path);

  // Makes the file if there is none, with all its blocks. ENOSPC and others.
  static Result<std::unique_ptr<CommitJournal>> open(const std::string& path);
  CommitJournal(const CommitJournal&) = delete;
  CommitJournal& operator=(const CommitJournal&) = delete;
  ~CommitJournal();

  // The bytes of every record that continues a store at `sequence`, one after the other. The store takes them
  // as one batch: were it killed between two, it would stand at a sequence that no header names, and the rest
  // would be lost.
  std::vector<std::byte> replay(uint64_t sequence) const;
  // Everything is in the store, which is at `sequence` now.
  void restart(uint64_t sequence);
  // What was appended is a batch that takes the store to `sequence`; appends go to the other half from now
  // on, of which the store has everything.
  void turn(uint64_t sequence);
  // Makes the headers durable.
  Result<void> sync();
  void note_synced(uint64_t sequence);
  // False when it does not fit any more.
  bool append(std::span<const std::byte> record);

 private:
  CommitJournal(std::byte* memory, uint64_t generation) : memory_(memory), generation_(generation) {}

  std::byte* half(std::size_t index) const { return memory_ + index * kHalfBytes; }
  void begin(uint64_t sequence);
  void write_record(uint32_t length, std::span<const std::byte> bytes);

  std::byte* memory_;
  uint64_t generation_;
  std::size_t current_ = 0;  // the half that takes appends
  std::size_t end_ = kRecordsOffset;
};

}  // namespace penstock::kv

// What was committed since the store last took a batch, in a file mapped into memory: a commit is a copy and
// a checksum, without a system call, and the kernel keeps it when the process is killed.
//
//   0                                4096                                            kFileBytes
//   | magic | generation | base | crc | record | record | record | (older generations, ignored)
//     u64     u64          u64    u32   { u32 crc | u32 length | u64 generation | bytes, padded to 8 }
//
//   append ... append ── the store takes them all as one batch ── restart: a new generation over the old one
//
// `base` is the store's sequence when the generation began. At opening the records stand if, and only if, the
// store is still at that sequence: after a kill it either has none of them (they are replayed) or all of
// them. After a power loss it may have lost older batches too, or kept this one while our header was lost;
// then the sequences differ, and what the store holds is the prefix that stands. Where they agree, the
// records up to the first whose checksum or generation is wrong continue it. The header of a new life is on
// disk before its first commit, so that no header of an abandoned history can meet a store that reached its
// sequence another way.
//
// Power loss takes nothing that was synced: a sync has the store take everything first.
//
// Thread: one.
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
  static constexpr std::size_t kRecordsOffset = 4096;

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
  // Makes the header durable.
  Result<void> sync();
  // False when it does not fit any more.
  bool append(std::span<const std::byte> record);

 private:
  CommitJournal(std::byte* memory, uint64_t generation) : memory_(memory), generation_(generation) {}

  std::byte* memory_;
  uint64_t generation_;
  std::size_t end_ = kRecordsOffset;
};

}  // namespace penstock::kv

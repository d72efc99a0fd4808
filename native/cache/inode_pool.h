// Memory for inodes: a million of them are most of what a cache keeps in memory, so each costs its own bytes
// and no header of malloc's.
//
//   block, 64 KiB, aligned   [header: books, free list, how many live][inode][inode][inode] ...
//
// The alignment finds the header from an inode. An empty block goes back to the kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

namespace penstock::cache {

struct Books;

class InodePool {
 public:
  explicit InodePool(Books& books) : books_(books) {}
  // Every inode was given back.
  ~InodePool();
  InodePool(const InodePool&) = delete;
  InodePool& operator=(const InodePool&) = delete;

  // Room for one inode, aligned for it; the caller makes it there, and destroys it before it gives it back.
  void* take();
  void give_back(void* place);
  // Of the cache that the inode at `place` belongs to.
  static Books& books_of(const void* place) { return *block_of(place)->books; }

 private:
  static constexpr std::size_t kBlockBytes = 64 << 10;
  static constexpr std::size_t kHeaderBytes = 64;
  static const std::size_t kPlaces;
  struct Place {
    Place* next = nullptr;
  };
  struct Block {
    Books* books = nullptr;
    Place* free = nullptr;
    std::size_t live = 0;
    std::size_t touched = 0;  // places from here on were never used: their memory is not there yet
    Block* next = nullptr;    // among the blocks with room
    Block* previous = nullptr;
  };
  static Block* block_of(const void* place) {
    return reinterpret_cast<Block*>(reinterpret_cast<std::uintptr_t>(place) & ~(kBlockBytes - 1));
  }
  Block* map_block();
  void link(Block* block);
  void unlink(Block* block);

  Books& books_;
  std::mutex mutex_;
  Block* with_room_ = nullptr;
};

}  // namespace penstock::cache

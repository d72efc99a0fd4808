#include "native/cache/inode_pool.h"

#include <sys/mman.h>

#include <cassert>
#include <cstdint>
#include <new>

#include "native/cache/inode.h"

namespace penstock::cache {

const std::size_t InodePool::kPlaces = (kBlockBytes - kHeaderBytes) / sizeof(Inode);

InodePool::Block* InodePool::map_block() {
  static_assert(sizeof(Block) <= kHeaderBytes && kHeaderBytes % alignof(Inode) == 0);
  // Twice as much holds an aligned one; the rest is unmapped at once.
  void* mapped = ::mmap(nullptr, 2 * kBlockBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  const auto start = reinterpret_cast<std::uintptr_t>(mapped);
  const std::uintptr_t aligned = (start + kBlockBytes - 1) & ~(kBlockBytes - 1);
  if (aligned > start) ::munmap(mapped, aligned - start);
  const std::uintptr_t end = aligned + kBlockBytes;
  if (end < start + 2 * kBlockBytes) ::munmap(reinterpret_cast<void*>(end), start + 2 * kBlockBytes - end);
  auto* block = ::new (reinterpret_cast<void*>(aligned)) Block();
  block->books = &books_;
  return block;
}

InodePool::~InodePool() {
  assert(with_room_ == nullptr || (with_room_->live == 0 && with_room_->next == nullptr));
  if (with_room_ != nullptr) ::munmap(with_room_, kBlockBytes);
}

void InodePool::link(Block* block) {
  block->next = with_room_;
  block->previous = nullptr;
  if (with_room_ != nullptr) with_room_->previous = block;
  with_room_ = block;
}

void InodePool::unlink(Block* block) {
  (block->previous != nullptr ? block->previous->next : with_room_) = block->next;
  if (block->next != nullptr) block->next->previous = block->previous;
}

void* InodePool::take() {
  const std::lock_guard lock(mutex_);
  if (with_room_ == nullptr) link(map_block());
  Block* block = with_room_;
  void* place = nullptr;
  if (block->free != nullptr) {
    place = block->free;
    block->free = block->free->next;
  } else {
    place = reinterpret_cast<std::byte*>(block) + kHeaderBytes + block->touched * sizeof(Inode);
    block->touched += 1;
  }
  block->live += 1;
  if (block->live == kPlaces) unlink(block);
  return place;
}

void InodePool::give_back(void* place) {
  const std::lock_guard lock(mutex_);
  Block* block = block_of(place);
  auto* freed = ::new (place) Place();
  freed->next = block->free;
  block->free = freed;
  if (block->live == kPlaces) link(block);
  block->live -= 1;
  // One empty block is kept: a file that comes and goes costs no system call.
  if (block->live > 0 || (with_room_ == block && block->next == nullptr)) return;
  unlink(block);
  ::munmap(block, kBlockBytes);
}

}  // namespace penstock::cache

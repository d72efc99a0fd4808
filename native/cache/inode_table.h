// Every file the cache knows, by inode number, in stripes: a stripe's lock is the lock of each file in it.
// 4096 of them keep files apart, and a million files cost no lock each.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "native/cache/inode.h"
#include "native/cache/rw_lock.h"

namespace penstock::cache {

class InodeTable {
 public:
  static constexpr std::size_t kStripes = 4096;

  struct Stripe {
    RwLock lock;
    std::vector<Inode*> buckets;
    std::size_t count = 0;
  };

  explicit InodeTable(Books& books);
  ~InodeTable();
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;

  static std::size_t stripe_index(uint64_t ino) { return mix(ino) % kStripes; }
  Stripe& stripe(uint64_t ino) { return (*stripes_)[stripe_index(ino)]; }
  Stripe& stripe_at(std::size_t index) { return (*stripes_)[index]; }

  // With the stripe's lock held, shared or exclusive.
  static Inode* find(const Stripe& stripe, uint64_t ino);
  // With it held exclusive.
  // A new one: the table has none of this number.
  Inode* insert(uint64_t ino);
  void remove(uint64_t ino);
  template <typename Visit>
  static void for_each(Stripe& stripe, Visit visit) {
    for (Inode* node : stripe.buckets) {
      while (node != nullptr) {
        Inode* following = node->next;
        visit(*node);
        node = following;
      }
    }
  }

 private:
  // Inode numbers share their low bits (the shard), so all bits are stirred (splitmix64's finalizer).
  static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58'476d'1ce4'e5b9;
    value = (value ^ (value >> 27)) * 0x94d0'49bb'1331'11eb;
    return value ^ (value >> 31);
  }
  static std::size_t bucket(const Stripe& stripe, uint64_t ino) {
    return static_cast<std::size_t>(mix(ino) / kStripes) % stripe.buckets.size();
  }

  std::unique_ptr<std::array<Stripe, kStripes>> stripes_;
  // One for all: eviction empties stripe after stripe, and what one leaves free another must be able to take.
  InodePool pool_;
};

// A file under its lock; null when the cache does not know it.
template <typename Lock>
class Held {
 public:
  Held(InodeTable& table, uint64_t ino) : stripe_(&table.stripe(ino)), lock_(stripe_->lock) {
    node_ = InodeTable::find(*stripe_, ino);
  }
  explicit operator bool() const { return node_ != nullptr; }
  Inode* operator->() const { return node_; }
  Inode& operator*() const { return *node_; }
  InodeTable::Stripe& stripe() const { return *stripe_; }
  void set(Inode* node) { node_ = node; }
  void unlock() { lock_.unlock(); }

 private:
  InodeTable::Stripe* stripe_;
  Lock lock_;
  Inode* node_ = nullptr;
};
using Reading = Held<std::shared_lock<RwLock>>;
using Changing = Held<std::unique_lock<RwLock>>;

}  // namespace penstock::cache

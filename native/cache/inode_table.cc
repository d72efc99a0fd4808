#include "native/cache/inode_table.h"

namespace penstock::cache {

InodeTable::InodeTable(Books& books)
    : stripes_(std::make_unique<std::array<Stripe, kStripes>>()), pool_(books) {}

InodeTable::~InodeTable() {
  for (std::size_t index = 0; index < kStripes; ++index) {
    for_each((*stripes_)[index], [&](Inode& node) {
      std::destroy_at(&node);
      pool_.give_back(&node);
    });
  }
}

Inode* InodeTable::find(const Stripe& stripe, uint64_t ino) {
  if (stripe.count == 0) return nullptr;
  Inode* node = stripe.buckets[bucket(stripe, ino)];
  while (node != nullptr && node->ino != ino) node = node->next;
  return node;
}

Inode* InodeTable::insert(uint64_t ino) {
  Stripe& stripe = this->stripe(ino);
  if (stripe.count == stripe.buckets.size()) {
    std::vector<Inode*> smaller = std::exchange(
        stripe.buckets, std::vector<Inode*>(stripe.buckets.empty() ? 4 : stripe.buckets.size() * 2, nullptr));
    for (Inode* chain : smaller) {
      while (chain != nullptr) {
        Inode* following = chain->next;
        Inode*& head = stripe.buckets[bucket(stripe, chain->ino)];
        chain->next = head;
        head = chain;
        chain = following;
      }
    }
  }
  Inode*& head = stripe.buckets[bucket(stripe, ino)];
  Inode* node = ::new (pool_.take()) Inode(ino);  // the table owns it until `remove`
  node->next = head;
  head = node;
  stripe.count += 1;
  return head;
}

void InodeTable::remove(uint64_t ino) {
  Stripe& stripe = this->stripe(ino);
  if (stripe.count == 0) return;
  Inode** link = &stripe.buckets[bucket(stripe, ino)];
  while (*link != nullptr && (*link)->ino != ino) link = &(*link)->next;
  Inode* node = *link;
  if (node == nullptr) return;
  *link = node->next;
  stripe.count -= 1;
  std::destroy_at(node);
  pool_.give_back(node);
}

}  // namespace penstock::cache

#include "native/cache/inode_table.h"

namespace penstock::cache {

InodeTable::~InodeTable() {
  for (Stripe& stripe : *stripes_) {
    for_each(stripe, [](Inode& node) { std::unique_ptr<Inode>(&node).reset(); });
  }
}

Inode* InodeTable::find(const Stripe& stripe, uint64_t ino) {
  if (stripe.count == 0) return nullptr;
  Inode* node = stripe.buckets[bucket(stripe, ino)];
  while (node != nullptr && node->ino != ino) node = node->next;
  return node;
}

Inode* InodeTable::insert(Stripe& stripe, std::unique_ptr<Inode> node) {
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
  Inode*& head = stripe.buckets[bucket(stripe, node->ino)];
  node->next = head;
  head = node.release();  // the table owns it until `remove`
  stripe.count += 1;
  return head;
}

std::unique_ptr<Inode> InodeTable::remove(Stripe& stripe, uint64_t ino) {
  if (stripe.count == 0) return nullptr;
  Inode** link = &stripe.buckets[bucket(stripe, ino)];
  while (*link != nullptr && (*link)->ino != ino) link = &(*link)->next;
  if (*link == nullptr) return nullptr;
  std::unique_ptr<Inode> node(*link);
  *link = node->next;
  stripe.count -= 1;
  return node;
}

}  // namespace penstock::cache

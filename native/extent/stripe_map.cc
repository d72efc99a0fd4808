#include "native/extent/stripe_map.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>
#include <new>

namespace penstock::extent {
namespace {

enum Tag : uint64_t { kEmpty = 0, kPage = 1, kNode = 2, kArray = 3 };
constexpr uint64_t kTagMask = 3;
constexpr uint64_t kConfirmed = 4;
constexpr uint64_t kPointerMask = ~uint64_t{15};

// The blocks of a version, null where there are none; the pointers follow the header.
struct BlockArray {
  uint64_t count = 0;

  std::span<BlockNode*> nodes() { return {reinterpret_cast<BlockNode**>(this + 1), count}; }

  static BlockArray* make(std::span<BlockNode* const> nodes) {
    auto* array = ::new (::operator new(sizeof(BlockArray) + nodes.size_bytes())) BlockArray{nodes.size()};
    std::copy(nodes.begin(), nodes.end(), array->nodes().begin());
    return array;
  }
  static void destroy(BlockArray* array) { ::operator delete(array); }
};

Tag tag_of(const VersionEntry& entry) {
  return static_cast<Tag>(entry.root & kTagMask);
}
BlockNode* node_of(const VersionEntry& entry) {
  return reinterpret_cast<BlockNode*>(entry.root & kPointerMask);
}
BlockArray* array_of(const VersionEntry& entry) {
  return reinterpret_cast<BlockArray*>(entry.root & kPointerMask);
}

bool is_first_page_only(BlockView view) {
  return view.runs.size() == 1 && view.runs[0].first == 0 && view.runs[0].last == 0;
}

std::string name_of(uint64_t stripe, uint64_t version) {
  return "stripe " + std::to_string(stripe) + " version " + std::to_string(version);
}

}  // namespace

StripeMap::~StripeMap() {
  for (std::size_t shard = 0; shard < VersionTable::kShards; shard++) {
    table_.for_each_in_shard(shard, [](const VersionEntry& entry) {
      if (tag_of(entry) == kNode) node_of(entry)->release();
      if (tag_of(entry) != kArray) return;
      for (BlockNode* node : array_of(entry)->nodes()) {
        if (node != nullptr) node->release();
      }
      BlockArray::destroy(array_of(entry));
    });
  }
}

BlockView StripeMap::block(const VersionEntry& entry, uint32_t index, BlockRun& scratch) const {
  const Tag tag = tag_of(entry);
  if (tag == kPage && index == 0) {
    scratch = {0, 0, 0, static_cast<uint32_t>(entry.root >> 32)};
    return {static_cast<uint16_t>(entry.root >> 16), {&scratch, 1}, {&entry.crc, 1}};
  }
  if (tag == kNode && index == 0) return node_of(entry)->view();
  if (tag == kArray && index < array_of(entry)->count) {
    const BlockNode* node = array_of(entry)->nodes()[index];
    if (node != nullptr) return node->view();
  }
  return {};
}

uint32_t StripeMap::block_limit(const VersionEntry& entry) const {
  if (tag_of(entry) == kEmpty) return 0;
  return tag_of(entry) == kArray ? static_cast<uint32_t>(array_of(entry)->count) : 1;
}

Result<void> StripeMap::check(const StageChange& change) const {
  const auto name = [&] { return name_of(change.stripe, change.version); };
  if (change.base != 0 && !contains(change.stripe, change.base)) {
    return Error{ENOENT,
                 name() + ": its base version " + std::to_string(change.base) + " is not in this store"};
  }
  if (contains(change.stripe, change.version)) return Error{EEXIST, name() + " exists already"};
  for (const PackedBlock& block : change.blocks) {
    for (const BlockRun& run : block.runs) {
      if (block.extent >= extents_.size() || extents_[block.extent] == nullptr ||
          run.page + run.count() > extents_[block.extent]->pages()) {
        return Error{EBADMSG, name() + " refers to page " + std::to_string(run.page) + " outside extent " +
                                  std::to_string(block.extent)};
      }
    }
  }
  return {};
}

BlockNode* StripeMap::make_node(BlockView view) {
  BlockNode* node = BlockNode::make(view);
  for (const BlockRun& run : view.runs) extents_[view.extent]->hold(run.pages());
  node_bytes_ += node->bytes();
  blocks_++;
  return node;
}

void StripeMap::release_node(BlockNode* node, uint64_t stamp) {
  if (node->references() == 1) {
    const BlockView view = node->view();
    for (const BlockRun& run : view.runs) extents_[view.extent]->release(run.pages(), stamp);
    node_bytes_ -= node->bytes();
    blocks_--;
  }
  node->release();
}

void StripeMap::apply(const StageChange& change) {
  VersionEntry entry{change.stripe, change.version, kEmpty, 0, change.staged_at};
  const VersionEntry* base = change.base == 0 ? nullptr : table_.find(change.stripe, change.base);
  const uint32_t kept = base == nullptr ? 0 : std::min(block_limit(*base), change.block_limit);
  const uint32_t listed = change.blocks.empty() ? 0 : change.blocks.back().index + 1;
  std::vector<BlockNode*> nodes(std::max(kept, listed));
  auto next = change.blocks.begin();
  for (uint32_t index = 0; index < nodes.size(); index++) {
    BlockRun scratch;
    BlockView view;
    if (next != change.blocks.end() && next->index == index) {
      view = next->view();
      next++;
    } else if (index < kept) {
      if (tag_of(*base) == kNode) nodes[index] = node_of(*base);
      if (tag_of(*base) == kArray) nodes[index] = array_of(*base)->nodes()[index];
      if (nodes[index] != nullptr) nodes[index]->retain();
      if (tag_of(*base) == kPage) view = block(*base, index, scratch);
    }
    if (view.runs.empty()) continue;
    if (nodes.size() == 1 && is_first_page_only(view)) {
      extents_[view.extent]->hold(view.runs[0].pages());
      entry.root = uint64_t{view.runs[0].page} << 32 | uint64_t{view.extent} << 16 | kPage;
      entry.crc = view.crcs[0];
      blocks_++;
    } else {
      nodes[index] = make_node(view);
    }
  }
  if (tag_of(entry) != kPage) set_root(entry, std::move(nodes));
  table_.insert(entry);
}

void StripeMap::set_root(VersionEntry& entry, std::vector<BlockNode*> nodes) {
  while (!nodes.empty() && nodes.back() == nullptr) nodes.pop_back();
  if (nodes.empty()) return;
  if (nodes.size() == 1) {
    entry.root = reinterpret_cast<uint64_t>(nodes[0]) | kNode;
  } else {
    entry.root = reinterpret_cast<uint64_t>(BlockArray::make(nodes)) | kArray;
    node_bytes_ += sizeof(BlockArray) + nodes.size() * sizeof(BlockNode*);
  }
  assert((entry.root & ~kPointerMask) == kNode || (entry.root & ~kPointerMask) == kArray);
}

void StripeMap::apply(const DropChange& change, uint64_t stamp) {
  const VersionEntry entry = *table_.find(change.stripe, change.version);
  table_.erase(change.stripe, change.version);
  if (tag_of(entry) == kPage) {
    extents_[entry.root >> 16 & 0xffff]->release({static_cast<uint32_t>(entry.root >> 32), 1}, stamp);
    blocks_--;
  } else if (tag_of(entry) == kNode) {
    release_node(node_of(entry), stamp);
  } else if (tag_of(entry) == kArray) {
    BlockArray* array = array_of(entry);
    for (BlockNode* node : array->nodes()) {
      if (node != nullptr) release_node(node, stamp);
    }
    node_bytes_ -= sizeof(BlockArray) + array->nodes().size_bytes();
    BlockArray::destroy(array);
  }
}

void StripeMap::confirm_published(uint64_t stripe, uint64_t version) {
  if (VersionEntry* entry = table_.find(stripe, version)) entry->root |= kConfirmed;
}

bool StripeMap::is_confirmed(const VersionEntry& entry) {
  return (entry.root & kConfirmed) != 0;
}

void StripeMap::encode_whole(const VersionEntry& entry, std::vector<std::byte>& out) const {
  const uint32_t limit = block_limit(entry);
  BlockRun scratch;
  uint32_t count = 0;
  for (uint32_t index = 0; index < limit; index++) count += block(entry, index, scratch).runs.empty() ? 0 : 1;
  StageChange header{entry.stripe, 0, entry.version, entry.staged_at, limit, {}};
  encode_stage_header(header, count, out);
  for (uint32_t index = 0; index < limit; index++) {
    const BlockView view = block(entry, index, scratch);
    if (!view.runs.empty()) encode_block(index, view, out);
  }
}

std::vector<std::string> StripeMap::check_invariants(std::size_t limit) const {
  std::vector<std::string> broken;
  const auto report = [&](std::string what) {
    if (broken.size() < limit) broken.push_back(std::move(what));
  };
  // By extent and page: which page of which stripe has it, and how many distinct nodes say so.
  struct Owner {
    uint64_t stripe = 0;
    uint32_t stripe_page = 0;
    uint32_t crc = 0;
    uint32_t nodes = 0;
  };
  std::vector<std::vector<Owner>> owners(extents_.size());
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (extents_[id] != nullptr) owners[id].resize(extents_[id]->pages());
  }
  std::map<const BlockNode*, uint32_t> references;
  const auto count = [&](const VersionEntry& entry, uint32_t index, BlockView view) {
    if (!is_well_formed(view)) return report(name_of(entry.stripe, entry.version) + " has a malformed block");
    for (const BlockRun& run : view.runs) {
      for (uint32_t i = 0; i < run.count(); i++) {
        Owner& owner = owners[view.extent][run.page + i];
        const uint32_t stripe_page = index * static_cast<uint32_t>(kPagesPerBlock) + run.first + i;
        const uint32_t crc = view.crcs[run.crc_index + i];
        const Owner claim{entry.stripe, stripe_page, crc, owner.nodes + 1};
        if (owner.nodes > 0 &&
            (owner.stripe != claim.stripe || owner.stripe_page != stripe_page || owner.crc != crc)) {
          report("page " + std::to_string(run.page + i) + " of extent " + std::to_string(view.extent) +
                 " has two owners: stripe " + std::to_string(owner.stripe) + " and stripe " +
                 std::to_string(entry.stripe));
        }
        owner = claim;
      }
    }
  };
  for (std::size_t shard = 0; shard < VersionTable::kShards; shard++) {
    table_.for_each_in_shard(shard, [&](const VersionEntry& entry) {
      BlockRun scratch;
      if (tag_of(entry) == kPage) return count(entry, 0, block(entry, 0, scratch));
      for (uint32_t index = 0; index < block_limit(entry); index++) {
        const BlockNode* node = tag_of(entry) == kNode ? node_of(entry) : array_of(entry)->nodes()[index];
        if (node != nullptr && references[node]++ == 0) count(entry, index, node->view());
      }
    });
  }
  for (const auto& [node, expected] : references) {
    if (node->references() != expected) {
      report("a block node counts " + std::to_string(node->references()) + " versions, " +
             std::to_string(expected) + " have it");
    }
  }
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (extents_[id] == nullptr) continue;
    const Extent& extent = *extents_[id];
    uint32_t owned = 0;
    for (uint32_t page = 0; page < extent.pages(); page++) {
      const uint32_t expected = owners[id][page].nodes;
      const std::string place = "page " + std::to_string(page) + " of extent " + std::to_string(id);
      if (expected > 0) owned++;
      if (extent.owners(page) != expected) {
        report(place + " counts " + std::to_string(extent.owners(page)) + " owners, " +
               std::to_string(expected) + " have it");
      }
      if (expected > 0 && extent.is_free(page)) report(place + " is mapped and free at once");
    }
    if (owned != extent.owned_pages()) report("extent " + std::to_string(id) + " miscounts its owned pages");
    if (uint64_t{owned} + extent.limbo_pages() + extent.free_pages() > extent.pages()) {
      report("extent " + std::to_string(id) + " accounts for more pages than it has");
    }
  }
  return broken;
}

}  // namespace penstock::extent

// All the cache knows of one file, and how each kind of log record changes it. The live path and recovery
// call the same functions, so that a replayed log gives the state that was.
//
//   small:  pages in the log          location(page)
//   sparse: pages in a file of its own, at the file's own offsets      sparse
//
// A clean file of one page costs kInodeBytes, its place in the table 8 to 16 more; two to sixteen pages in
// the log cost another 80, what is not published yet about 180.
//
// Thread: the stripe lock of the inode table, exclusive for everything that changes.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "native/base/file_system.h"
#include "native/cache/inode_pool.h"
#include "native/cache/log.h"
#include "native/cache/page_map.h"
#include "native/fuse/file_io.h"

namespace penstock::cache {

using fuse::Timespec;

struct Attributes {
  uint64_t size = 0;   // bytes
  uint64_t pages = 0;  // allocated
  Timespec mtime;
  Timespec ctime;
};

// A publish under way: the file as it was when dirty became in flight.
struct InFlight {
  uint32_t generation = 0;
  Attributes attributes;
  uint64_t base_limit = kNoLimit;
  uint64_t store_limit = 0;
  bool cut = false;  // a page of it was truncated or punched since: what is staged may not be the user's
};

// Present while anything of the file is not published.
struct Unpublished {
  uint64_t order = 0;               // place among the dirty files, oldest first
  uint64_t since_ms = 0;            // monotonic
  uint64_t base_limit = kNoLimit;   // pages: lowest size cut to since the last publish
  uint64_t store_limit = kNoLimit;  // pages: the store has none at or beyond
  uint64_t base_pages = 0;          // allocated pages as last published
  uint64_t dirty = 0;               // pages, holes included
  uint64_t dirty_data = 0;          // pages
  uint64_t in_flight_pages = 0;
  bool attributes_dirty = false;
  std::optional<InFlight> in_flight;
};

// Opened when first needed, by readers too, hence a lock of its own; closed only under the exclusive one.
struct SparseFile {
  explicit SparseFile(uint64_t file_id) : id(file_id) {}
  const uint64_t id;  // part of its name: a file dropped and cached again is another one
  std::mutex mutex;
  std::shared_ptr<File> owner;
  std::atomic<File*> opened{nullptr};
  std::atomic<bool> name_durable{false};
  uint64_t gone_lsn = 0;  // the newest record that made some of its pages not count
  // The log says of the file what an error kept from being done to it. Nobody reads it before the next
  // recovery has done it.
  bool torn = false;
  // A sync failed, and what it lost no later one can tell: nothing more of the file is promised until all of
  // it is published.
  bool sync_failed = false;
  // The kernel reads it itself (open_backing), and may have it mapped long after its last handle closed.
  bool lent = false;
};

// Sums over all files.
struct Totals {
  std::atomic<int64_t> files{0};
  std::atomic<int64_t> dirty_files{0};
  std::atomic<int64_t> dirty_pages{0};  // present: bytes to upload
  std::atomic<int64_t> in_flight_pages{0};
  std::atomic<int64_t> valid_pages{0};
  std::atomic<int64_t> sparse_files{0};
  std::atomic<int64_t> dirty_sparse_files{0};  // each has an open descriptor (cache_state.cc)
};

// What all inodes of one cache share.
struct Books {
  Totals totals;
  Log* log = nullptr;
};

class Inode {
 public:
  // Made by the table alone, in its pool: an inode finds the books by its own address.
  explicit Inode(uint64_t ino);
  ~Inode();
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;

  const uint64_t ino;
  Inode* next = nullptr;  // in its bucket of the table
  Attributes attributes;
  uint64_t version = 0;   // as last published
  uint64_t base_lsn = 0;  // its newest state record; 0: none, the log knows nothing of it
  std::unique_ptr<Unpublished> unpublished;
  std::unique_ptr<SparseFile> sparse;
  [[no_unique_address]] PageMap map;  // its last bytes are padding, which the next fields use
  uint16_t pins = 0;
  uint32_t generation = 0;

  bool is_dirty() const { return unpublished != nullptr; }
  bool in_flight() const { return unpublished != nullptr && unpublished->in_flight.has_value(); }
  uint64_t store_limit() const { return unpublished ? unpublished->store_limit : pages_of(attributes.size); }
  bool known(uint64_t page) const {
    return all_known || page >= store_limit() || map.chunk_known(page / kPagesPerChunk);
  }
  // Page grants this file holds: what its publishes will add to the volume's use.
  uint64_t charge() const { return charge_with(attributes.pages); }
  uint64_t charge_with(uint64_t pages) const;

  // Of a page of a small file.
  Location location(uint64_t page) const {
    if (page == 0) return first_location_;
    return locations_ == nullptr ? kNowhere : (*locations_)[page - 1];
  }
  void set_location(uint64_t page, Location location);

  // How records change the file. `images`: places of the pages, for a small file.
  void apply_attributes(const Attributes& now);
  void apply_intent(uint64_t first, uint64_t count);
  void apply_write(uint64_t first, uint64_t count, std::span<const Location> images);
  void apply_fill(uint64_t first, uint64_t count, std::span<const Location> images);
  void apply_holes(uint64_t first, uint64_t count);
  void apply_zeros(uint64_t first, uint64_t count);
  void apply_limit(uint64_t page);
  void apply_begin(uint32_t publish_generation);
  void apply_complete(uint32_t publish_generation, uint64_t new_version);
  void apply_abort(uint32_t publish_generation);
  void apply_drop(uint64_t first, uint64_t count);
  // Turns a small file into one that can have a sparse file; its locations are forgotten.
  void grow_beyond_small();
  // Makes room for what is not published, if there is none yet. Before any change of size or pages.
  Unpublished& dirty();
  // Frees it when everything is published.
  void settle();
  void update(uint64_t first, uint64_t count, uint8_t set, uint8_t clear);

 private:
  Totals& totals() const { return InodePool::books_of(this).totals; }
  void count_dirty(int64_t change);
  Log& log() const { return *InodePool::books_of(this).log; }

  std::unique_ptr<std::array<Location, kSmallPages - 1>> locations_;  // of page 1 and on
  Location first_location_ = kNowhere;

 public:
  bool attached : 1 = false;
  bool closed : 1 = false;       // attached, and its last handle closed while it was dirty
  bool all_known : 1 = false;    // no page of it is in the store but those with their present bit set
  bool has_barrier : 1 = false;  // some of its data was promised durable
  bool condemned : 1 = false;    // unlinked: never published
  mutable std::atomic<bool> referenced{false};  // second chance, for small files
};

inline constexpr std::size_t kInodeBytes = 120;
static_assert(sizeof(Inode) <= kInodeBytes);

uint64_t monotonic_ms();

}  // namespace penstock::cache

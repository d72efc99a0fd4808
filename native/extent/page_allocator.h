// Which pages of an extent are free. A bit per page, and above it two summaries that make a search touch a
// few words whatever the extent's size or age:
//
//   pages   1 bit a page          word = 64 pages
//   any     1 bit a word: some page of it is free       superword = 64 words = 4096 pages = 16 MiB
//   whole   1 bit a word: all pages of it are free      above it, 1 bit a superword word: 1 GiB a word
//
// A batch takes whole words first, then one word that holds the rest in one run (a bounded number of probes),
// then whatever fragments come next after the cursor. The worst case is one pass over the fragments it
// returns plus one bit per superword of the extent. Not thread-safe: the store's state lock guards it.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock::extent {

struct PageRun {
  uint32_t page = 0;   // first page
  uint32_t count = 0;  // pages, at least 1

  friend bool operator==(const PageRun&, const PageRun&) = default;
};

// A bitmap with one bit per 64 of its bits above it: `next` skips empty stretches 4096 bits at a time.
class SummarizedBits {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  void resize(uint32_t bits);
  void set(uint32_t bit);
  void clear(uint32_t bit);
  // The first set bit at or after `from`, or kNone.
  uint32_t next(uint32_t from) const;

 private:
  std::vector<uint64_t> low_;
  std::vector<uint64_t> high_;
};

class PageAllocator {
 public:
  // Adds free pages at the end; at most UINT32_MAX - 64 pages in all.
  void grow(uint32_t pages_total);
  // Takes exactly `count` pages, appended to `out` as maximal runs in the order they were found; false and
  // nothing taken when fewer are free.
  bool allocate(uint32_t count, std::vector<PageRun>& out);
  // Takes these very pages (recovery). All of them must be free.
  void take(PageRun run);
  // Every page of the run must be taken.
  void free(PageRun run);

  bool is_free(uint32_t page) const { return (words_[page / 64] >> (page % 64) & 1) != 0; }
  uint32_t pages() const { return pages_; }
  uint32_t free_pages() const { return free_pages_; }

 private:
  static constexpr int kProbesMax = 8;

  void update(uint32_t word, uint64_t value);
  uint32_t next_from_cursor(const SummarizedBits& bits) const;
  uint32_t take_whole_words(uint32_t count, std::vector<PageRun>& out);
  bool take_one_run(uint32_t count, std::vector<PageRun>& out);
  void take_fragments(uint32_t count, std::vector<PageRun>& out);

  std::vector<uint64_t> words_;  // bit set: free
  SummarizedBits any_;
  SummarizedBits whole_;
  uint32_t pages_ = 0;
  uint32_t free_pages_ = 0;
  uint32_t cursor_ = 0;  // word where the next search begins
};

}  // namespace penstock::extent

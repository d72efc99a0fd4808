#include "native/extent/page_allocator.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace penstock::extent {
namespace {

constexpr uint64_t kAll = ~uint64_t{0};

// `count` ones from bit `start`; count in 1..64.
uint64_t mask_of(uint32_t start, uint32_t count) {
  return (count == 64 ? kAll : (uint64_t{1} << count) - 1) << start;
}

void append(std::vector<PageRun>& out, uint32_t page, uint32_t count) {
  if (!out.empty() && out.back().page + out.back().count == page) {
    out.back().count += count;
  } else {
    out.push_back({page, count});
  }
}

// Where `count` consecutive ones begin in `word`, or 64. After the loop bit i of `starts` says that
// i..i+count-1 are all set: each round doubles the length known to be set.
uint32_t find_run(uint64_t word, uint32_t count) {
  uint64_t starts = word;
  uint32_t known = 1;
  while (known < count) {
    const uint32_t step = std::min(known, count - known);
    starts &= starts >> step;
    known += step;
  }
  return starts == 0 ? 64 : static_cast<uint32_t>(std::countr_zero(starts));
}

}  // namespace

void SummarizedBits::resize(uint32_t bits) {
  low_.resize((bits + 63) / 64);
  high_.resize((low_.size() + 63) / 64);
}

void SummarizedBits::set(uint32_t bit) {
  low_[bit / 64] |= uint64_t{1} << (bit % 64);
  high_[bit / 4096] |= uint64_t{1} << (bit / 64 % 64);
}

void SummarizedBits::clear(uint32_t bit) {
  uint64_t& word = low_[bit / 64];
  word &= ~(uint64_t{1} << (bit % 64));
  if (word == 0) high_[bit / 4096] &= ~(uint64_t{1} << (bit / 64 % 64));
}

uint32_t SummarizedBits::next(uint32_t from) const {
  uint32_t index = from / 64;
  if (index >= low_.size()) return kNone;
  const uint64_t here = low_[index] & (kAll << (from % 64));
  if (here != 0) return index * 64 + static_cast<uint32_t>(std::countr_zero(here));
  index++;
  uint32_t above = index / 64;
  if (above >= high_.size()) return kNone;
  uint64_t candidates = high_[above] & (kAll << (index % 64));
  while (candidates == 0) {
    if (++above == high_.size()) return kNone;
    candidates = high_[above];
  }
  index = above * 64 + static_cast<uint32_t>(std::countr_zero(candidates));
  return index * 64 + static_cast<uint32_t>(std::countr_zero(low_[index]));
}

void PageAllocator::grow(uint32_t pages_total) {
  assert(pages_total >= pages_ && pages_total <= UINT32_MAX - 64);
  const uint32_t words = (pages_total + 63) / 64;
  words_.resize(words);
  any_.resize(words);
  whole_.resize(words);
  const uint32_t added_from = pages_;
  pages_ = pages_total;
  if (pages_total > added_from) free({added_from, pages_total - added_from});
}

void PageAllocator::update(uint32_t word, uint64_t value) {
  const uint64_t before = words_[word];
  words_[word] = value;
  if ((before == 0) != (value == 0)) value == 0 ? any_.clear(word) : any_.set(word);
  if ((before == kAll) != (value == kAll)) value == kAll ? whole_.set(word) : whole_.clear(word);
}

uint32_t PageAllocator::next_from_cursor(const SummarizedBits& bits) const {
  const uint32_t ahead = bits.next(cursor_);
  return ahead != SummarizedBits::kNone ? ahead : bits.next(0);
}

bool PageAllocator::allocate(uint32_t count, std::vector<PageRun>& out) {
  assert(count > 0);
  if (count > free_pages_) return false;
  free_pages_ -= count;
  uint32_t left = count - take_whole_words(count, out);
  if (left > 1 && left < 64 && take_one_run(left, out)) left = 0;
  if (left > 0) take_fragments(left, out);
  return true;
}

uint32_t PageAllocator::take_whole_words(uint32_t count, std::vector<PageRun>& out) {
  uint32_t taken = 0;
  while (count - taken >= 64) {
    const uint32_t word = next_from_cursor(whole_);
    if (word == SummarizedBits::kNone) break;
    update(word, 0);
    append(out, word * 64, 64);
    taken += 64;
    cursor_ = word + 1;
  }
  return taken;
}

bool PageAllocator::take_one_run(uint32_t count, std::vector<PageRun>& out) {
  uint32_t word = next_from_cursor(any_);
  for (int probe = 0; probe < kProbesMax && word != SummarizedBits::kNone; probe++) {
    uint32_t start = find_run(words_[word], count);
    if (start == 64 && probe + 1 == kProbesMax) {
      word = next_from_cursor(whole_);
      if (word == SummarizedBits::kNone) return false;
      start = 0;
    }
    if (start < 64) {
      update(word, words_[word] & ~mask_of(start, count));
      append(out, word * 64 + start, count);
      cursor_ = word;
      return true;
    }
    word = any_.next(word + 1);
  }
  return false;
}

void PageAllocator::take_fragments(uint32_t count, std::vector<PageRun>& out) {
  while (count > 0) {
    const uint32_t word = next_from_cursor(any_);
    assert(word != SummarizedBits::kNone);
    uint64_t bits = words_[word];
    while (bits != 0 && count > 0) {
      const auto start = static_cast<uint32_t>(std::countr_zero(bits));
      const uint32_t length = std::min(count, static_cast<uint32_t>(std::countr_one(bits >> start)));
      bits &= ~mask_of(start, length);
      append(out, word * 64 + start, length);
      count -= length;
    }
    update(word, bits);
    cursor_ = word;
  }
}

void PageAllocator::take(PageRun run) {
  assert(run.page + run.count <= pages_);
  free_pages_ -= run.count;
  for (uint32_t page = run.page, end = run.page + run.count; page < end;) {
    const uint32_t length = std::min(64 - page % 64, end - page);
    const uint64_t mask = mask_of(page % 64, length);
    assert((words_[page / 64] & mask) == mask);
    update(page / 64, words_[page / 64] & ~mask);
    page += length;
  }
}

void PageAllocator::free(PageRun run) {
  assert(run.page + run.count <= pages_);
  free_pages_ += run.count;
  for (uint32_t page = run.page, end = run.page + run.count; page < end;) {
    const uint32_t length = std::min(64 - page % 64, end - page);
    const uint64_t mask = mask_of(page % 64, length);
    assert((words_[page / 64] & mask) == 0);
    update(page / 64, words_[page / 64] | mask);
    page += length;
  }
}

}  // namespace penstock::extent

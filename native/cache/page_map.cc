#include "native/cache/page_map.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <iterator>
#include <new>

namespace penstock::cache {
namespace {

constexpr uint64_t kWordsPerChunk = kPagesPerChunk / 64;
constexpr uint64_t kAll = ~uint64_t{0};

uint64_t low_bits(uint64_t count) {
  return count >= 64 ? kAll : (uint64_t{1} << count) - 1;
}

int64_t ones(uint64_t word) {
  return std::popcount(word);
}

// Applies set and clear under `mask` to the four words of one column; counts what changed.
template <typename Word>
void update_column(std::array<Word*, 4> words, uint64_t mask, uint8_t set, uint8_t clear, PageCounts& delta) {
  const auto count = [&](int64_t sign) {
    delta.present += sign * ones(*words[0]);
    delta.valid += sign * ones(*words[1]);
    delta.dirty += sign * ones(*words[2]);
    delta.in_flight += sign * ones(*words[3]);
    delta.dirty_data += sign * ones(*words[0] & *words[2]);
  };
  count(-1);
  for (unsigned bit = 0; bit < 4; ++bit) {
    if ((clear >> bit & 1) != 0) *words[bit] = static_cast<Word>(*words[bit] & ~mask);
    if ((set >> bit & 1) != 0) *words[bit] = static_cast<Word>(*words[bit] | mask);
  }
  count(1);
}

}  // namespace

void PageMap::grow_beyond_small() {
  if (!is_small()) return;
  const std::array<uint16_t, 4> words = small_;
  ::new (&chunks_) std::unique_ptr<Chunks>(std::make_unique<Chunks>());
  is_small_ = false;
  const bool empty = std::all_of(words.begin(), words.end(), [](uint16_t word) { return word == 0; });
  if (empty && !small_known_) return;
  auto chunk = std::make_unique<Chunk>();
  for (unsigned bit = 0; bit < 4; ++bit) chunk->bits[bit][0] = words[bit];
  chunk->known = small_known_;
  chunks_->held.emplace(0, std::move(chunk));
}

const Chunk* PageMap::chunk(uint64_t index) const {
  if (is_small()) return nullptr;
  const auto found = chunks_->held.find(index);
  return found == chunks_->held.end() ? nullptr : found->second.get();
}

Chunk* PageMap::chunk(uint64_t index) {
  return const_cast<Chunk*>(static_cast<const PageMap*>(this)->chunk(index));
}

uint64_t PageMap::next_chunk(uint64_t index) const {
  if (is_small()) return index == 0 ? 0 : kNoLimit;
  const auto found = chunks_->held.lower_bound(index);
  return found == chunks_->held.end() ? kNoLimit : found->first;
}

uint8_t PageMap::at(uint64_t page) const {
  uint8_t bits = 0;
  if (is_small()) {
    if (page >= kSmallPages) return 0;
    for (unsigned bit = 0; bit < 4; ++bit)
      bits = static_cast<uint8_t>(bits | (small_[bit] >> page & 1) << bit);
    return bits;
  }
  const Chunk* owner = chunk(page / kPagesPerChunk);
  if (owner == nullptr) return 0;
  const uint64_t index = page % kPagesPerChunk;
  for (unsigned bit = 0; bit < 4; ++bit)
    bits = static_cast<uint8_t>(bits | (owner->bits[bit][index / 64] >> (index % 64) & 1) << bit);
  return bits;
}

uint64_t PageMap::match_word(uint64_t word_index, uint8_t mask, uint8_t want) const {
  const Chunk* owner = is_small() ? nullptr : chunk(word_index / kWordsPerChunk);
  uint64_t match = kAll;
  for (unsigned bit = 0; bit < 4; ++bit) {
    if ((mask >> bit & 1) == 0) continue;
    uint64_t word = 0;
    if (owner != nullptr)
      word = owner->bits[bit][word_index % kWordsPerChunk];
    else if (is_small() && word_index == 0)
      word = small_[bit];
    match &= (want >> bit & 1) != 0 ? word : ~word;
  }
  return match;
}

PageMap::Run PageMap::next_run(uint64_t first, uint64_t end, uint8_t mask, uint8_t want) const {
  Run run;
  uint64_t page = first;
  while (page < end) {
    const uint64_t chunk_index = page / kPagesPerChunk;
    if (!is_small() && chunk(chunk_index) == nullptr) {
      // A gap of absent chunks is one step, however wide.
      const uint64_t next = next_chunk(chunk_index);
      const uint64_t stop = next == kNoLimit ? end : std::min(end, next * kPagesPerChunk);
      if ((mask & want) == 0) {
        if (run.count == 0) run.first = page;
        run.count += stop - page;
      } else if (run.count > 0) {
        return run;
      }
      page = stop;
      continue;
    }
    const uint64_t bit = page % 64;
    const uint64_t width = std::min<uint64_t>(64 - bit, end - page);
    if (is_small() && page >= 64) {
      if ((mask & want) != 0) return run;
      if (run.count == 0) run.first = page;
      run.count += end - page;
      return run;
    }
    const uint64_t match = match_word(page / 64, mask, want) >> bit & low_bits(width);
    if (run.count > 0) {
      const uint64_t length = std::min<uint64_t>(static_cast<uint64_t>(std::countr_one(match)), width);
      run.count += length;
      if (length < width) return run;
      page += width;
      continue;
    }
    if (match == 0) {
      page += width;
      continue;
    }
    const auto skip = static_cast<uint64_t>(std::countr_zero(match));
    const uint64_t length =
        std::min<uint64_t>(static_cast<uint64_t>(std::countr_one(match >> skip)), width - skip);
    run = Run{page + skip, length};
    if (skip + length < width) return run;
    page += width;
  }
  return run;
}

uint64_t PageMap::count(uint64_t first, uint64_t end, uint8_t mask, uint8_t want) const {
  uint64_t total = 0;
  for_each_run(first, end, mask, want, [&](uint64_t, uint64_t count) { total += count; });
  return total;
}

uint64_t PageMap::present_end() const {
  if (is_small()) return static_cast<uint64_t>(std::bit_width(small_[0]));
  for (auto chunk_at = chunks_->held.rbegin(); chunk_at != chunks_->held.rend(); ++chunk_at) {
    const auto& words = chunk_at->second->bits[0];
    for (uint64_t word = kWordsPerChunk; word-- > 0;) {
      if (words[word] != 0)
        return chunk_at->first * kPagesPerChunk + word * 64 +
               static_cast<uint64_t>(std::bit_width(words[word]));
    }
  }
  return 0;
}

bool PageMap::all(uint64_t first, uint64_t count, uint8_t mask) const {
  const Run run = next_run(first, first + count, mask, mask);
  return run.count == count && (count == 0 || run.first == first);
}

void PageMap::update(uint64_t first, uint64_t count, uint8_t set, uint8_t clear, PageCounts& delta) {
  const uint64_t end = count > kNoLimit - first ? kNoLimit : first + count;
  if (is_small()) {
    if (first >= kSmallPages) {
      assert(set == 0);
      return;
    }
    assert(set == 0 || end <= kSmallPages);
    const uint64_t mask = low_bits(std::min(end, kSmallPages) - first) << first;
    update_column<uint16_t>({&small_[0], &small_[1], &small_[2], &small_[3]}, mask, set, clear, delta);
    return;
  }
  uint64_t page = first;
  while (page < end) {
    const uint64_t index = page / kPagesPerChunk;
    Chunk* owner = chunk(index);
    if (owner == nullptr && set == 0) {
      const uint64_t next = next_chunk(index);
      if (next == kNoLimit) return;
      page = next * kPagesPerChunk;
      continue;
    }
    if (owner == nullptr) owner = chunks_->held.emplace(index, std::make_unique<Chunk>()).first->second.get();
    const uint64_t within = page % kPagesPerChunk;
    const uint64_t width = std::min<uint64_t>(64 - within % 64, end - page);
    auto& bits = owner->bits;
    const uint64_t word = within / 64;
    update_column<uint64_t>({&bits[0][word], &bits[1][word], &bits[2][word], &bits[3][word]},
                            low_bits(width) << within % 64, set, clear, delta);
    page += width;
  }
}

bool PageMap::chunk_known(uint64_t index) const {
  if (is_small()) return index == 0 && small_known_;
  const Chunk* owner = chunk(index);
  if (owner != nullptr && owner->known) return true;
  const auto after = chunks_->known.upper_bound(index);
  return after != chunks_->known.begin() && std::prev(after)->second > index;
}

void PageMap::set_chunks_known(uint64_t first, uint64_t end) {
  if (is_small()) {
    assert(first == 0);
    small_known_ = true;
    return;
  }
  if (Chunk* owner = chunk(first); owner != nullptr && end == first + 1) {
    owner->known = true;
    return;
  }
  auto& known = chunks_->known;
  auto next = known.upper_bound(first);
  if (next != known.begin() && std::prev(next)->second >= first) {
    --next;
    first = next->first;
  }
  while (next != known.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = known.erase(next);
  }
  known.emplace_hint(next, first, end);
}

uint64_t PageMap::same_until(uint64_t index) const {
  if (is_small()) return index == 0 ? 1 : kNoLimit;
  const auto after = chunks_->known.upper_bound(index);
  if (after != chunks_->known.begin() && std::prev(after)->second > index) return std::prev(after)->second;
  const uint64_t next_known = after == chunks_->known.end() ? kNoLimit : after->first;
  return chunk(index) != nullptr ? index + 1 : std::min(next_known, next_chunk(index));
}

void PageMap::touch(uint64_t page) const {
  const Chunk* owner = chunk(page / kPagesPerChunk);
  // Tested first: readers of one chunk should not pass its cache line around.
  if (owner != nullptr && !owner->referenced.load(std::memory_order_relaxed))
    owner->referenced.store(true, std::memory_order_relaxed);
}

}  // namespace penstock::cache

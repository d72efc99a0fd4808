// Reading and writing: what FUSE workers call for every request.
#include <time.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "native/base/crc32c.h"
#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {

Timespec Cache::now() {
  timespec clock{};
  clock_gettime(CLOCK_REALTIME_COARSE, &clock);
  return {clock.tv_sec, static_cast<uint32_t>(clock.tv_nsec)};
}

std::optional<IoOutcome> Cache::map_need(const Inode& node, uint64_t first, uint64_t end) const {
  if (node.all_known) return std::nullopt;
  end = std::min(end, node.store_limit());
  const auto is_open = [&](uint64_t chunk) {
    if (node.map.chunk_known(chunk)) return false;
    const uint64_t from = std::max(first, chunk * kPagesPerChunk);
    const uint64_t to = std::min(end, (chunk + 1) * kPagesPerChunk);
    return !node.map.all(from, to - from, kPresent | kValid);
  };
  // Many chunks at a step where they are alike: a file may have millions of them and nothing in them.
  const uint64_t chunks_end = (end + kPagesPerChunk - 1) / kPagesPerChunk;
  for (uint64_t chunk = first / kPagesPerChunk; chunk < chunks_end; chunk = node.map.same_until(chunk)) {
    if (!is_open(chunk)) continue;
    uint64_t stop = std::min(chunks_end, node.map.same_until(chunk));
    while (stop < chunks_end && is_open(stop)) stop = std::min(chunks_end, node.map.same_until(stop));
    constexpr uint64_t kChunkBytes = kPagesPerChunk * kPageSize;
    return counted(counters_.need_map, {.status = IoStatus::need_map,
                                        .need_offset = chunk * kChunkBytes,
                                        .need_length = (stop - chunk) * kChunkBytes});
  }
  return std::nullopt;
}

IoOutcome Cache::fetch_need(uint64_t first, uint64_t count) const {
  return counted(
      counters_.need_fetch,
      {.status = IoStatus::need_fetch, .need_offset = first * kPageSize, .need_length = count * kPageSize});
}

Result<void> Cache::read_page(const Inode& node, uint64_t page, std::span<std::byte> out) const {
  if (node.sparse) {
    Result<File*> file = sparse_file(node);
    if (!file) return file.error();
    Result<std::size_t> got = (*file)->read(page * kPageSize, out);
    if (!got) return got.error();
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(*got), out.end(), std::byte{0});
    return {};
  }
  const Location location = node.location(page);
  if (location == kZeros) {
    std::fill(out.begin(), out.end(), std::byte{0});
    return {};
  }
  assert(location != kNowhere);
  return log_->read_image(location, out);
}

// Valid pages only. Sparse: one read; small: one for each page.
Result<void> Cache::read_bytes(const Inode& node, uint64_t offset, std::span<std::byte> out) const {
  if (node.sparse) {
    Result<File*> file = sparse_file(node);
    if (!file) return file.error();
    Result<std::size_t> got = (*file)->read(offset, out);
    if (!got) return got.error();
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(*got), out.end(), std::byte{0});
    return {};
  }
  std::array<std::byte, kPageSize> page;
  while (!out.empty()) {
    const std::size_t skip = offset % kPageSize;
    const std::size_t length = std::min(out.size(), kPageSize - skip);
    if (auto done = read_page(node, offset / kPageSize, page); !done) return done;
    std::memcpy(out.data(), page.data() + skip, length);
    out = out.subspan(length);
    offset += length;
  }
  return {};
}

IoOutcome Cache::read(uint64_t ino, uint64_t offset, std::span<std::byte> out) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  const IoOutcome outcome = read_once(ino, offset, out);
  if (outcome.status != IoStatus::error || !is_lost()) return outcome;
  {
    const Changing node(*table_, ino);
    if (!node || !let_go(*node)) return outcome;
  }
  return read_once(ino, offset, out);
}

IoOutcome Cache::read_once(uint64_t ino, uint64_t offset, std::span<std::byte> out) {
  IoOutcome outcome;
  uint64_t damaged = kNoLimit;
  {
    const Reading node(*table_, ino);
    if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
    outcome = read_locked(*node, offset, out, damaged);
  }
  return damaged == kNoLimit ? outcome : discard_damaged(ino, damaged);
}

IoOutcome Cache::read_locked(const Inode& node, uint64_t offset, std::span<std::byte> out,
                             uint64_t& damaged) const {
  counters_.reads.fetch_add(1, std::memory_order_relaxed);
  const uint64_t size = node.attributes.size;
  if (offset >= size || out.empty()) return {};
  out = out.first(std::min<uint64_t>(out.size(), size - offset));
  const uint64_t end_offset = offset + out.size();
  const uint64_t first = offset / kPageSize;
  const uint64_t end = pages_of(end_offset);
  // Most reads find everything here.
  if (!node.map.all(first, end - first, kPresent | kValid)) {
    if (auto need = map_need(node, first, end)) return *need;
    const PageRun missing = node.map.next_run(first, end, kPresent | kValid, kPresent);
    if (missing.count > 0) return fetch_need(missing.first, missing.count);
  }
  node.map.touch(first);
  if (!node.referenced.load(std::memory_order_relaxed))
    node.referenced.store(true, std::memory_order_relaxed);
  for (uint64_t at = offset; at < end_offset;) {
    const uint64_t page = at / kPageSize;
    const uint8_t present = node.map.at(page) & kPresent;
    const PageRun run = node.map.next_run(page, end, kPresent, present);
    const uint64_t stop = std::min(end_offset, (run.first + run.count) * kPageSize);
    const auto piece = out.subspan(at - offset, stop - at);
    if (present == 0) {
      std::memset(piece.data(), 0, piece.size());
    } else if (Result<void> done = read_bytes(node, at, piece); !done) {
      if (done.error().code == EBADMSG) damaged = page;
      return counted(counters_.errors, disk_failed(done.error().code));
    }
    at = stop;
  }
  counters_.read_bytes.fetch_add(out.size(), std::memory_order_relaxed);
  return {.bytes = out.size()};
}

// From the sparse file itself, while the lock keeps its pages from being written, cut and punched. What is
// not wholly there, or cannot be read, is `read`'s to tell.
std::optional<uint64_t> Cache::send(uint64_t ino, uint64_t offset, std::size_t length,
                                    fuse::FileRangeSink& sink) {
  if (closed_.load(std::memory_order_relaxed)) return std::nullopt;
  const Reading node(*table_, ino);
  if (!node || !node->attached || !node->sparse) return std::nullopt;
  const uint64_t size = node->attributes.size;
  if (offset >= size || length == 0) return std::nullopt;
  length = std::min<uint64_t>(length, size - offset);
  const uint64_t first = offset / kPageSize;
  if (!node->map.all(first, pages_of(offset + length) - first, kPresent | kValid)) return std::nullopt;
  const Result<File*> file = sparse_file(*node);
  if (!file || (*file)->descriptor() < 0) return std::nullopt;
  if (!sink.send((*file)->descriptor(), offset, length)) return std::nullopt;
  counters_.reads.fetch_add(1, std::memory_order_relaxed);
  counters_.read_bytes.fetch_add(length, std::memory_order_relaxed);
  node->map.touch(first);
  return length;
}

// A cached page whose checksum fails is fetched again if the store has it, and an error if only we do.
IoOutcome Cache::discard_damaged(uint64_t ino, uint64_t first) {
  const Changing node(*table_, ino);
  if (!node) return {.status = IoStatus::need_attach};
  std::array<std::byte, kPageSize> bytes;
  for (uint64_t page = first; page < kSmallPages; ++page) {
    if ((node->map.at(page) & kValid) == 0 || node->sparse) continue;
    const Result<void> read = read_page(*node, page, bytes);
    if (read || read.error().code != EBADMSG) continue;
    counters_.damaged_pages.fetch_add(1, std::memory_order_relaxed);
    if ((node->map.at(page) & (kDirty | kInFlight)) != 0) return counted(counters_.errors, failed(EIO));
    if (auto dropped = drop_pages(*node, page, 1); !dropped) return failed(dropped.error().code);
    return fetch_need(page, 1);
  }
  return fetch_need(first, 1);
}

IoOutcome Cache::write(uint64_t ino, uint64_t offset, std::span<const std::byte> data) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  if (lost_.load(std::memory_order_relaxed)) return counted(counters_.errors, failed(EIO));
  if (offset > file_bytes_max_ || data.size() > file_bytes_max_ - offset) return failed(EFBIG);
  const Changing node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  if (data.empty()) return {};
  const auto waiting = static_cast<uint64_t>(
      std::max<int64_t>(0, totals_.dirty_pages.load(std::memory_order_relaxed) +
                               totals_.in_flight_pages.load(std::memory_order_relaxed)));
  if (waiting > 0 && waiting * kPageSize + data.size() > options_.dirty_budget_bytes &&
      !node->map.all(offset / kPageSize, pages_of(offset + data.size()) - offset / kPageSize, kDirty)) {
    return counted(counters_.need_clean,
                   {.status = IoStatus::need_clean, .need_offset = offset, .need_length = data.size()});
  }
  if (descriptors_taken(*node, pages_of(offset + data.size()))) {
    return counted(counters_.need_clean,
                   {.status = IoStatus::need_clean, .need_offset = offset, .need_length = data.size()});
  }
  IoOutcome outcome = write_locked(*node, offset, data);
  if (outcome.status == IoStatus::error) counters_.errors.fetch_add(1, std::memory_order_relaxed);
  return outcome;
}

// The page as it will be with [from, to) replaced; what the page lacks is reported.
std::optional<IoOutcome> Cache::edge(const Inode& node, uint64_t page, std::size_t from, std::size_t to,
                                     std::span<const std::byte> bytes, std::span<std::byte> out) const {
  const uint64_t page_offset = page * kPageSize;
  const uint64_t size = node.attributes.size;
  const std::size_t existing = size > page_offset ? std::min<uint64_t>(kPageSize, size - page_offset) : 0;
  const uint8_t bits = node.map.at(page);
  if (existing == 0 || (from == 0 && to >= existing) || (bits & kPresent) == 0) {
    std::fill(out.begin(), out.end(), std::byte{0});
  } else if ((bits & kValid) == 0) {
    return fetch_need(page, 1);
  } else if (Result<void> read = read_page(node, page, out); !read) {
    return disk_failed(read.error().code);
  }
  if (bytes.empty())
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(from), out.begin() + static_cast<std::ptrdiff_t>(to),
              std::byte{0});
  else
    std::memcpy(out.data() + from, bytes.data(), bytes.size());
  return std::nullopt;
}

IoOutcome Cache::write_locked(Inode& node, uint64_t offset, std::span<const std::byte> data) {
  const uint64_t end_offset = offset + data.size();
  const uint64_t first = offset / kPageSize;
  const uint64_t end = pages_of(end_offset);
  if (auto need = map_need(node, first, end)) return *need;

  // Whole pages: up to two are put together here, the rest are the caller's bytes.
  std::array<std::byte, kPageSize> head;
  std::array<std::byte, kPageSize> tail;
  const std::size_t head_from = offset % kPageSize;
  const std::size_t tail_to = end_offset % kPageSize;
  const bool one_page = end - first == 1;
  const bool has_head = head_from != 0 || (one_page && tail_to != 0);
  const bool has_tail = !one_page && tail_to != 0;
  std::span<const std::byte> middle = data;
  if (has_head) {
    const std::size_t length = std::min(data.size(), kPageSize - head_from);
    if (auto need = edge(node, first, head_from, head_from + length, data.first(length), head)) return *need;
    middle = middle.subspan(length);
  }
  if (has_tail) {
    if (auto need = edge(node, end - 1, 0, tail_to, data.last(tail_to), tail)) return *need;
    middle = middle.first(middle.size() - tail_to);
  }

  Mutation mutation(*this, node);
  Attributes after = node.attributes;
  after.size = std::max(after.size, end_offset);
  after.pages += node.map.count(first, end, kPresent, 0);
  after.mtime = after.ctime = now();
  if (!mutation.reserve(after.pages)) {
    return counted(counters_.need_grant, {.status = IoStatus::need_grant,
                                          .need_offset = offset,
                                          .need_length = (after.pages - node.attributes.pages) * kPageSize});
  }
  if (!node.sparse &&
      (pages_of(after.size) > kSmallPages || end > kSmallPages || !options_.small_files_in_log)) {
    if (auto made = ensure_sparse(node); !made) return disk_failed(made.error().code);
  }
  std::array<Piece, 3> pieces;
  std::size_t count = 0;
  if (has_head) pieces[count++] = {first, head};
  if (!middle.empty()) pieces[count++] = {first + (has_head ? 1 : 0), middle};
  if (has_tail) pieces[count++] = {end - 1, tail};
  const Result<void> stored = store_pages(node, first, end - first, std::span(pieces).first(count), &after);
  if (!stored) return disk_failed(stored.error().code);
  counters_.writes.fetch_add(1, std::memory_order_relaxed);
  counters_.write_bytes.fetch_add(data.size(), std::memory_order_relaxed);
  return {.bytes = data.size()};
}

// Data, then its record. `after`: the attributes of a write; null for a fill, which changes none.
Result<void> Cache::store_pages(Inode& node, uint64_t first, uint64_t count, std::span<const Piece> pieces,
                                const Attributes* after) {
  if (auto relieved = log_->relieve(); !relieved) return relieved;
  if (node.base_lsn == 0) {
    if (auto stated = append_state(node, false); !stated) return stated;
  }
  thread_local std::vector<PageImage> images;
  thread_local std::vector<uint32_t> sums;
  images.clear();
  sums.clear();
  const uint64_t size = after != nullptr ? after->size : node.attributes.size;
  if (node.sparse) {
    const bool to_intend =
        after != nullptr &&
        node.map.next_run(first, first + count, kPresent | kValid | kDirty, kPresent | kValid).count > 0;
    if (to_intend) {
      Result<Appended> intended = append(node, RecordKind::intent, raw(DiskRun{first, count}));
      if (!intended) return intended.error();
      counters_.intents.fetch_add(1, std::memory_order_relaxed);
      node.apply_intent(first, count);
    }
    Result<File*> file = sparse_file(node);
    if (!file) return file.error();
    for (const Piece& piece : pieces) {
      if (auto written = (*file)->write(piece.page * kPageSize, piece.bytes); !written) {
        static_cast<void>(clear_beyond_end(node));  // the write's own error is the one to report
        return written;
      }
      for (std::size_t at = 0; at < piece.bytes.size(); at += kPageSize)
        sums.push_back(crc32c(0, piece.bytes.subspan(at, kPageSize)));
    }
  } else {
    for (const Piece& piece : pieces) {
      for (std::size_t at = 0; at < piece.bytes.size(); at += kPageSize) {
        const uint64_t page_offset = (piece.page + at / kPageSize) * kPageSize;
        const std::size_t length = size > page_offset ? std::min<uint64_t>(kPageSize, size - page_offset) : 0;
        images.push_back(PageImage{piece.bytes.subspan(at, length)});
      }
    }
  }
  BodyWriter body;
  body.add(WriteBody{to_disk(after != nullptr ? *after : node.attributes), first});
  for (const uint32_t sum : sums) body.add(sum);
  const Result<Appended> appended = append(node, after != nullptr ? RecordKind::write : RecordKind::fill,
                                           body.bytes(), images, static_cast<uint16_t>(count));
  if (!appended) {
    if (node.sparse) static_cast<void>(clear_beyond_end(node));
    return appended.error();
  }
  if (after != nullptr) {
    node.apply_attributes(*after);
    node.apply_write(first, count, appended->images);
  } else {
    node.apply_fill(first, count, appended->images);
  }
  node.map.touch(first);
  return {};
}

std::optional<fuse::LocalAttributes> Cache::attributes(uint64_t ino) {
  const Reading node(*table_, ino);
  if (!node || !node->attached) return std::nullopt;
  const Attributes& held = node->attributes;
  return fuse::LocalAttributes{held.size, held.pages, held.mtime, held.ctime};
}

// One page at a time would be enough for consistency; the lock is held for the run since a run is one read.
Result<void> Cache::read_pages(uint64_t ino, uint64_t first_page, std::span<std::byte> out) {
  const Reading node(*table_, ino);
  if (!node) return Error{ESTALE, "inode " + std::to_string(ino) + " is not in the cache any more"};
  const uint64_t end = first_page + out.size() / kPageSize;
  for (uint64_t page = first_page; page < end;) {
    const uint8_t bits = node->map.at(page);
    const auto rest = out.subspan((page - first_page) * kPageSize);
    if ((bits & kPresent) == 0) {
      const PageRun run = node->map.next_run(page, end, kPresent, 0);
      std::memset(rest.data(), 0, run.count * kPageSize);
      page += run.count;
      continue;
    }
    if ((bits & kValid) == 0)
      return Error{ESTALE,
                   "page " + std::to_string(page) + " of inode " + std::to_string(ino) + " is not cached"};
    const PageRun run = node->map.next_run(page, end, kPresent | kValid, kPresent | kValid);
    if (auto read = read_bytes(*node, page * kPageSize, rest.first(run.count * kPageSize)); !read)
      return read;
    page += run.count;
  }
  return {};
}

Result<void> Cache::fill_pages(uint64_t ino, uint64_t first_page, std::span<const std::byte> pages) {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  Changing node(*table_, ino);
  if (!node) return {};
  counters_.fills.fetch_add(1, std::memory_order_relaxed);
  if (lost_.load(std::memory_order_relaxed)) {
    if (auto regained = regain(*node); !regained) return regained;
  }
  // Only pages that the store has and we lack: never dirty ones, never holes, never what was cut off.
  const uint64_t end = std::min(first_page + pages.size() / kPageSize, pages_of(node->attributes.size));
  for (uint64_t page = first_page; page < end;) {
    const PageRun run = node->map.next_run(page, end, kPresent | kValid | kDirty | kInFlight, kPresent);
    if (run.count == 0) break;
    // A record's checksums and images stay within its bound.
    const uint64_t count = std::min<uint64_t>(run.count, node->sparse ? 4096 : kSmallPages);
    if (!node->sparse && (pages_of(node->attributes.size) > kSmallPages || !options_.small_files_in_log)) {
      if (auto made = ensure_sparse(*node); !made) return made;
    }
    const std::array<Piece, 1> piece{
        Piece{run.first, pages.subspan((run.first - first_page) * kPageSize, count * kPageSize)}};
    if (auto stored = store_pages(*node, run.first, count, piece, nullptr); !stored) return stored;
    counters_.filled_pages.fetch_add(count, std::memory_order_relaxed);
    page = run.first + count;
  }
  return {};
}

}  // namespace penstock::cache

// Truncate, punch, zero, allocate, times: changes that are one record each, with the whole new image of every
// page they touch in part. The record is the truth; the sparse file follows it, and recovery repeats what it
// did not get to.
//
//   page:   |--- 7 ---|--- 8 ---|--- 9 ---|
//   zero:         [=================)
//            edge 7      run 8     edge 9
//
// fallocate's pages are present, dirty and zero, and cost a grant each: what was promised can be uploaded.
#include <algorithm>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr std::size_t kRunsPerRecord = 1024;

}  // namespace

std::optional<IoOutcome> Cache::plan_zeroing(const Inode& node, uint64_t from, uint64_t to,
                                             ChangeAction action, ChangePlan& plan) const {
  if (auto need = map_need(node, from / kPageSize, pages_of(to))) return need;
  const auto touch_part = [&](uint64_t page, std::size_t begin, std::size_t end) -> std::optional<IoOutcome> {
    if ((node.map.at(page) & kPresent) == 0) {
      if (action == ChangeAction::zeros) plan.runs.push_back({page, 1, action});
      return std::nullopt;
    }
    Edge made{page, {}};
    if (auto need = edge(node, page, begin, end, {}, made.bytes)) return need;
    plan.edges.push_back(made);
    return std::nullopt;
  };
  const uint64_t head = from / kPageSize;
  const uint64_t full_first = pages_of(from);
  const uint64_t full_end = to / kPageSize;
  if (from % kPageSize != 0) {
    const uint64_t stop = std::min<uint64_t>(kPageSize, to - head * kPageSize);
    if (auto need = touch_part(head, from % kPageSize, stop)) return need;
  }
  if (full_first < full_end) plan.runs.push_back({full_first, full_end - full_first, action});
  if (to % kPageSize != 0 && full_end >= full_first) {
    if (auto need = touch_part(full_end, 0, to % kPageSize)) return need;
  }
  return std::nullopt;
}

IoOutcome Cache::change(Inode& node, ChangePlan& plan) {
  uint64_t highest = pages_of(plan.attributes.size);
  for (const DiskChangeRun& run : plan.runs) {
    const uint64_t present = node.map.count(run.first, run.first + run.count, kPresent, kPresent);
    if (run.action == ChangeAction::hole) {
      plan.attributes.pages -= present;
    } else {
      plan.attributes.pages += run.count - present;
      highest = std::max(highest, run.first + run.count);
    }
  }
  Mutation mutation(*this, node);
  if (!mutation.reserve(plan.attributes.pages)) {
    return counted(counters_.need_grant,
                   {.status = IoStatus::need_grant,
                    .need_length = (plan.attributes.pages - node.attributes.pages) * kPageSize});
  }
  if (node.base_lsn == 0) {
    if (auto stated = append_state(node, false); !stated) return disk_failed(stated.error().code);
  }
  if (!node.sparse && (highest > kSmallPages || !options_.small_files_in_log)) {
    if (auto made = ensure_sparse(node); !made) return disk_failed(made.error().code);
  }
  std::vector<PageImage> images;
  BodyWriter body;
  body.add(ChangeBody{to_disk(plan.attributes), plan.limit, static_cast<uint32_t>(plan.edges.size()),
                      static_cast<uint32_t>(plan.runs.size())});
  bool in_doubt = false;
  for (const Edge& edge : plan.edges) {
    images.push_back(PageImage{edge.bytes});
    body.add(DiskPage{.page = edge.page});
    in_doubt = in_doubt || (node.has_barrier && (node.map.at(edge.page) & (kDirty | kInFlight)) != 0);
  }
  for (const DiskChangeRun& run : plan.runs) body.add(run);
  const Result<Appended> appended =
      append(node, RecordKind::change, body.bytes(), images, static_cast<uint16_t>(images.size()));
  if (!appended) return disk_failed(appended.error().code);

  const bool is_sparse = node.sparse != nullptr;
  node.apply_attributes(plan.attributes);
  for (std::size_t index = 0; index < plan.edges.size(); ++index) {
    const std::span<const Location> place =
        is_sparse ? std::span<const Location>{} : std::span(appended->images).subspan(index, 1);
    node.apply_write(plan.edges[index].page, 1, place);
  }
  for (const DiskChangeRun& run : plan.runs) {
    if (run.action == ChangeAction::hole)
      node.apply_holes(run.first, run.count);
    else
      node.apply_zeros(run.first, run.count);
  }
  if (plan.limit != kNoLimit) node.apply_limit(plan.limit);
  if (is_sparse) {
    if (auto done = apply_in_place(node, plan, appended->lsn, in_doubt); !done) {
      node.sparse->torn = true;
      return failed(EIO);
    }
  }
  return {};
}

// `in_doubt`: a page that is promised durable changes in part. Were its new image on disk and the record not,
// a power loss would leave zeros that no state of the file ever had at that size: the record goes first.
Result<void> Cache::apply_in_place(Inode& node, const ChangePlan& plan, uint64_t lsn, bool in_doubt) {
  if (in_doubt) {
    if (auto synced = log_->sync(lsn); !synced) return synced;
  }
  Result<File*> file = sparse_file(node);
  if (!file) return file.error();
  for (const Edge& edge : plan.edges) {
    if (auto written = write_or_zero(**file, edge.page * kPageSize, edge.bytes); !written) return written;
  }
  for (const DiskChangeRun& run : plan.runs) {
    if (run.action == ChangeAction::hole) {
      reclaim_later(node, lsn, run.first, run.count);
    } else if (auto zeroed = (*file)->zero(run.first * kPageSize, run.count * kPageSize); !zeroed) {
      return zeroed;
    }
  }
  if (plan.limit != kNoLimit) reclaim_later(node, lsn, plan.limit, kNoLimit);
  return {};
}

IoOutcome Cache::truncate(uint64_t ino, uint64_t size) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  if (lost_.load(std::memory_order_relaxed)) return counted(counters_.errors, failed(EIO));
  if (size > kFileBytesMax) return failed(EFBIG);
  const Changing node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  ChangePlan plan;
  plan.attributes = node->attributes;
  plan.attributes.size = size;
  plan.attributes.mtime = plan.attributes.ctime = now();
  if (size < node->attributes.size) {
    plan.limit = pages_of(size);
    if (size == 0) {
      plan.attributes.pages = 0;
    } else {
      // How many pages go must be known, for the file's use of the volume.
      if (auto need = map_need(*node, size / kPageSize, pages_of(node->attributes.size))) return *need;
      plan.attributes.pages -= node->map.count(plan.limit, kNoLimit, kPresent, kPresent);
      if (size % kPageSize != 0 && (node->map.at(size / kPageSize) & kPresent) != 0) {
        Edge tail{size / kPageSize, {}};
        if (auto need = edge(*node, tail.page, size % kPageSize, kPageSize, {}, tail.bytes)) return *need;
        plan.edges.push_back(tail);
      }
    }
  }
  return change(*node, plan);
}

IoOutcome Cache::punch(uint64_t ino, uint64_t offset, uint64_t length) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  if (lost_.load(std::memory_order_relaxed)) return counted(counters_.errors, failed(EIO));
  if (offset > kFileBytesMax || length > kFileBytesMax - offset) return failed(EFBIG);
  const Changing node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  uint64_t end = offset + length;
  // Beyond the end of file all is zero: the last page goes whole when all that it holds does.
  if (end >= node->attributes.size) end = std::max(end, pages_of(end) * kPageSize);
  if (end <= offset) return {};
  ChangePlan plan;
  plan.attributes = node->attributes;
  plan.attributes.mtime = plan.attributes.ctime = now();
  if (auto need = plan_zeroing(*node, offset, end, ChangeAction::hole, plan)) return *need;
  return change(*node, plan);
}

IoOutcome Cache::zero(uint64_t ino, uint64_t offset, uint64_t length, bool keep_size) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  if (lost_.load(std::memory_order_relaxed)) return counted(counters_.errors, failed(EIO));
  if (offset > file_bytes_max_ || length > file_bytes_max_ - offset) return failed(EFBIG);
  const Changing node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  if (length == 0) return {};
  ChangePlan plan;
  plan.attributes = node->attributes;
  plan.attributes.mtime = plan.attributes.ctime = now();
  if (!keep_size) plan.attributes.size = std::max(plan.attributes.size, offset + length);
  if (auto need = plan_zeroing(*node, offset, offset + length, ChangeAction::zeros, plan)) return *need;
  return change(*node, plan);
}

IoOutcome Cache::allocate(uint64_t ino, uint64_t offset, uint64_t length, bool keep_size) {
  if (closed_.load(std::memory_order_relaxed)) return failed(EBADF);
  if (lost_.load(std::memory_order_relaxed)) return counted(counters_.errors, failed(EIO));
  if (offset > file_bytes_max_ || length > file_bytes_max_ - offset) return failed(EFBIG);
  const Changing node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  const uint64_t end = pages_of(offset + length);
  if (auto need = map_need(*node, offset / kPageSize, end)) return *need;
  for (uint64_t page = offset / kPageSize;;) {
    ChangePlan plan;
    plan.attributes = node->attributes;
    plan.attributes.mtime = plan.attributes.ctime = now();
    while (page < end && plan.runs.size() < kRunsPerRecord) {
      const PageRun hole = node->map.next_run(page, end, kPresent, 0);
      page = hole.count == 0 ? end : hole.first + hole.count;
      if (hole.count > 0) plan.runs.push_back({hole.first, hole.count, ChangeAction::zeros});
    }
    const bool last = page >= end;
    if (last && !keep_size) plan.attributes.size = std::max(plan.attributes.size, offset + length);
    const IoOutcome outcome = change(*node, plan);
    if (last || outcome.status != IoStatus::done) return outcome;
  }
}

IoOutcome Cache::seek(uint64_t ino, uint64_t offset, SeekKind kind) {
  const Reading node(*table_, ino);
  if (!node || !node->attached) return counted(counters_.need_attach, {.status = IoStatus::need_attach});
  const uint64_t size = node->attributes.size;
  if (offset >= size) return failed(ENXIO);
  const uint64_t first = offset / kPageSize;
  const auto need = map_need(*node, first, pages_of(size));
  const uint64_t known_end = need ? std::max(first, need->need_offset / kPageSize) : pages_of(size);
  const PageRun run = node->map.next_run(first, known_end, kPresent, kind == SeekKind::data ? kPresent : 0);
  if (run.count > 0 && run.first * kPageSize < size)
    return {.need_offset = std::max(offset, run.first * kPageSize)};
  if (need) return *need;
  if (kind == SeekKind::data) return failed(ENXIO);
  return {.need_offset = size};
}

Result<void> Cache::set_times(uint64_t ino, const Times& times) {
  const Changing node(*table_, ino);
  if (!node || !node->attached) return {};
  ChangePlan plan;
  plan.attributes = node->attributes;
  if (times.mtime) plan.attributes.mtime = *times.mtime;
  if (times.ctime) plan.attributes.ctime = *times.ctime;
  const IoOutcome outcome = change(*node, plan);
  if (outcome.status == IoStatus::done) return {};
  const int code = outcome.status == IoStatus::error ? outcome.error : ENOSPC;
  return Error::from_errno(code, "times of inode " + std::to_string(ino));
}

}  // namespace penstock::cache

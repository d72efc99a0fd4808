#include "native/fuse/data_path.h"

#include <sys/mman.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace penstock::fuse {

namespace {

DataNeedPayload need_of(const IoOutcome& outcome) {
  DataNeedPayload need{};
  need.offset = outcome.need_offset;
  need.length = outcome.need_length;
  switch (outcome.status) {
    case IoStatus::need_attach:
      need.kind = static_cast<uint32_t>(DataNeedKind::attach);
      break;
    case IoStatus::need_map:
      need.kind = static_cast<uint32_t>(DataNeedKind::map);
      break;
    case IoStatus::need_fetch:
      need.kind = static_cast<uint32_t>(DataNeedKind::fetch);
      break;
    case IoStatus::need_clean:
      need.kind = static_cast<uint32_t>(DataNeedKind::clean);
      break;
    default:
      assert(outcome.status == IoStatus::need_grant);
      need.kind = static_cast<uint32_t>(DataNeedKind::grant);
      break;
  }
  return need;
}

// The answer to one READ, out of a file.
class FileReply final : public FileRangeSink {
 public:
  FileReply(Channel& channel, uint32_t origin, uint64_t unique)
      : channel_(channel), origin_(origin), unique_(unique) {}
  bool send(int descriptor, uint64_t offset, std::size_t length) override {
    return channel_.reply_from_file(origin_, unique_, descriptor, offset, length);
  }

 private:
  Channel& channel_;
  uint32_t origin_;
  uint64_t unique_;
};

}  // namespace

TransferBuffer::TransferBuffer()
    : memory_(static_cast<std::byte*>(
          ::mmap(nullptr, kMaxTransfer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
  if (memory_ == MAP_FAILED) std::abort();  // a megabyte per thread at start: nothing can go on without it
}

TransferBuffer::~TransferBuffer() {
  ::munmap(memory_, kMaxTransfer);
}

DataPath::DataPath(Channel& channel, FileIo& file_io, UpcallRing& ring, NameCache& names)
    : channel_(channel), file_io_(file_io), ring_(ring), names_(names), parked_(kParkedMax) {
  free_.reserve(kParkedMax);
  for (uint32_t id = kParkedMax; id-- > 0;) free_.push_back(id);
  resume_thread_ = std::thread([this] { resume_loop(); });
}

DataPath::~DataPath() {
  stop();
}

void DataPath::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  work_.notify_all();
  if (resume_thread_.joinable()) resume_thread_.join();
  std::vector<Parked> refused;
  {
    std::lock_guard lock(mutex_);
    for (Parked& request : parked_) {
      if (request.live) refused.push_back(std::exchange(request, Parked{}));
    }
  }
  for (const Parked& request : refused) finish(request, ENOTCONN, {});
}

void DataPath::read(uint32_t queue, const Request& request, const TransferBuffer& buffer) {
  const auto in = request.arguments<ReadIn>();
  Parked run{.header = request.header, .queue = queue, .offset = in.offset, .size = in.size};
  run.group = request.group;
  if (in.size > kMaxTransfer) return finish(run, EINVAL, {});
  if (in.size >= kSpliceMin && splice_read(run)) return;
  if (const auto need = run_read(run, buffer)) park(std::move(run), {}, *need);
}

void DataPath::write(uint32_t queue, const Request& request) {
  const auto in = request.arguments<WriteIn>();
  Parked run{
      .header = request.header, .queue = queue, .offset = in.offset, .size = in.size, .is_write = true};
  run.kill_suidgid = (in.write_flags & kWriteKillSuidgid) != 0;
  run.group = request.group;
  const auto data = request.tail(sizeof(WriteIn));
  if (const auto need = run_write(run, data)) park(std::move(run), data, *need);
}

bool DataPath::splice_read(const Parked& request) {
  FileReply reply(channel_, request.queue, request.header.unique);
  const auto sent = file_io_.send(request.header.nodeid, request.offset, request.size, reply);
  if (!sent) return false;
  counters_.reads.fetch_add(1, std::memory_order_relaxed);
  counters_.read_bytes.fetch_add(*sent, std::memory_order_relaxed);
  counters_.spliced_reads.fetch_add(1, std::memory_order_relaxed);
  return true;
}

std::optional<DataNeedPayload> DataPath::run_read(const Parked& request, const TransferBuffer& buffer) {
  const auto room = channel_.answer_room(request.queue);
  const auto out = room.size() >= request.size ? room.first(request.size) : buffer.first(request.size);
  const IoOutcome outcome = file_io_.read(request.header.nodeid, request.offset, out);
  if (outcome.status == IoStatus::done) {
    counters_.reads.fetch_add(1, std::memory_order_relaxed);
    counters_.read_bytes.fetch_add(outcome.bytes, std::memory_order_relaxed);
    const std::array parts{iovec{out.data(), outcome.bytes}};
    finish(request, 0, parts);
    return std::nullopt;
  }
  if (outcome.status == IoStatus::error) {
    finish(request, outcome.error, {});
    return std::nullopt;
  }
  return need_of(outcome);
}

std::optional<DataNeedPayload> DataPath::run_write(const Parked& request, std::span<const std::byte> data) {
  if (auto need = privileges_needed(request)) return need;
  const IoOutcome outcome = file_io_.write(request.header.nodeid, request.offset, data);
  if (outcome.status == IoStatus::done) {
    counters_.writes.fetch_add(1, std::memory_order_relaxed);
    counters_.written_bytes.fetch_add(outcome.bytes, std::memory_order_relaxed);
    names_.wrote(request.header.nodeid);
    WriteOut out{static_cast<uint32_t>(outcome.bytes), 0};
    const std::array parts{iovec{&out, sizeof(out)}};
    finish(request, 0, parts);
    return std::nullopt;
  }
  if (outcome.status == IoStatus::error) {
    finish(request, outcome.error, {});
    return std::nullopt;
  }
  return need_of(outcome);
}

// suid and sgid go when the kernel says the writer is not privileged; security.capability goes with every
// write.
std::optional<DataNeedPayload> DataPath::privileges_needed(const Parked& request) {
  if (request.privileges_cleared) return std::nullopt;
  const bool mode = request.kill_suidgid && names_.suid_or_sgid(request.header.nodeid) != Privileges::none;
  const bool capability = names_.capability(request.header.nodeid) != Privileges::none;
  if (!mode && !capability) return std::nullopt;
  return DataNeedPayload{static_cast<uint32_t>(DataNeedKind::kill_privileges), 0, mode ? kSetId : 0, 0};
}

void DataPath::park(Parked request, std::span<const std::byte> data, const DataNeedPayload& need) {
  uint32_t id = 0;
  {
    std::unique_lock lock(mutex_);
    const auto fits = [&] {
      return stopping_ || (free_.size() > kParkedKept && parked_bytes_ + data.size() <= kParkedBytesMax);
    };
    if (!ring_.on_consumer_thread() && !fits()) {
      counters_.park_waits.fetch_add(1, std::memory_order_relaxed);
      room_.wait(lock, fits);
    }
    assert(stopping_ || !free_.empty());
    if (stopping_) {
      lock.unlock();
      return finish(request, ENOTCONN, {});
    }
    id = free_.back();
    free_.pop_back();
    parked_bytes_ += data.size();
    request.data.assign(data.begin(), data.end());
    request.live = true;
    request.attempts = 1;
    parked_[id] = std::move(request);
    counters_.parked.fetch_add(1, std::memory_order_relaxed);
  }
  announce(id, need);
}

void DataPath::announce(uint32_t id, const DataNeedPayload& need) {
  UpcallRecord record{};
  {
    std::lock_guard lock(mutex_);
    Parked& request = parked_[id];
    request.waiting = true;
    request.asked = static_cast<DataNeedKind>(need.kind);
    request.asked_set_id = request.asked == DataNeedKind::kill_privileges && need.offset == kSetId;
    request.clock = names_.clock();
    record = {0,
              kRecordDataNeed,
              id,
              request.header.uid,
              request.header.gid,
              request.header.pid,
              request.header.nodeid,
              0,
              request.group};
  }
  DataNeedPayload payload = need;
  if (payload.kind == static_cast<uint32_t>(DataNeedKind::grant) && payload.length == 0) {
    std::lock_guard lock(mutex_);
    payload.length = parked_[id].data.size();
  }
  ring_.push(record, std::as_bytes(std::span(&payload, 1)));  // fails only when the session is stopping
}

bool DataPath::has_room() {
  std::lock_guard lock(mutex_);
  return free_.size() > kParkedMax / 2;
}

bool DataPath::resume(uint32_t id) {
  {
    std::lock_guard lock(mutex_);
    if (id >= kParkedMax || !parked_[id].live || !parked_[id].waiting) return false;
    parked_[id].waiting = false;
    resumed_.push_back(id);
  }
  work_.notify_one();
  return true;
}

bool DataPath::fail(uint32_t id, int error) {
  Parked request;
  {
    std::lock_guard lock(mutex_);
    if (id >= kParkedMax || !parked_[id].live || !parked_[id].waiting) return false;
    request.header = parked_[id].header;
    request.queue = parked_[id].queue;
    parked_[id].waiting = false;
  }
  finish(request, error, {});
  release(id);
  return true;
}

void DataPath::release(uint32_t id) {
  {
    std::lock_guard lock(mutex_);
    parked_bytes_ -= parked_[id].data.size();
    parked_[id] = Parked{};
    free_.push_back(id);
  }
  room_.notify_all();
}

// A live request that is not `waiting` belongs to this thread alone, so it is used without the lock.
void DataPath::resume_loop() {
  const TransferBuffer buffer;
  for (;;) {
    uint32_t id = 0;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return stopping_ || !resumed_.empty(); });
      if (stopping_) return;
      id = resumed_.front();
      resumed_.pop_front();
    }
    Parked& request = parked_[id];
    if (request.asked == DataNeedKind::kill_privileges) {
      names_.privileges_cleared(request.header.nodeid, request.clock, request.asked_set_id);
      request.privileges_cleared = true;
    }
    const auto need = request.is_write ? run_write(request, request.data) : run_read(request, buffer);
    if (!need) {
      release(id);
    } else if (++request.attempts > kAttemptsMax) {
      counters_.gave_up.fetch_add(1, std::memory_order_relaxed);
      finish(request, EIO, {});
      release(id);
    } else {
      announce(id, *need);
    }
  }
}

void DataPath::finish(const Parked& request, int error, std::span<const iovec> parts) {
  // ENOENT: interrupted or aborted meanwhile; nobody waits for the answer.
  static_cast<void>(channel_.reply(request.queue, request.header.unique, error, parts));
}

}  // namespace penstock::fuse

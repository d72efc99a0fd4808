// READ and WRITE over a channel and a file store of the test's own: what is parked, resumed, failed and given
// up.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/data_path.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <vector>

#include "native/base/fd.h"

using namespace penstock::fuse;

namespace {

struct Answer {
  int error = 0;
  std::vector<std::byte> data;
};

class RecordingChannel final : public Channel {
 public:
  uint32_t queues() const override { return 1; }
  Received receive(uint32_t) override { return {}; }
  int reply(uint32_t, uint64_t unique, int error, std::span<const iovec> parts) override {
    std::lock_guard lock(mutex_);
    Answer& answer = answers_[unique];
    answer.error = error;
    for (const iovec& part : parts) {
      const auto* data = static_cast<const std::byte*>(part.iov_base);
      answer.data.insert(answer.data.end(), data, data + part.iov_len);
    }
    arrived_.notify_all();
    return 0;
  }
  bool reply_from_file(uint32_t origin, uint64_t unique, int descriptor, uint64_t offset,
                       std::size_t length) override {
    if (!takes_files) return false;
    Answer answer{0, std::vector<std::byte>(length)};
    CHECK(::pread(descriptor, answer.data.data(), length, static_cast<off_t>(offset)) ==
          static_cast<ssize_t>(length));
    const iovec part{answer.data.data(), length};
    return reply(origin, unique, 0, std::span(&part, 1)) == 0;
  }
  bool takes_files = true;
  int notify(int32_t, std::span<const iovec>) override { return 0; }
  void stop() override {}
  int device() const override { return -1; }
  ChannelState state() const override { return {}; }

  Answer wait_for(uint64_t unique) {
    std::unique_lock lock(mutex_);
    REQUIRE(arrived_.wait_for(lock, std::chrono::seconds(10), [&] { return answers_.contains(unique); }));
    return answers_[unique];
  }
  bool answered(uint64_t unique) {
    std::lock_guard lock(mutex_);
    return answers_.contains(unique);
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<uint64_t, Answer> answers_;
};

// Holds one file and needs whatever the test says, until it is told to have it.
class NeedyFile final : public FileIo {
 public:
  std::atomic<IoStatus> lacks{IoStatus::done};
  std::vector<std::byte> content;

  int descriptor = -1;  // of a file with the same content; -1: it is in none

  std::optional<uint64_t> send(uint64_t, uint64_t offset, std::size_t length, FileRangeSink& sink) override {
    if (descriptor < 0 || offset >= content.size()) return std::nullopt;
    length = std::min(length, content.size() - offset);
    if (!sink.send(descriptor, offset, length)) return std::nullopt;
    return length;
  }
  IoOutcome read(uint64_t, uint64_t offset, std::span<std::byte> out) override {
    if (lacks != IoStatus::done)
      return {.status = lacks, .error = ENOSPC, .need_offset = offset, .need_length = out.size()};
    const std::size_t count = offset >= content.size() ? 0 : std::min(out.size(), content.size() - offset);
    if (count > 0) std::memcpy(out.data(), content.data() + offset, count);
    return {.bytes = count};
  }
  IoOutcome write(uint64_t, uint64_t offset, std::span<const std::byte> data) override {
    if (lacks != IoStatus::done)
      return {.status = lacks, .error = ENOSPC, .need_offset = offset, .need_length = data.size()};
    content.resize(std::max(content.size(), offset + data.size()));
    std::memcpy(content.data() + offset, data.data(), data.size());
    return {.bytes = data.size()};
  }
  std::optional<LocalAttributes> attributes(uint64_t) override { return std::nullopt; }
};

struct Fixture {
  std::vector<uint64_t> memory =
      std::vector<uint64_t>((UpcallRing::kDataOffset + UpcallRing::kMinCapacity) / 8);
  RecordingChannel channel;
  NeedyFile file;
  UpcallRing ring{std::as_writable_bytes(std::span(memory)), [] {}};
  NameCache names{64, 64};
  TransferBuffer buffer;
  DataPath path{channel, file, ring, names};
  uint32_t seen = 0;

  void read(uint64_t unique, uint64_t offset, uint32_t size) {
    const ReadIn in{0, offset, size, 0, 0, 0, 0};
    Request request;
    request.header = {
        sizeof(InHeader) + sizeof(in), static_cast<uint32_t>(Opcode::read), unique, 9, 0, 0, 0, 0, 0};
    request.body = std::as_bytes(std::span(&in, 1));
    path.read(0, request, buffer);
  }

  void write(uint64_t unique, uint64_t offset, std::string_view text, uint32_t flags = 0) {
    const WriteIn in{0, offset, static_cast<uint32_t>(text.size()), flags, 0, 0, 0};
    std::vector<std::byte> body(sizeof(in) + text.size());
    std::memcpy(body.data(), &in, sizeof(in));
    std::memcpy(body.data() + sizeof(in), text.data(), text.size());
    Request request;
    request.header = {0, static_cast<uint32_t>(Opcode::write), unique, 9, 0, 0, 0, 0, 0};
    request.body = body;
    path.write(0, request);
  }

  struct Need {
    uint32_t id;
    DataNeedPayload payload;
  };
  // The next DataNeed record on the ring; waits for it.
  Need next_need() {
    auto head = std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(memory.data()));
    while (head.load(std::memory_order_seq_cst) == seen) std::this_thread::yield();
    const auto* at = reinterpret_cast<const std::byte*>(memory.data()) + UpcallRing::kDataOffset + seen;
    UpcallRecord record{};
    std::memcpy(&record, at, sizeof(record));
    REQUIRE(record.kind == kRecordDataNeed);
    Need need{record.slot, {}};
    std::memcpy(&need.payload, at + sizeof(record), sizeof(need.payload));
    seen += record.size;
    return need;
  }
};

void plain_file(NameCache& names) {
  Attr attr{};
  attr.ino = 9;
  attr.mode = 0100644;
  attr.nlink = 1;
  names.store_inode(attr, 0, UINT64_MAX, names.clock());
}

}  // namespace

TEST_CASE("what is there is written and read at once") {
  Fixture fixture;
  plain_file(fixture.names);
  fixture.write(1, 0, "hello");
  CHECK(fixture.channel.wait_for(1).error == 0);
  fixture.read(2, 1, 100);
  const Answer answer = fixture.channel.wait_for(2);
  CHECK(answer.data.size() == 4);
  CHECK(fixture.path.counters().parked == 0);
}

TEST_CASE("a large read of what lies in a file is answered out of that file, a small one is copied") {
  Fixture fixture;
  for (std::size_t at = 0; at < DataPath::kSpliceMin + 100; ++at)
    fixture.file.content.push_back(static_cast<std::byte>(at / 7));
  const auto& content = fixture.file.content;
  const penstock::Fd file(::memfd_create("content", MFD_CLOEXEC));
  REQUIRE(::write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  const auto answer_of = [&](uint64_t unique, uint64_t offset, uint32_t size) {
    fixture.read(unique, offset, size);
    return fixture.channel.wait_for(unique).data;
  };
  const auto part = [&](std::size_t from) {
    return std::vector<std::byte>(content.begin() + static_cast<std::ptrdiff_t>(from), content.end());
  };
  const auto& spliced = fixture.path.counters().spliced_reads;

  CHECK(answer_of(1, 99, 2 * DataPath::kSpliceMin) == part(99));
  CHECK(spliced == 0);  // it lies in no file
  fixture.file.descriptor = file.get();
  CHECK(answer_of(2, 99, 2 * DataPath::kSpliceMin) == part(99));
  CHECK(spliced == 1);
  CHECK(answer_of(3, 101, DataPath::kSpliceMin - 1).size() == DataPath::kSpliceMin - 1);
  CHECK(spliced == 1);
  fixture.channel.takes_files = false;
  CHECK(answer_of(4, 99, 2 * DataPath::kSpliceMin) == part(99));
  CHECK(spliced == 1);
  CHECK(fixture.path.counters().reads == 4);
  CHECK(fixture.path.counters().read_bytes == 3 * (content.size() - 99) + DataPath::kSpliceMin - 1);
}

TEST_CASE("a parked write keeps its data until it can run") {
  Fixture fixture;
  plain_file(fixture.names);
  fixture.file.lacks = IoStatus::need_grant;
  fixture.write(1, 0, "patience");
  const auto need = fixture.next_need();
  CHECK(need.payload.kind == static_cast<uint32_t>(DataNeedKind::grant));
  CHECK(need.payload.length == 8);
  CHECK_FALSE(fixture.channel.answered(1));
  fixture.file.lacks = IoStatus::done;
  CHECK(fixture.path.resume(need.id));
  CHECK(fixture.channel.wait_for(1).error == 0);
  CHECK(fixture.file.content.size() == 8);
  CHECK_FALSE(fixture.path.resume(need.id));
}

TEST_CASE("a read may need one thing after another") {
  Fixture fixture;
  fixture.file.content.resize(10);
  fixture.file.lacks = IoStatus::need_attach;
  fixture.read(1, 0, 10);
  const auto attach = fixture.next_need();
  fixture.file.lacks = IoStatus::need_fetch;
  CHECK(fixture.path.resume(attach.id));
  const auto fetch = fixture.next_need();
  CHECK(fetch.payload.kind == static_cast<uint32_t>(DataNeedKind::fetch));
  fixture.file.lacks = IoStatus::done;
  CHECK(fixture.path.resume(fetch.id));
  CHECK(fixture.channel.wait_for(1).data.size() == 10);
}

TEST_CASE("a refused need is the request's errno, an error of the store too") {
  Fixture fixture;
  plain_file(fixture.names);
  fixture.file.lacks = IoStatus::need_clean;
  fixture.write(1, 0, "x");
  CHECK(fixture.path.fail(fixture.next_need().id, EDQUOT));
  CHECK(fixture.channel.wait_for(1).error == EDQUOT);
  fixture.file.lacks = IoStatus::error;
  fixture.read(2, 0, 1);
  CHECK(fixture.channel.wait_for(2).error == ENOSPC);
}

TEST_CASE("privileges are cleared before the first byte of an unprivileged write") {
  Fixture fixture;
  Attr attr{};
  attr.ino = 9;
  attr.mode = 0104755;
  attr.nlink = 1;
  fixture.names.store_inode(attr, 0, UINT64_MAX, fixture.names.clock());
  fixture.write(1, 0, "root");
  CHECK(fixture.channel.wait_for(1).error == 0);
  fixture.write(2, 0, "user", kWriteKillSuidgid);
  const auto need = fixture.next_need();
  CHECK(need.payload.kind == static_cast<uint32_t>(DataNeedKind::kill_privileges));
  CHECK(need.payload.offset == kSetId);
  CHECK(fixture.path.resume(need.id));
  CHECK(fixture.channel.wait_for(2).error == 0);
  fixture.write(3, 0, "again", kWriteKillSuidgid);
  CHECK(fixture.channel.wait_for(3).error == 0);
}

TEST_CASE("a request that asks for ever is given up") {
  Fixture fixture;
  fixture.file.lacks = IoStatus::need_fetch;
  fixture.read(1, 0, 10);
  for (uint32_t attempt = 0; attempt < DataPath::kAttemptsMax; ++attempt)
    fixture.path.resume(fixture.next_need().id);
  CHECK(fixture.channel.wait_for(1).error == EIO);
  CHECK(fixture.path.counters().gave_up == 1);
}

TEST_CASE("the parking place is bounded, and stopping refuses who is in it or waits for room") {
  Fixture fixture;
  fixture.file.lacks = IoStatus::need_fetch;
  std::thread worker([&] {
    for (uint64_t unique = 1; unique <= DataPath::kParkedMax + 1; ++unique) fixture.read(unique, 0, 1);
  });
  while (fixture.path.counters().park_waits == 0) std::this_thread::yield();
  // The rest is kept for JavaScript's thread, which cannot wait for itself.
  CHECK(fixture.path.counters().parked == DataPath::kParkedMax - DataPath::kParkedKept);
  fixture.path.stop();
  worker.join();
  for (uint64_t unique = 1; unique <= DataPath::kParkedMax + 1; ++unique)
    REQUIRE(fixture.channel.wait_for(unique).error == ENOTCONN);
}

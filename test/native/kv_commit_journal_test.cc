// The commit journal answers for what the store has not taken yet: after a kill all of it, after a power loss
// what continues the store without a gap, and never anything of another history.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/kv/commit_journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "native/base/crc32c.h"
#include "native/base/fd.h"

using penstock::Fd;
using penstock::kv::CommitJournal;

namespace {

class File {
 public:
  File() {
    std::string name = "/tmp/penstock-journal-XXXXXX";
    const Fd fd(::mkstemp(name.data()));
    REQUIRE(fd.valid());
    path = name;
  }
  ~File() { ::unlink(path.c_str()); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void overwrite(std::size_t at, const std::string& bytes) const {
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) ==
            static_cast<ssize_t>(bytes.size()));
  }
  std::string bytes(std::size_t at, std::size_t length) const {
    std::string read(length, '\0');
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(::pread(fd.get(), read.data(), length, static_cast<off_t>(at)) == static_cast<ssize_t>(length));
    return read;
  }

  // Makes the byte another, whatever it was: checksums and generations hold any.
  void damage(std::size_t at) const {
    overwrite(at, std::string(1, static_cast<char>(bytes(at, 1)[0] ^ 0x40)));
  }

  std::string path;
};

std::unique_ptr<CommitJournal> open(const File& file) {
  auto journal = CommitJournal::open(file.path);
  REQUIRE(journal.ok());
  return std::move(*journal);
}

bool append(CommitJournal& journal, const std::string& record) {
  return journal.append(std::as_bytes(std::span(record.data(), record.size())));
}

// Little endian, as a file has it.
std::string crc_of(const std::string& bytes) {
  const uint32_t crc = penstock::crc32c(0, std::as_bytes(std::span(bytes.data(), bytes.size())));
  return std::string(reinterpret_cast<const char*>(&crc), sizeof(crc));
}

std::string records(const CommitJournal& journal, uint64_t sequence) {
  const std::vector<std::byte> bytes = journal.replay(sequence);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

TEST_CASE("what was appended is there for whoever opens the journal next") {
  const File file;
  {
    auto journal = open(file);
    journal->restart(7);
    REQUIRE(append(*journal, "one"));
    REQUIRE(append(*journal, "two, of another length"));
    REQUIRE(append(*journal, ""));
  }
  CHECK(records(*open(file), 7) == "onetwo, of another length");
}

TEST_CASE("a store at any other sequence is given nothing") {
  const File file;
  auto journal = open(file);
  journal->restart(7);
  REQUIRE(append(*journal, "one"));
  CHECK(records(*journal, 6).empty());
  CHECK(records(*journal, 8).empty());
}

TEST_CASE("a restart leaves nothing, and what lies behind its records is not taken for theirs") {
  const File file;
  auto journal = open(file);
  journal->restart(7);
  for (int i = 0; i < 10; ++i) REQUIRE(append(*journal, "the first generation"));
  journal->restart(17);
  CHECK(records(*journal, 17).empty());
  REQUIRE(append(*journal, "its only successor!!"));
  CHECK(records(*open(file), 17) == "its only successor!!");
}

TEST_CASE("records of a forgotten life are not revived by a new one") {
  const File file;
  {
    auto journal = open(file);
    journal->restart(7);
    for (int i = 0; i < 10; ++i) REQUIRE(append(*journal, "abandoned"));
  }
  auto journal = open(file);
  journal->restart(7);
  REQUIRE(append(*journal, "lives now"));
  CHECK(records(*journal, 7) == "lives now");
}

TEST_CASE("a damaged record ends what continues the store") {
  const File file;
  const std::size_t second = CommitJournal::kRecordsOffset + 16 + 8;
  SUBCASE("in its bytes") {
    auto journal = open(file);
    journal->restart(7);
    for (const char* record : {"aaaaaaaa", "bbbbbbbb", "cccccccc"}) REQUIRE(append(*journal, record));
    file.damage(second + 16);
    CHECK(records(*journal, 7) == "aaaaaaaa");
  }
  SUBCASE("in its length, beyond the end of the file") {
    auto journal = open(file);
    journal->restart(7);
    for (const char* record : {"aaaaaaaa", "bbbbbbbb"}) REQUIRE(append(*journal, record));
    file.overwrite(second + 4, "\xff\xff\xff\xff");
    CHECK(records(*journal, 7) == "aaaaaaaa");
  }
  SUBCASE("zeros, as of a page that never reached the disk") {
    auto journal = open(file);
    journal->restart(7);
    for (const char* record : {"aaaaaaaa", "bbbbbbbb"}) REQUIRE(append(*journal, record));
    file.overwrite(second, std::string(24, '\0'));
    CHECK(records(*journal, 7) == "aaaaaaaa");
  }
}

TEST_CASE("a damaged header, or one that was lost while its records were kept, answers for nothing") {
  const File file;
  auto journal = open(file);
  CHECK(records(*journal, 0).empty());
  journal->restart(7);
  REQUIRE(append(*journal, "first"));
  const std::string old_header = file.bytes(0, 32);
  journal->restart(8);
  REQUIRE(append(*journal, "second"));
  file.overwrite(0, old_header);
  // The old header's store was at 7; its first record has been overwritten by one of the new generation.
  CHECK(records(*journal, 7).empty());
  CHECK(records(*journal, 8).empty());
  file.damage(16);
  CHECK(records(*journal, 7).empty());
}

TEST_CASE("a full journal refuses, and takes again after a restart") {
  const File file;
  auto journal = open(file);
  journal->restart(1);
  const std::string record(4000, 'r');
  std::size_t taken = 0;
  while (append(*journal, record)) ++taken;
  CHECK(taken == (CommitJournal::kHalfBytes - CommitJournal::kRecordsOffset - 16) / (16 + 4000));
  CHECK(records(*journal, 1).size() == taken * record.size());
  CHECK_FALSE(append(*journal, std::string(CommitJournal::kHalfBytes, 'x')));
  journal->restart(2);
  CHECK(append(*journal, record));
}

TEST_CASE("a full half turns, and the other takes as much") {
  const File file;
  auto journal = open(file);
  journal->restart(1);
  // To the last byte: the record `turned` has its place.
  constexpr std::size_t kWhole = CommitJournal::kHalfBytes - CommitJournal::kRecordsOffset - 2 * 16;
  CHECK_FALSE(append(*journal, std::string(kWhole + 1, 'a')));
  REQUIRE(append(*journal, std::string(kWhole, 'a')));
  CHECK_FALSE(append(*journal, ""));
  journal->turn(2);
  REQUIRE(append(*journal, std::string(kWhole, 'b')));
  CHECK(records(*open(file), 1) == std::string(kWhole, 'a') + std::string(kWhole, 'b'));
  CHECK(records(*open(file), 2) == std::string(kWhole, 'b'));
}

namespace {

constexpr std::size_t kOtherHalf = CommitJournal::kHalfBytes;
constexpr std::size_t kSecondRecord = CommitJournal::kRecordsOffset + 16 + 8;
constexpr std::size_t kTurned = kSecondRecord + 16 + 8;

// Half 0: aaaaaaaa and bbbbbbbb, base 7, turned. Half 1: cccccccc and dddddddd, base 10.
std::unique_ptr<CommitJournal> turned_once(const File& file) {
  auto journal = open(file);
  journal->restart(7);
  for (const char* record : {"aaaaaaaa", "bbbbbbbb"}) REQUIRE(append(*journal, record));
  journal->turn(10);
  for (const char* record : {"cccccccc", "dddddddd"}) REQUIRE(append(*journal, record));
  return journal;
}

}  // namespace

TEST_CASE("while a batch is under way the store is given both halves, or the one it has not taken") {
  const File file;
  turned_once(file);
  auto journal = open(file);
  CHECK(records(*journal, 7) == "aaaaaaaabbbbbbbbccccccccdddddddd");
  CHECK(records(*journal, 10) == "ccccccccdddddddd");
  for (const uint64_t other : {0, 6, 8, 9, 11, 12}) CHECK(records(*journal, other).empty());
}

TEST_CASE("halves go on in turn") {
  const File file;
  auto journal = turned_once(file);
  // The store is at 10 now.
  journal->turn(12);
  CHECK(records(*journal, 7).empty());
  CHECK(records(*journal, 10) == "ccccccccdddddddd");
  CHECK(records(*journal, 12).empty());
  REQUIRE(append(*journal, "eeeeeeee"));
  CHECK(records(*open(file), 7).empty());
  CHECK(records(*open(file), 10) == "ccccccccddddddddeeeeeeee");
  CHECK(records(*open(file), 12) == "eeeeeeee");
  // The store is at 12, and takes the rest on the caller's thread.
  journal->restart(13);
  REQUIRE(append(*journal, "ffffffff"));
  for (const uint64_t gone : {7, 10, 12}) CHECK(records(*open(file), gone).empty());
  CHECK(records(*open(file), 13) == "ffffffff");
}

TEST_CASE("the next generation never continues one that is not whole") {
  const File file;
  turned_once(file);
  std::string expected;
  SUBCASE("its first record is damaged") {
    file.damage(CommitJournal::kRecordsOffset + 16);
  }
  SUBCASE("its last record is damaged") {
    file.damage(kSecondRecord + 16 + 7);
    expected = "aaaaaaaa";
  }
  SUBCASE("its last record never reached the disk") {
    file.overwrite(kSecondRecord, std::string(24, '\0'));
    expected = "aaaaaaaa";
  }
  SUBCASE("its turn is damaged") {
    file.damage(kTurned);
    expected = "aaaaaaaabbbbbbbb";
  }
  SUBCASE("its turn never reached the disk") {
    file.overwrite(kTurned, std::string(16, '\0'));
    expected = "aaaaaaaabbbbbbbb";
  }
  auto journal = open(file);
  CHECK(records(*journal, 7) == expected);
  CHECK(records(*journal, 10) == "ccccccccdddddddd");
}

TEST_CASE("each byte of both halves counts: any that is wrong leaves a prefix") {
  const File file;
  turned_once(file);
  auto journal = open(file);
  const std::string all = "aaaaaaaabbbbbbbbccccccccdddddddd";
  for (const std::size_t half : {std::size_t{0}, kOtherHalf}) {
    for (std::size_t at = 0; at < kTurned + 16; ++at) {
      // Not covered: what pads the header, and what lies between it and the records.
      if (at == 28) at = CommitJournal::kRecordsOffset;
      // The other half has not turned.
      if (half == kOtherHalf && at == kTurned) break;
      const std::string before = file.bytes(half + at, 1);
      file.damage(half + at);
      const std::string left = records(*journal, 7);
      CHECK(left.size() < all.size());
      CHECK(all.starts_with(left));
      CHECK(left.size() % 8 == 0);
      if (half == kOtherHalf) CHECK(left.size() >= 16);
      file.overwrite(half + at, before);
    }
  }
  CHECK(records(*journal, 7) == all);
}

TEST_CASE("a half that is cut off anywhere leaves a prefix") {
  const File file;
  turned_once(file);
  auto journal = open(file);
  const std::string all = "aaaaaaaabbbbbbbbccccccccdddddddd";
  for (const std::size_t half : {std::size_t{0}, kOtherHalf}) {
    const std::size_t end = half == 0 ? kTurned + 16 : kTurned;
    const std::string before = file.bytes(half, end);
    for (std::size_t at = CommitJournal::kRecordsOffset; at < end; ++at) {
      const std::string zeros(end - at, '\0');
      if (before.substr(at) == zeros)
        break;  // what was lost is what is there: a random generation may end so
      file.overwrite(half + at, zeros);
      const std::string left = records(*journal, 7);
      CHECK(left.size() < all.size());
      CHECK(all.starts_with(left));
      file.overwrite(half, before);
    }
  }
}

TEST_CASE("a header that was lost while another was kept never joins what does not belong together") {
  const File file;
  auto journal = turned_once(file);
  const std::string second_header = file.bytes(kOtherHalf, 32);
  journal->turn(12);
  REQUIRE(append(*journal, "eeeeeeee"));
  journal->turn(15);
  REQUIRE(append(*journal, "ffffffff"));
  REQUIRE(records(*journal, 12) == "eeeeeeeeffffffff");
  SUBCASE("of the half in use: what came before it stands alone") {
    file.overwrite(kOtherHalf, second_header);
    CHECK(records(*journal, 12) == "eeeeeeee");
    // Its records are of the later generation.
    CHECK(records(*journal, 10).empty());
  }
  SUBCASE("of the half under way") {
    file.overwrite(0, std::string(32, '\0'));
    CHECK(records(*journal, 12).empty());
    CHECK(records(*journal, 15) == "ffffffff");
  }
  SUBCASE("of both") {
    file.overwrite(kOtherHalf, second_header);
    file.overwrite(0, std::string(32, '\0'));
    for (const uint64_t sequence : {7, 10, 12, 15}) CHECK(records(*journal, sequence).empty());
  }
}

TEST_CASE("a new life forgets both halves, in memory and on disk") {
  const File file;
  turned_once(file);
  auto journal = open(file);
  journal->restart(7);
  REQUIRE(journal->sync());
  REQUIRE(append(*journal, "lives now"));
  CHECK(records(*open(file), 7) == "lives now");
  CHECK(records(*open(file), 10).empty());
}

TEST_CASE("a journal of version 1 is replayed, across the middle of the file") {
  const File file;
  auto journal = open(file);
  journal->restart(7);
  const std::string generation = file.bytes(8, 8);
  std::string header = "PNKJRNL1" + generation + std::string("\7\0\0\0\0\0\0\0", 8);
  header += crc_of(header);
  file.overwrite(0, header);
  std::string expected;
  std::size_t at = CommitJournal::kRecordsOffset;
  for (char letter = 'a'; at + 80'016 < CommitJournal::kFileBytes; ++letter) {
    const std::string bytes(80'000, letter);
    const std::string covered = std::string("\x80\x38\x01\0", 4) + generation + bytes;
    file.overwrite(at, crc_of(covered) + covered);
    expected += bytes;
    at += 80'016;
  }
  REQUIRE(expected.size() > CommitJournal::kHalfBytes);
  CHECK(records(*open(file), 7) == expected);
}

TEST_CASE("the bound of what was synced stays whatever becomes of the records, and a torn one is none") {
  const File file;
  CHECK(CommitJournal::synced_in(file.path + ".absent") == 0);
  CHECK(CommitJournal::synced_in(file.path) == 0);
  auto journal = turned_once(file);
  CHECK(CommitJournal::synced_in(file.path) == 0);
  journal->note_synced(11);
  journal->note_synced(0x1'0000'0002);
  CHECK(CommitJournal::synced_in(file.path) == 0x1'0000'0002);
  CHECK(records(*journal, 7) == "aaaaaaaabbbbbbbbccccccccdddddddd");
  journal->turn(12);
  journal->restart(20);
  CHECK(CommitJournal::synced_in(file.path) == 0x1'0000'0002);
  for (std::size_t at = 0; at < 12; ++at) {
    const std::string before = file.bytes(CommitJournal::kBoundOffset + at, 1);
    file.damage(CommitJournal::kBoundOffset + at);
    CHECK(CommitJournal::synced_in(file.path) == 0);
    file.overwrite(CommitJournal::kBoundOffset + at, before);
  }
  CHECK(CommitJournal::synced_in(file.path) == 0x1'0000'0002);
}

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
    file.overwrite(second + 16, "x");
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
  file.overwrite(16, "x");
  CHECK(records(*journal, 7).empty());
}

TEST_CASE("a full journal refuses, and takes again after a restart") {
  const File file;
  auto journal = open(file);
  journal->restart(1);
  const std::string record(4000, 'r');
  std::size_t taken = 0;
  while (append(*journal, record)) ++taken;
  CHECK(taken == (CommitJournal::kFileBytes - CommitJournal::kRecordsOffset) / (16 + 4000));
  CHECK(records(*journal, 1).size() == taken * record.size());
  CHECK_FALSE(append(*journal, std::string(CommitJournal::kFileBytes, 'x')));
  journal->restart(2);
  CHECK(append(*journal, record));
}

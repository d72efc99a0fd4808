// Answers out of a file, by splice(2); a file in memory stands for the device.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/reply_pipe.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "native/fuse/channel.h"
#include "native/fuse/protocol.h"

using namespace penstock;
using namespace penstock::fuse;

namespace {

using Bytes = std::vector<std::byte>;

Fd memory_file(const Bytes& content = {}) {
  Fd file(::memfd_create("file", MFD_CLOEXEC));
  REQUIRE(file.valid());
  REQUIRE(::write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  return file;
}

Bytes pattern(std::size_t length) {
  Bytes bytes(length);
  for (std::size_t at = 0; at < length; ++at) bytes[at] = static_cast<std::byte>(at / 3 + at / 4096);
  return bytes;
}

struct Written {
  OutHeader header{};
  Bytes data;
};

Written written_to(const Fd& device) {
  Bytes all(2 * kMaxTransfer);
  const ssize_t got = ::pread(device.get(), all.data(), all.size(), 0);
  REQUIRE(got >= static_cast<ssize_t>(sizeof(OutHeader)));
  Written written;
  std::memcpy(&written.header, all.data(), sizeof(OutHeader));
  written.data.assign(all.begin() + sizeof(OutHeader), all.begin() + got);
  return written;
}

void check_answer(ReplyPipe& pipe, const Bytes& content, uint64_t offset, std::size_t length) {
  const Fd file = memory_file(content);
  const Fd device = memory_file();
  REQUIRE(pipe.reply(device.get(), 77, file.get(), offset, length));
  const Written written = written_to(device);
  CHECK(written.header.unique == 77);
  CHECK(written.header.error == 0);
  CHECK(written.header.len == sizeof(OutHeader) + length);
  const auto from = content.begin() + static_cast<std::ptrdiff_t>(offset);
  CHECK(written.data == Bytes(from, from + static_cast<std::ptrdiff_t>(length)));
}

}  // namespace

TEST_CASE("an answer is a header and the bytes of the file, wherever they begin") {
  ReplyPipe pipe;
  const Bytes content = pattern(kMaxTransfer);
  check_answer(pipe, content, 0, 128 << 10);
  check_answer(pipe, content, 4095, 128 << 10);
  check_answer(pipe, content, 1, 1);
  check_answer(pipe, content, content.size() - 5000, 5000);
  for (unsigned round = 0; round < 100; ++round) check_answer(pipe, content, round, 40'000 + round);
}

TEST_CASE("a file that ends early is not answered from, and leaves nothing behind") {
  ReplyPipe pipe;
  const Bytes content = pattern(100'000);
  const Fd file = memory_file(content);
  const Fd device = memory_file();
  CHECK_FALSE(pipe.reply(device.get(), 1, file.get(), 0, 100'001));
  CHECK_FALSE(pipe.reply(device.get(), 1, file.get(), 200'000, 1));
  CHECK(::lseek(device.get(), 0, SEEK_END) == 0);
  check_answer(pipe, content, 10, 90'000);
}

TEST_CASE("what fits into no pipe is not answered, nor what the device refuses") {
  ReplyPipe pipe;
  const Bytes content = pattern(4 * kMaxTransfer);
  const Fd file = memory_file(content);
  const Fd device = memory_file();
  CHECK_FALSE(pipe.reply(device.get(), 1, file.get(), 0, content.size()));
  CHECK_FALSE(pipe.reply(-1, 1, file.get(), 0, 100'000));
  CHECK_FALSE(pipe.reply(device.get(), 1, -1, 0, 100'000));
  CHECK(::lseek(device.get(), 0, SEEK_END) == 0);
  check_answer(pipe, content, 0, 100'000);
}

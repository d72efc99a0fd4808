// Files of the host as they are, without the simulated disk: what it is asked to forget, and where it cannot.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "native/base/file_system.h"
#include "native/base/page_io.h"
#include "test/native/support/temporary_directory.h"

namespace penstock {
namespace {

constexpr std::size_t kPages = 64;

std::vector<std::byte> pattern(std::byte seed) {
  std::vector<std::byte> bytes(kPages * kPageSize);
  for (std::size_t i = 0; i < bytes.size(); i++)
    bytes[i] = seed ^ static_cast<std::byte>(i) ^ static_cast<std::byte>(i >> 12);
  return bytes;
}

std::size_t resident_pages(File& file) {
  void* map = ::mmap(nullptr, kPages * kPageSize, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  REQUIRE(map != MAP_FAILED);
  std::vector<unsigned char> pages(kPages);
  REQUIRE(::mincore(map, kPages * kPageSize, pages.data()) == 0);
  ::munmap(map, kPages * kPageSize);
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](auto page) { return page & 1; }));
}

bool is_since_6_16() {
  struct utsname name {};
  REQUIRE(::uname(&name) == 0);
  const std::string release = name.release;
  const int major = std::stoi(release);
  return major > 6 || (major == 6 && std::stoi(release.substr(2)) >= 16);
}

void check_round_trip(const std::string& directory) {
  auto opened = host_file_system().open(directory + "/uncached", OpenMode::create_new);
  REQUIRE(opened.ok());
  File& file = **opened;
  REQUIRE(file.allocate(0, kPages * kPageSize, true).ok());
  std::vector<std::byte> got(kPages * kPageSize);
  // Over pages that nobody has, over cached ones, and over dirty ones.
  for (const std::byte seed : {std::byte{1}, std::byte{2}}) {
    const auto bytes = pattern(seed);
    REQUIRE(file.write_uncached(0, bytes).ok());
    CHECK(file.read(0, got).value() == got.size());
    CHECK(got == bytes);
  }
  const auto last = pattern(std::byte{3});
  REQUIRE(file.write(0, last).ok());
  REQUIRE(file.write_uncached(kPageSize, std::span{last}.subspan(kPageSize, 32 * kPageSize)).ok());
  REQUIRE(file.sync_data().ok());
  CHECK(file.read(0, got).value() == got.size());
  CHECK(got == last);
}

// A file system that cannot punch holes, seen by this thread alone.
class Ramfs {
 public:
  Ramfs() : directory_("penstock-ramfs") {
    is_mounted_ = ::unshare(CLONE_NEWNS) == 0 &&
                  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                  ::mount("none", directory_.path().c_str(), "ramfs", 0, nullptr) == 0;
  }
  ~Ramfs() {
    if (is_mounted_) ::umount2(directory_.path().c_str(), MNT_DETACH);
  }
  bool is_mounted() const { return is_mounted_; }
  const std::string& path() const { return directory_.path(); }

 private:
  test::TemporaryDirectory directory_;
  bool is_mounted_ = false;
};

void check_zeros(const std::string& directory) {
  auto opened = host_file_system().open(directory + "/zeroed", OpenMode::create_new);
  REQUIRE(opened.ok());
  File& file = **opened;
  auto bytes = pattern(std::byte{1});
  REQUIRE(file.write(0, bytes).ok());
  REQUIRE(file.zero(kPageSize, 30 * kPageSize).ok());
  REQUIRE(file.zero(60 * kPageSize, uint64_t{1} << 50).ok());
  REQUIRE(file.zero(uint64_t{1} << 40, kPageSize).ok());
  std::fill_n(bytes.begin() + kPageSize, 30 * kPageSize, std::byte{0});
  std::fill(bytes.begin() + 60 * kPageSize, bytes.end(), std::byte{0});
  std::vector<std::byte> got(bytes.size());
  CHECK(file.read(0, got).value() == got.size());
  CHECK(got == bytes);
  CHECK(file.size().value() == bytes.size());
}

}  // namespace

TEST_CASE("what is zeroed reads as zeros, also where no holes can be punched") {
  check_zeros(test::TemporaryDirectory("penstock-host-file").path());
  const Ramfs ramfs;
  if (ramfs.is_mounted())
    check_zeros(ramfs.path());
  else
    MESSAGE("not tried without holes: that takes a mount of ramfs");
}

TEST_CASE("what is written uncached is there, on a disk and in memory") {
  check_round_trip(test::TemporaryDirectory("penstock-host-file").path());
  // No file system in memory forgets what it holds, so that the kernel refuses to promise it.
  if (std::filesystem::is_directory("/dev/shm")) {
    const std::string directory = "/dev/shm/penstock-host-file-" + std::to_string(::getpid());
    std::filesystem::create_directory(directory);
    check_round_trip(directory);
    std::filesystem::remove_all(directory);
  }
}

TEST_CASE("how long a file may be is known, and nothing is beyond its end to be punched") {
  const test::TemporaryDirectory directory("penstock-host-file");
  const uint64_t bytes_max = host_file_system().file_bytes_max(directory.path());
  CHECK(bytes_max >= uint64_t{1} << 40);
  auto opened = host_file_system().open(directory.path() + "/long", OpenMode::create_new);
  REQUIRE(opened.ok());
  File& file = **opened;
  REQUIRE(file.truncate(bytes_max - bytes_max % kPageSize).ok());
  if (bytes_max < INT64_MAX - kPageSize) CHECK(file.truncate(bytes_max + kPageSize).error().code == EFBIG);
  REQUIRE(file.truncate(kPages * kPageSize).ok());
  const auto bytes = pattern(std::byte{1});
  REQUIRE(file.write(0, bytes).ok());
  REQUIRE(file.punch((kPages - 1) * kPageSize, uint64_t{1} << 60).ok());
  CHECK(file.punch(uint64_t{1} << 60, uint64_t{1} << 60).ok());
  CHECK(file.size().value() == kPages * kPageSize);
  std::vector<std::byte> got(kPages * kPageSize);
  CHECK(file.read(0, got).value() == got.size());
  CHECK(std::equal(got.begin(), got.end() - kPageSize, bytes.begin()));
  CHECK(std::all_of(got.end() - kPageSize, got.end(), [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_CASE("an uncached write costs the host no memory once it is stored, an ordinary one does") {
  const test::TemporaryDirectory directory("penstock-host-file");
  const auto bytes = pattern(std::byte{1});
  const auto open = [&](const char* name) {
    auto file = host_file_system().open(directory.path() + "/" + name, OpenMode::create_new);
    REQUIRE(file.ok());
    REQUIRE((*file)->allocate(0, bytes.size(), true).ok());
    return std::move(*file);
  };
  const auto kept = open("kept");
  REQUIRE(kept->write(0, bytes).ok());
  REQUIRE(kept->sync_data().ok());
  CHECK(resident_pages(*kept) == kPages);

  const auto forgotten = open("forgotten");
  std::byte zero{};
  const iovec one{&zero, 1};
  const bool is_known = ::pwritev2(open("probe")->descriptor(), &one, 1, 0, 0x80) == 1 && is_since_6_16();
  REQUIRE(forgotten->write_uncached(0, bytes).ok());
  REQUIRE(forgotten->sync_data().ok());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (is_known && resident_pages(*forgotten) > 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(resident_pages(*forgotten) == (is_known ? 0 : kPages));
  if (!is_known) MESSAGE("kept: this kernel (before 6.16) or this file system knows no RWF_DONTCACHE");
}

}  // namespace penstock

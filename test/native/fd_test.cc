// The owned descriptor: closed once, never copied, whatever path it takes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/base/fd.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <type_traits>
#include <utility>

namespace penstock {

static bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

static Fd open_null() {
  return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

TEST_CASE("an Fd closes its descriptor when it goes") {
  int number = -1;
  {
    Fd fd = open_null();
    number = fd.get();
    REQUIRE(is_open(number));
  }
  CHECK_FALSE(is_open(number));
}

TEST_CASE("a moved-from Fd owns nothing") {
  Fd first = open_null();
  const int number = first.get();
  Fd second = std::move(first);
  CHECK_FALSE(first.valid());
  CHECK(second.get() == number);
  CHECK(is_open(number));
}

TEST_CASE("assignment closes what was held before") {
  Fd target = open_null();
  const int before = target.get();
  Fd source = open_null();
  const int after = source.get();
  target = std::move(source);
  CHECK_FALSE(is_open(before));
  CHECK(target.get() == after);
}

TEST_CASE("release hands the descriptor over without closing it") {
  Fd fd = open_null();
  const int number = fd.release();
  CHECK_FALSE(fd.valid());
  CHECK(is_open(number));
  Fd(number).reset();
  CHECK_FALSE(is_open(number));
}

static_assert(!std::is_copy_constructible_v<Fd> && !std::is_copy_assignable_v<Fd>);

}  // namespace penstock

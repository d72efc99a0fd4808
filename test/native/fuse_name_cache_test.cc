// The cache of names and attributes: stale answers are refused, forgetting is bounded, and, in a simulation,
// whatever it says was true at some moment while the question was open.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/name_cache.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <deque>
#include <map>
#include <random>
#include <string>

using namespace penstock::fuse;

namespace {

constexpr uint64_t kForever = UINT64_MAX;

Attr file(uint64_t ino, uint32_t mode = S_IFREG | 0644, uint32_t nlink = 1) {
  Attr attr{};
  attr.ino = ino;
  attr.mode = mode;
  attr.nlink = nlink;
  return attr;
}

}  // namespace

TEST_CASE("a name and its inode are answered until they expire") {
  NameCache cache(16, 16);
  cache.store_inode(file(5), 0, 1000, cache.clock());
  cache.store_name(1, "f", 5, 2000, cache.clock());
  CHECK(cache.lookup(1, "f", 999)->inode.attr.ino == 5);
  CHECK(cache.attributes(5, 999));
  CHECK_FALSE(cache.lookup(1, "f", 1000));
  CHECK_FALSE(cache.attributes(5, 1000));
  CHECK_FALSE(cache.lookup(2, "f", 0));
}

TEST_CASE("an answer that a change has overtaken is refused") {
  NameCache cache(16, 16);
  const uint64_t asked = cache.clock();
  cache.change_inode(5, asked);
  cache.change_name(1, "f", asked);
  cache.store_inode(file(5), 0, kForever, asked);
  cache.store_name(1, "f", 5, kForever, asked);
  CHECK_FALSE(cache.attributes(5, 0));
  CHECK_FALSE(cache.child(1, "f").known);
  CHECK(cache.counters().refused_stale == 2);
}

TEST_CASE("of two changes under way at once, neither answer is kept") {
  NameCache cache(16, 16);
  const uint64_t first = cache.clock();
  const uint64_t second = cache.clock();
  CHECK(cache.change_inode(5, second));
  CHECK_FALSE(cache.change_inode(5, first));
}

TEST_CASE("a file with two links is not answered, a directory is") {
  NameCache cache(16, 16);
  cache.store_inode(file(5, S_IFREG | 0644, 2), 0, kForever, cache.clock());
  cache.store_inode(file(6, S_IFDIR | 0755, 9), 0, kForever, cache.clock());
  CHECK_FALSE(cache.attributes(5, 0));
  CHECK(cache.attributes(6, 0));
}

TEST_CASE("privileges: unknown, present, cleared") {
  NameCache cache(16, 16);
  CHECK(cache.suid_or_sgid(5) == Privileges::unknown);
  cache.store_inode(file(5, S_IFREG | 04755), inode_flag::has_capability, kForever, cache.clock());
  CHECK(cache.suid_or_sgid(5) == Privileges::present);
  CHECK(cache.capability(5) == Privileges::present);
  cache.privileges_cleared(5, cache.clock(), true);
  CHECK(cache.suid_or_sgid(5) == Privileges::none);
  CHECK(cache.capability(5) == Privileges::none);
  CHECK_FALSE(cache.attributes(5, 0));
  const uint64_t asked = cache.clock();
  cache.change_inode(5, cache.clock());  // a chmod came between
  cache.privileges_cleared(5, asked, true);
  CHECK(cache.suid_or_sgid(5) == Privileges::unknown);
  cache.store_inode(file(6, S_IFREG | S_ISGID | 0644), 0, kForever, cache.clock());
  CHECK(cache.suid_or_sgid(6) == Privileges::present);  // taken from whoever is not in the group
}

TEST_CASE("a complete directory answers misses, and stops when one of its names is evicted") {
  NameCache cache(64, 4);
  cache.store_complete(1, cache.clock());
  CHECK(cache.lookup(1, "absent", 0)->negative);
  for (uint64_t ino = 10; ino < 14; ++ino)
    cache.store_name(1, "n" + std::to_string(ino), ino, kForever, cache.clock());
  CHECK(cache.lookup(1, "absent", 0)->negative);
  cache.store_name(1, "one too many", 20, kForever, cache.clock());
  CHECK_FALSE(cache.lookup(1, "absent", 0));
  CHECK(cache.counters().dentries == 4);
}

TEST_CASE("a name that could not be stored makes its directory incomplete") {
  NameCache cache(16, 16);
  cache.store_complete(1, cache.clock());
  const uint64_t asked = cache.clock();
  cache.change_name(1, "f", asked);
  cache.store_name(1, "f", 5, kForever, asked);
  CHECK_FALSE(cache.lookup(1, "absent", 0));
}

TEST_CASE("a listing that a change ran into does not complete its directory") {
  NameCache cache(16, 16);
  const uint64_t began = cache.clock();
  cache.change_inode(1, began);
  cache.store_complete(1, began);
  CHECK_FALSE(cache.lookup(1, "absent", 0));
}

// A service with a few names in one directory. Requests are taken, computed and answered at three different
// moments, in any order; changes likewise. Whatever the cache says about a name must be its state now, or at
// the moment some change still unanswered was computed: only those could not yet be known to anybody.
TEST_CASE("simulation: the cache never says what is no longer true") {
  struct Flight {
    uint64_t clock = 0;
    std::string name;
    bool change = false;
    bool computed = false;
    uint64_t before = 0;  // inode number, 0: absent
    uint64_t after = 0;
  };
  for (uint32_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    NameCache cache(8, 1 + random() % 8);
    std::map<std::string, uint64_t> truth;
    std::deque<Flight> flights;
    uint64_t next_ino = 100;
    cache.store_complete(1, cache.clock());
    for (int step = 0; step < 600; ++step) {
      const std::string name(1, static_cast<char>('a' + random() % 6));
      const uint32_t what = random() % 10;
      if (what < 3 && flights.size() < 6) {
        const bool busy = std::any_of(flights.begin(), flights.end(), [&](const Flight& flight) {
          return flight.change && flight.name == name;
        });
        const bool change = !busy && random() % 2 == 0;  // the kernel serialises changes of one name
        flights.push_back({.clock = cache.clock(), .name = name, .change = change});
      } else if (what < 6 && !flights.empty()) {
        Flight& flight = flights[random() % flights.size()];
        if (flight.computed) continue;
        flight.computed = true;
        flight.before = truth.contains(flight.name) ? truth[flight.name] : 0;
        flight.after = flight.before;
        if (flight.change) {
          flight.after = flight.before != 0 ? 0 : next_ino++;
          if (flight.after == 0) truth.erase(flight.name);
          if (flight.after != 0) truth[flight.name] = flight.after;
        }
      } else if (what < 8 && !flights.empty()) {
        const std::size_t index = random() % flights.size();
        const Flight flight = flights[index];
        if (!flight.computed) continue;
        flights.erase(flights.begin() + static_cast<std::ptrdiff_t>(index));
        uint64_t since = flight.clock;
        if (flight.change) {
          const bool alone = cache.change_name(1, flight.name, since);
          cache.change_inode(1, since);
          if (flight.before != 0) cache.change_inode(flight.before, since);
          if (alone) since = cache.clock();
        }
        if (flight.after != 0) {
          cache.store_inode(file(flight.after), 0, kForever, since);
          cache.store_name(1, flight.name, flight.after, kForever, since);
        } else if (!flight.change) {
          cache.store_negative(1, flight.name, kForever, since);
        }
      } else {
        const auto said = cache.lookup(1, name, 0);
        if (!said) continue;
        const uint64_t ino = said->negative ? 0 : said->inode.attr.ino;
        bool allowed = ino == (truth.contains(name) ? truth[name] : 0);
        for (const Flight& flight : flights) {
          if (flight.change && flight.computed && flight.name == name)
            allowed = allowed || ino == flight.before;
        }
        CAPTURE(step);
        CAPTURE(name);
        REQUIRE(allowed);
      }
    }
  }
}

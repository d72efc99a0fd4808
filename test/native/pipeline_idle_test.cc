// The idle governor by itself, under a clock of the test's: what it stays for, why it stops, what it counts.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/pipeline/idle_governor.h"

#include <doctest/doctest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "native/base/clock.h"
#include "native/base/processor_wait.h"
#include "native/pipeline/wake_cost.h"

namespace penstock::net {

static uint64_t waited_ns = 0;
static uint64_t wait_clock() {
  return waited_ns;
}

struct Permit final : SpinPermit {
  bool free = true;
  bool held = false;
  unsigned asked = 0;
  bool try_hold() override {
    ++asked;
    held = free;
    return free;
  }
  void release() override { held = false; }
};

// A worker that does nothing but idle and, when a batch comes, work for no time.
struct Idler {
  explicit Idler(IdleSettings settings = {}) : governor(with_cost(settings), permit, wait_clock) {}
  static IdleSettings with_cost(IdleSettings settings) {
    if (settings.wake_cost_ns == 0) settings.wake_cost_ns = 30'000;
    return settings;
  }
  // Idles for `gap_ns`, then finds a batch. True when it was awake at that moment.
  bool gap(uint64_t gap_ns, bool upstream = false) {
    const uint64_t until_ns = now_ns + gap_ns;
    bool awake = true;
    while (now_ns < until_ns) {
      const IdleDecision decision = governor.idle(now_ns, upstream);
      if (!decision.stay) {
        awake = false;
        last = decision.reason;
        now_ns = std::max(until_ns, now_ns);
        governor.woke(now_ns, WakeReason::descriptor, 0);
        now_ns += governor.settings().wake_cost_ns;
        break;
      }
      now_ns += 500;
      waited_ns += runs ? 0 : 400;
    }
    governor.worked(now_ns);
    return awake;
  }
  uint64_t sleeps(SleepReason reason) const {
    return governor.explain().sleeps[static_cast<std::size_t>(reason)];
  }
  uint64_t stays(StayReason reason) const {
    return governor.explain().stays[static_cast<std::size_t>(reason)];
  }

  Permit permit;
  IdleGovernor governor;
  uint64_t now_ns = 1'000'000'000;
  bool runs = true;
  SleepReason last = SleepReason::told_to;
};

TEST_CASE("the wake cost is measured between processors, and the thread that measures keeps all of its own") {
  cpu_set_t before;
  cpu_set_t after;
  REQUIRE(::sched_getaffinity(0, sizeof(before), &before) == 0);
  const auto cost = measure_wake_cost(11, 1'000'000);
  REQUIRE(cost);
  CHECK(cost->median_ns > 0);
  CHECK(cost->p99_ns >= cost->median_ns);
  REQUIRE(::sched_getaffinity(0, sizeof(after), &after) == 0);
  CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("the history predicts nothing at first, then the gap it sees") {
  GapHistory history;
  CHECK_FALSE(history.predict(30'000).known);
  for (int i = 0; i < 20; ++i) history.record(5'000);
  const auto regular = history.predict(30'000);
  CHECK(regular.known);
  CHECK(regular.gap_ns > 4'000);
  CHECK(regular.gap_ns < 6'000);
  CHECK(regular.window_ns >= 60'000);  // two wake-ups
  CHECK(regular.window_ns <= 64'000);
  CHECK(history.predict(5'000).window_ns >= 10'000);
  CHECK(history.predict(5'000).window_ns <= 11'500);
}

TEST_CASE("gaps longer than a wake-up are not waited for") {
  GapHistory history;
  for (int i = 0; i < 50; ++i) history.record(60'000);
  CHECK(history.predict(30'000).window_ns == 0);
  CHECK(history.predict(100'000).window_ns >= 60'000);
  GapHistory long_gaps;
  for (int i = 0; i < 50; ++i) long_gaps.record(5'000'000);
  CHECK(long_gaps.predict(100'000).gap_ns == GapHistory::kLonger);
  CHECK(long_gaps.predict(100'000).window_ns == 0);
}

TEST_CASE("the window of bursts holds for a gap that was held up, not for the one after the burst") {
  GapHistory history;
  for (int burst = 0; burst < 5; ++burst) {
    for (int i = 0; i < 100; ++i) history.record(8'000);
    history.record(10'000'000);
  }
  for (int i = 0; i < 20; ++i) history.record(8'000);
  const auto prediction = history.predict(30'000);
  CHECK(prediction.window_ns >= 60'000);
  CHECK(prediction.window_ns <= 64'000);
}

TEST_CASE("the window never costs much more than sleeping at once would, whatever the distribution") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    GapHistory history;
    const uint64_t scale_ns = 1'000 + random() % 400'000;
    for (int i = 0; i < 200; ++i) history.record(random() % scale_ns);
    const auto prediction = history.predict(30'000);
    double spun = 0;
    for (int i = 0; i < 2000; ++i) {
      const uint64_t gap_ns = random() % scale_ns;
      spun += gap_ns <= prediction.window_ns ? static_cast<double>(gap_ns)
                                             : static_cast<double>(prediction.window_ns + 30'000);
    }
    CHECK_MESSAGE(prediction.window_ns <= kWindowMax_ns, scale_ns);
    CHECK_MESSAGE(spun / 2000 <= 30'000 * 1.3, scale_ns);
  }
}

TEST_CASE("without history it sleeps at once, with short gaps it stays awake") {
  Idler idler;
  CHECK_FALSE(idler.gap(5'000));
  CHECK(idler.last == SleepReason::no_history);
  for (int i = 0; i < 30; ++i) idler.gap(5'000);
  CHECK(idler.gap(5'000));
  CHECK(idler.stays(StayReason::anticipation) > 0);
  CHECK(idler.permit.held);
}

TEST_CASE("a batch that does not come within the window is slept for, and the slot is given back") {
  Idler idler;
  for (int i = 0; i < 30; ++i) idler.gap(5'000);
  CHECK_FALSE(idler.gap(1'000'000));
  CHECK(idler.last == SleepReason::window_over);
  CHECK_FALSE(idler.permit.held);
}

TEST_CASE("long gaps are slept through at once and no slot is asked for") {
  Idler idler;
  for (int i = 0; i < 30; ++i) idler.gap(1'000'000);
  idler.permit.asked = 0;
  CHECK_FALSE(idler.gap(1'000'000));
  CHECK(idler.last == SleepReason::gap_too_long);
  CHECK(idler.permit.asked == 0);
  CHECK(idler.governor.explain().spun_ns == 0);
}

TEST_CASE("admitted work upstream is waited for without any history, at most as long as the largest window") {
  Idler idler;
  CHECK(idler.gap(150'000, true));
  CHECK(idler.stays(StayReason::admitted) == 1);
  CHECK_FALSE(idler.gap(300'000, true));
  CHECK(idler.last == SleepReason::upstream_late);
  CHECK(idler.governor.explain().sleeps_with_work_upstream == 1);
}

TEST_CASE("with the signal off work upstream is slept through, and counted") {
  Idler idler({.expect_admitted = false});
  for (int i = 0; i < 10; ++i) CHECK_FALSE(idler.gap(150'000, true));
  CHECK(idler.governor.explain().sleeps_with_work_upstream == 10);
}

TEST_CASE("no spin slot, no spin") {
  Idler idler;
  idler.permit.free = false;
  CHECK_FALSE(idler.gap(100'000, true));
  CHECK(idler.last == SleepReason::no_slot);
  idler.permit.asked = 0;
  CHECK_FALSE(idler.gap(1'000, true));
  CHECK(idler.permit.asked == 0);  // not asked again at once
  idler.gap(2'000'000, false);
  idler.permit.free = true;
  CHECK(idler.gap(100'000, true));
}

TEST_CASE("spinning draws on a bucket that refills with its share of the time") {
  Idler idler({.spin_share = 0.1, .spin_saved_max_ns = 1'000'000});
  unsigned awake = 0;
  for (int i = 0; i < 10'000; ++i) awake += idler.gap(100'000, true) ? 1 : 0;
  CHECK(idler.sleeps(SleepReason::no_tokens) > 0);
  CHECK(awake > 500);
  const double spun = static_cast<double>(idler.governor.explain().spun_ns);
  const double elapsed = static_cast<double>(idler.now_ns - 1'000'000'000);
  CHECK(spun <= 0.1 * elapsed + 1'000'000 + 100'000);
  CHECK(spun >= 0.08 * elapsed);
}

TEST_CASE("a spinning thread that does not get its processor sleeps, and leaves spinning alone for a while") {
  Idler idler;
  idler.runs = false;
  unsigned awake = 0;
  while (idler.gap(190'000, true)) ++awake;
  CHECK(idler.last == SleepReason::cpu_lag);
  CHECK(awake >= 2);
  CHECK(awake <= 5);  // half a millisecond missed
  idler.runs = true;
  CHECK_FALSE(idler.gap(50'000, true));
  CHECK(idler.last == SleepReason::cpu_lag);
  idler.gap(20'000'000, false);
  CHECK(idler.gap(150'000, true));
}

TEST_CASE("what a thread waits for its processor is counted, what it sleeps is not") {
  if (!std::filesystem::exists("/proc/thread-self/schedstat")) {
    MESSAGE("this kernel does not count it");
    return;
  }
  const uint64_t before_ns = thread_waited_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const uint64_t asleep_ns = thread_waited_ns() - before_ns;
  CHECK(asleep_ns < 45'000'000);

  std::atomic<bool> is_over = false;
  std::atomic<uint64_t> shared_ns = 0;
  const auto spin = [&] {
    cpu_set_t first;
    REQUIRE(::sched_getaffinity(0, sizeof(first), &first) == 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &first)) ++cpu;
    CPU_ZERO(&first);
    CPU_SET(cpu, &first);
    REQUIRE(::sched_setaffinity(0, sizeof(first), &first) == 0);
    const uint64_t then_ns = thread_waited_ns();
    while (!is_over.load()) relax();
    shared_ns += thread_waited_ns() - then_ns;
  };
  std::thread one(spin);
  std::thread other(spin);
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  is_over = true;
  one.join();
  other.join();
  CHECK(shared_ns >= 200'000'000);  // whatever else runs there, one of the two waits
}

TEST_CASE("a spin that a hypervisor stretches is nobody else's processor") {
  Idler idler({.spin_share = 1});
  for (int i = 0; i < 100; ++i) {
    CHECK(idler.gap(100'000, true));
    idler.governor.idle(idler.now_ns, true);
    idler.now_ns += 3'000'000;  // the clock jumps, and the thread has not waited
    CHECK(idler.governor.idle(idler.now_ns, true).reason != SleepReason::cpu_lag);
    idler.governor.worked(idler.now_ns);
  }
  CHECK(idler.sleeps(SleepReason::cpu_lag) == 0);
}

TEST_CASE("a spinning thread that is interrupted now and then goes on spinning") {
  Idler idler({.spin_share = 1});
  for (int i = 0; i < 1'000; ++i) {
    idler.runs = i % 20 != 0;
    CHECK(idler.gap(100'000, true));
  }
  CHECK(idler.sleeps(SleepReason::cpu_lag) == 0);
}

TEST_CASE("the other modes: always spin, sleep at once, nap") {
  Idler spinner({.mode = IdleMode::spin});
  CHECK(spinner.gap(10'000'000));
  Idler blocker({.mode = IdleMode::block});
  for (int i = 0; i < 30; ++i) CHECK_FALSE(blocker.gap(1'000));
  CHECK(blocker.last == SleepReason::told_to);
  Idler napper({.mode = IdleMode::nap, .nap_ns = 50'000});
  const IdleDecision nap = napper.governor.idle(1, false);
  CHECK_FALSE(nap.stay);
  CHECK(nap.sleep_max_ns == 50'000);
}

TEST_CASE("every sleep, stay and wake has its reason counted, and the explanation tells them") {
  Idler idler;
  for (int i = 0; i < 40; ++i) idler.gap(i % 4 == 0 ? 1'000'000 : 5'000);
  const IdleExplanation told = idler.governor.explain();
  uint64_t sleeps = 0;
  uint64_t wakes = 0;
  for (const uint64_t count : told.sleeps) sleeps += count;
  for (const uint64_t count : told.wakes) wakes += count;
  CHECK(sleeps == wakes);
  CHECK(told.wakes[static_cast<std::size_t>(WakeReason::descriptor)] == wakes);
  const std::string text = told.text();
  CHECK(text.find("a wake-up costs 30.0 us") != std::string::npos);
  CHECK(text.find("slept " + std::to_string(sleeps) + " times") != std::string::npos);
}

struct Directory {
  std::string path = std::filesystem::temp_directory_path() / ("penstock-spin-" + std::to_string(::getpid()));
  ~Directory() { std::filesystem::remove_all(path); }
};

TEST_CASE("spin slots: as many holders as slots, and one that is given back can be taken") {
  const Directory directory;
  auto first = SpinSlots::open(directory.path, 2, 0);
  auto second = SpinSlots::open(directory.path, 2, 1);
  auto third = SpinSlots::open(directory.path, 2, 2);
  REQUIRE((first.ok() && second.ok() && third.ok()));
  CHECK((*first)->try_hold());
  CHECK((*first)->try_hold());
  CHECK((*second)->try_hold());
  CHECK_FALSE((*third)->try_hold());
  (*first)->release();
  CHECK((*third)->try_hold());
  CHECK_FALSE((*first)->try_hold());
  auto none = SpinSlots::open(directory.path, 0, 0);
  REQUIRE(none.ok());
  CHECK_FALSE((*none)->try_hold());
  CHECK_FALSE(SpinSlots::open("/proc/no/such/place", 1, 0).ok());
}

TEST_CASE("a process that is killed leaves its spin slot free") {
  const Directory directory;
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto slots = SpinSlots::open(directory.path, 1, 0);
    const char held = slots.ok() && (*slots)->try_hold() ? 'y' : 'n';
    if (::write(pipe_ends[1], &held, 1) == 1) ::pause();
    ::_exit(1);
  }
  char held = 0;
  REQUIRE(::read(pipe_ends[0], &held, 1) == 1);
  CHECK(held == 'y');
  auto slots = SpinSlots::open(directory.path, 1, 0);
  REQUIRE(slots.ok());
  CHECK_FALSE((*slots)->try_hold());
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK((*slots)->try_hold());
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

}  // namespace penstock::net

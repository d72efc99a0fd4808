// One measurement of what waiting costs (driven by idleness.ts): a source process sends datagrams in a
// pattern, a pipeline of one worker receives them and notes how old each is, and the processor time of both
// is taken.
//
//   source process (a child) ──socket pair──> worker: receive -> stage that records now - sent
//
//   idleness MODE PATTERN RATE SECONDS [awake]    MODE: spin block nap adaptive;  PATTERN: none steady bursts
//
// Prints one line of JSON. The source runs on the second processor (were it on the worker's, what is measured
// were the scheduler's slices), the worker on the first, both at the highest priority of their class.
// `awake`: a thread of the source's, of the lowest priority, keeps the worker's processor from halting, so
// that what a wake-up costs is the kernel's part alone, without the hypervisor's. A steady source sends at
// RATE a second; bursts are 12500 packets 8 us apart, RATE bursts a second. The source sleeps until 60 us
// before its next packet and then spins, the same for every mode.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "native/base/histogram.h"
#include "native/pipeline/pipeline.h"
#include "native/pipeline/wake_cost.h"
#include "test/native/support/datagram_queue.h"

using namespace penstock;
using namespace penstock::net;

namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;
constexpr uint64_t kBurstPackets = 12'500;
constexpr uint64_t kBurstGap_ns = 8'000;
constexpr unsigned kWakeUps = 1001;
constexpr uint64_t kSpinAhead_ns = 60'000;
constexpr unsigned kWorkersCpu = 0;
constexpr unsigned kSourcesCpu = 1;

struct Age final : Stage {
  std::string_view name() const override { return "age"; }
  void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override {
    for (Packet* packet : batch.all()) {
      uint64_t sent_ns = 0;
      std::memcpy(&sent_ns, packet->data(), sizeof(sent_ns));
      ages.record(now_ns - sent_ns);
      outputs.drop(packet, DropReason::script);
    }
  }
  Histogram ages;
};

void wait_until(uint64_t when_ns) {
  const uint64_t now_ns = monotonic_ns();
  if (when_ns > now_ns + kSpinAhead_ns) {
    const uint64_t wake_ns = when_ns - kSpinAhead_ns;
    timespec time{};
    time.tv_sec = static_cast<time_t>(wake_ns / kSecond_ns);
    time.tv_nsec = static_cast<long>(wake_ns % kSecond_ns);
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
  }
  while (monotonic_ns() < when_ns) relax();
}

void pin(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

// As much before others as a process that is not real-time can be. Without the right to it nothing changes.
void prefer() {
  ::setpriority(PRIO_PROCESS, 0, -20);
}

// A thread of the source's process, until that ends.
void keep_awake(unsigned cpu) {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
  pin(cpu);
  for (;;) relax();
}

// The child: sends until `until_ns`; a full socket drops the packet, as an interface would.
void source(int socket, const std::string& pattern, uint64_t rate, uint64_t until_ns) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  if (pattern == "none") {
    while (monotonic_ns() < until_ns) ::usleep(100'000);
    return;
  }
  const bool bursts = pattern == "bursts";
  const uint64_t period_ns = kSecond_ns / rate;
  for (uint64_t next_ns = monotonic_ns() + period_ns; next_ns < until_ns; next_ns += period_ns) {
    for (uint64_t i = 0; i < (bursts ? kBurstPackets : 1); ++i) {
      wait_until(next_ns + i * kBurstGap_ns);
      const uint64_t now_ns = monotonic_ns();
      if (::send(socket, &now_ns, sizeof(now_ns), 0) < 0 && errno != EAGAIN) return;
    }
  }
}

int fail(const Error& error) {
  std::fprintf(stderr, "idleness: %s\n", error.message.c_str());
  return 1;
}

uint64_t cpu_of_children_ns() {
  rusage used{};
  ::getrusage(RUSAGE_CHILDREN, &used);
  return static_cast<uint64_t>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * kSecond_ns +
         static_cast<uint64_t>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    std::fprintf(stderr, "usage: idleness spin|block|nap|adaptive none|steady|bursts RATE SECONDS [awake]\n");
    return 2;
  }
  const std::string mode = argv[1];
  const std::string pattern = argv[2];
  const uint64_t rate = std::strtoull(argv[3], nullptr, 10);
  const auto length_ns =
      static_cast<uint64_t>(std::strtod(argv[4], nullptr) * static_cast<double>(kSecond_ns));
  auto [inside, outside] = DatagramQueue::pair();
  prefer();
  const uint64_t start_ns = monotonic_ns() + 2 * kSecond_ns;
  const pid_t child = ::fork();
  if (child == 0) {
    inside.reset();
    // Not beside a worker that spins: it would get no turn to end in.
    if (argc == 6 && mode != "spin") std::thread(keep_awake, kWorkersCpu).detach();
    pin(kSourcesCpu);
    wait_until(start_ns);
    source(outside.get(), pattern, rate, start_ns + length_ns);
    ::_exit(0);
  }
  // Of a processor that was idle as long as between two packets.
  const bool steady = pattern == "steady";
  auto wake_cost = steady ? measure_wake_cost(kWakeUps, kSecond_ns / rate) : measure_wake_cost(kWakeUps);
  if (!wake_cost) return fail(wake_cost.error());
  pin(kWorkersCpu);
  PipelineSettings settings;
  settings.workers = 1;
  settings.spin_directory =
      std::filesystem::temp_directory_path() / ("penstock-idleness-" + std::to_string(::getpid()));
  settings.idle.wake_cost_ns = wake_cost->median_ns;
  settings.idle.mode = mode == "spin"    ? IdleMode::spin
                       : mode == "block" ? IdleMode::block
                       : mode == "nap"   ? IdleMode::nap
                                         : IdleMode::adaptive;
  auto pipeline = Pipeline::create(settings);
  if (!pipeline) return fail(pipeline.error());
  DatagramQueue queue(std::move(inside));
  Age age;
  Graph graph;
  graph.connect(graph.receive("in", 0, queue, 1), graph.stage("age", 0, age));
  if (auto applied = (*pipeline)->apply(graph); !applied) return fail(applied.error());
  wait_until(start_ns);
  const uint64_t cpu_before_ns = process_cpu_ns();
  while (monotonic_ns() < start_ns + length_ns) ::usleep(50'000);
  const uint64_t cpu_ns = process_cpu_ns() - cpu_before_ns;
  if (::waitpid(child, nullptr, 0) != child) return fail(Error::from_errno(errno, "wait for the source"));
  const IdleExplanation idle = (*pipeline)->explain_idle()[0];
  std::printf("{\"mode\":\"%s\",\"pattern\":\"%s\",\"rate\":%lu,\"seconds\":%.3f,\"packets\":%lu,",
              mode.c_str(), pattern.c_str(), rate, static_cast<double>(length_ns) / 1e9, age.ages.count());
  std::printf("\"p50_us\":%.2f,\"p99_us\":%.2f,\"max_us\":%.2f,",
              static_cast<double>(age.ages.quantile(0.5)) / 1e3,
              static_cast<double>(age.ages.quantile(0.99)) / 1e3, static_cast<double>(age.ages.max()) / 1e3);
  std::printf(
      "\"cpu\":%.6f,\"source_cpu\":%.6f,\"spun\":%.6f,\"wake_p50_us\":%.2f,\"wake_p99_us\":%.2f,\"told\":\"%"
      "s\"}\n",
      static_cast<double>(cpu_ns) / static_cast<double>(length_ns),
      static_cast<double>(cpu_of_children_ns()) / static_cast<double>(length_ns),
      static_cast<double>(idle.spun_ns) / static_cast<double>(length_ns),
      static_cast<double>(wake_cost->median_ns) / 1e3, static_cast<double>(wake_cost->p99_ns) / 1e3,
      idle.text().c_str());
  std::filesystem::remove_all(settings.spin_directory);
  return 0;
}

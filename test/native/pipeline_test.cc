// The packet plane as a whole, on sockets: packets in order through stages and workers, every drop with its
// reason, graphs swapped under traffic, ports that are full or dead, a worker that hangs.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/pipeline/pipeline.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

#include "native/pipeline/snapshot.h"
#include "test/native/support/datagram_queue.h"

namespace penstock::net {

using namespace std::chrono_literals;

static std::string spin_directory() {
  return std::filesystem::temp_directory_path() / ("penstock-pipeline-" + std::to_string(::getpid()));
}
struct RemoveAtEnd {
  ~RemoveAtEnd() { std::filesystem::remove_all(spin_directory()); }
} remove_at_end;

static PipelineSettings settings_of(uint32_t workers) {
  PipelineSettings settings;
  settings.workers = workers;
  settings.idle.wake_cost_ns = 30'000;
  settings.pool = {.packets = 2048, .bodies = 4, .slice_tables = 4};
  settings.spin_directory = spin_directory();
  return settings;
}

static std::unique_ptr<Pipeline> pipeline_or_fail(PipelineSettings settings) {
  auto pipeline = Pipeline::create(std::move(settings));
  REQUIRE_MESSAGE(pipeline.ok(), (pipeline.ok() ? "" : pipeline.error().message));
  return std::move(*pipeline);
}

static void apply_or_fail(Pipeline& pipeline, const Graph& graph) {
  const auto applied = pipeline.apply(graph);
  REQUIRE_MESSAGE(applied.ok(), (applied.ok() ? "" : applied.error().message));
}

// Drops every n-th packet, runs a function first, passes the rest on.
struct Sieve final : Stage {
  explicit Sieve(uint64_t drop_every_ = 0) : drop_every(drop_every_) {}
  std::string_view name() const override { return "sieve"; }
  void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override {
    if (before) before(batch);
    for (Packet* packet : batch.all()) {
      if (drop_every != 0 && ++seen % drop_every == 0)
        outputs.drop(packet, DropReason::rule);
      else
        outputs.forward(0, packet);
    }
  }
  uint64_t drop_every;
  uint64_t seen = 0;
  std::function<void(Batch&)> before;
};

// A socket on either side of the plane.
struct Outside {
  explicit Outside(int buffer_bytes = 1 << 20) {
    auto [inside, outside] = DatagramQueue::pair(buffer_bytes);
    queue.emplace(std::move(inside));
    end = std::move(outside);
  }
  void send(uint32_t number) {
    while (::send(end.get(), &number, sizeof(number), 0) < 0) std::this_thread::sleep_for(50us);
  }
  // The next packet's number, or nothing within the time.
  std::optional<uint32_t> receive(std::chrono::milliseconds patience = 30'000ms) {
    uint32_t number = 0;
    for (const auto until = std::chrono::steady_clock::now() + patience;;) {
      if (::recv(end.get(), &number, sizeof(number), 0) == sizeof(number)) return number;
      if (std::chrono::steady_clock::now() > until) return std::nullopt;
      std::this_thread::sleep_for(50us);
    }
  }
  std::optional<DatagramQueue> queue;
  Fd end;
};

static bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 30'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

static bool all_asleep(const Pipeline& pipeline) {
  for (const WorkerStatistics& worker : pipeline.statistics().workers)
    if (!worker.asleep) return false;
  return true;
}

// Asleep, and not about to look at why it was woken last.
static bool all_at_rest(const Pipeline& pipeline) {
  const auto rounds = [&] {
    uint64_t sum = 0;
    for (const WorkerStatistics& worker : pipeline.statistics().workers) sum += worker.rounds;
    return sum;
  };
  const uint64_t before = rounds();
  std::this_thread::sleep_for(20ms);
  return all_asleep(pipeline) && rounds() == before;
}

static NodeStatistics node_of(const Pipeline& pipeline, const std::string& name) {
  for (NodeStatistics& node : pipeline.statistics().nodes)
    if (node.name == name) return node;
  FAIL("no node " << name);
  return {};
}

static uint64_t drops(const NodeStatistics& node, DropReason reason) {
  return node.drops[static_cast<std::size_t>(reason)];
}

TEST_CASE("how many workers a host gets") {
  CHECK(Pipeline::workers_for(1) == 1);
  CHECK(Pipeline::workers_for(3) == 1);
  CHECK(Pipeline::workers_for(8) == 2);
  CHECK(Pipeline::workers_for(64) == 8);
}

TEST_CASE("a wrong graph is refused whole, with the node's name") {
  Outside port;
  Sieve stage;
  auto pipeline = pipeline_or_fail(settings_of(1));
  const auto refusal = [&](const std::function<void(Graph&)>& spoil) {
    Graph graph;
    const StageId in = graph.receive("in", 0, *port.queue, 1);
    const StageId sieve = graph.stage("sieve", 0, stage);
    const StageId out = graph.transmit("out", 0, *port.queue, 1);
    graph.connect(in, sieve);
    graph.connect(sieve, out);
    spoil(graph);
    const auto applied = pipeline->apply(graph);
    return applied.ok() ? std::string("accepted") : applied.error().message;
  };
  CHECK(refusal([](Graph&) {}) == "accepted");
  CHECK(refusal([](Graph& g) { g.nodes[1].worker = 1; }) ==
        "graph: sieve is on worker 1, which does not exist");
  CHECK(refusal([](Graph& g) { g.nodes[2].name = "in"; }) == "graph: in is described twice");
  CHECK(refusal([](Graph& g) { g.nodes[0].next.clear(); }) == "graph: in has 0 successors instead of 1");
  CHECK(refusal([](Graph& g) { g.nodes[2].next.push_back(1); }) ==
        "graph: out has 1 successors instead of 0");
  CHECK(refusal([](Graph& g) { g.nodes[1].next.push_back(9); }) ==
        "graph: sieve has a successor that does not exist");
  CHECK(refusal([](Graph& g) { g.nodes[1].next.push_back(0); }) ==
        "graph: sieve has a receive node as successor");
  CHECK(refusal([](Graph& g) { g.nodes[1].next.push_back(1); }) == "graph: in is part of a cycle");
  CHECK(refusal([](Graph& g) { g.nodes[1].stage = nullptr; }) == "graph: sieve has no stage");
  CHECK(refusal([](Graph& g) {
          g.nodes.push_back(g.nodes[2]);
          g.nodes.back().name = "out2";
        }) == "graph: out2 uses a queue that another node uses");
  CHECK(pipeline->statistics().nodes.size() == 3);
}

// in -> sieve -> out, the three on the given workers.
static Graph line(Outside& from, Stage& stage, Outside& to, std::array<uint32_t, 3> workers) {
  Graph graph;
  const StageId in = graph.receive("in", workers[0], *from.queue, 1);
  const StageId sieve = graph.stage("sieve", workers[1], stage);
  const StageId out = graph.transmit("out", workers[2], *to.queue, 2);
  graph.connect(in, sieve);
  graph.connect(sieve, out);
  return graph;
}

// So that no ring fills up on a machine that is busy with something else.
static void wait_for_room(const std::function<bool()>& room) {
  for (int i = 0; i < 100'000 && !room(); ++i) std::this_thread::sleep_for(50us);
}

static void check_line(std::array<uint32_t, 3> workers, uint32_t worker_count) {
  constexpr uint32_t kPackets = 5'000;
  Outside from;
  Outside to;
  Sieve sieve(100);
  auto pipeline = pipeline_or_fail(settings_of(worker_count));
  apply_or_fail(*pipeline, line(from, sieve, to, workers));
  std::atomic<uint32_t> received{0};
  std::thread sender([&] {
    for (uint32_t i = 1; i <= kPackets; ++i) {
      from.send(i);
      if (i % 50 == 0) std::this_thread::sleep_for(200us);
      wait_for_room([&] { return i - i / 100 - received < 256; });
    }
  });
  uint32_t last = 0;
  bool in_order = true;
  while (received < kPackets - kPackets / 100) {
    const auto number = to.receive();
    if (!number) break;
    in_order = in_order && *number > last;
    last = *number;
    ++received;
  }
  sender.join();
  CHECK(in_order);
  CHECK(received == kPackets - kPackets / 100);
  CHECK_FALSE(to.receive(5ms));
  CHECK(node_of(*pipeline, "in").packets == kPackets);
  CHECK(node_of(*pipeline, "in").bytes == kPackets * 4);
  CHECK(node_of(*pipeline, "sieve").packets == kPackets);
  CHECK(drops(node_of(*pipeline, "sieve"), DropReason::rule) == kPackets / 100);
  CHECK(node_of(*pipeline, "out").packets == kPackets - kPackets / 100);
  // And then it sleeps.
  CHECK(eventually([&] { return all_asleep(*pipeline); }));
}

TEST_CASE("run to completion: every packet comes out in order or is counted") {
  check_line({0, 0, 0}, 1);
}

TEST_CASE("a pipeline over three workers: every packet comes out in order or is counted") {
  check_line({0, 1, 2}, 3);
}

TEST_CASE("a worker that sleeps costs nothing") {
  Outside from;
  Outside to;
  Sieve sieve;
  auto pipeline = pipeline_or_fail(settings_of(2));
  apply_or_fail(*pipeline, line(from, sieve, to, {0, 1, 1}));
  REQUIRE(eventually([&] { return all_at_rest(*pipeline); }));
  const auto before = pipeline->statistics();
  std::this_thread::sleep_for(100ms);
  const auto after = pipeline->statistics();
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(after.workers[i].rounds == before.workers[i].rounds);
    CHECK(after.workers[i].asleep);
  }
}

TEST_CASE("graphs swapped under traffic lose nothing on the nodes that stay") {
  constexpr uint32_t kPackets = 4'000;
  Outside from;
  Outside to;
  Outside other;
  Sieve sieve;
  Sieve second;
  auto pipeline = pipeline_or_fail(settings_of(2));
  apply_or_fail(*pipeline, line(from, sieve, to, {0, 1, 1}));
  std::atomic<uint32_t> received{0};
  std::atomic<bool> in_order{true};
  std::atomic<bool> given_up{false};
  std::atomic<unsigned> swaps{0};
  std::thread sender([&] {
    for (uint32_t i = 1; i <= kPackets; ++i) {
      from.send(i);
      if (i % 20 == 0) std::this_thread::sleep_for(100us);
      // Nor are the packets through before there were swaps.
      wait_for_room([&] { return i - received < 256 && i < 350 * (swaps + 1); });
    }
  });
  std::thread receiver([&] {
    for (uint32_t expected = 1; expected <= kPackets && !given_up; ++expected) {
      const auto number = to.receive();
      given_up = !number;
      if (number != expected) in_order = false;
      if (number) ++received;
    }
  });
  while (received < kPackets && !given_up) {
    Graph graph = line(from, sieve, to, {0, 1, 1});
    if (swaps % 2 == 0) {
      const StageId in = graph.receive("other-in", 1, *other.queue, 3);
      const StageId stage = graph.stage("second-" + std::to_string(swaps), 1, second);
      graph.connect(in, stage);
      graph.connect(stage, 2);
    }
    apply_or_fail(*pipeline, graph);
    ++swaps;
    std::this_thread::sleep_for(200us);
  }
  sender.join();
  receiver.join();
  CHECK(received == kPackets);
  CHECK(in_order);
  CHECK(swaps > 10);
  CHECK(pipeline->statistics().workers[1].misdelivered == 0);
  CHECK(node_of(*pipeline, "in").packets == kPackets);
}

TEST_CASE("a port that is full holds back, then drops tx-full, and goes on in order when it is writable") {
  Outside from;
  Outside to(2048);
  Sieve sieve;
  PipelineSettings settings = settings_of(1);
  auto pipeline = pipeline_or_fail(settings);
  apply_or_fail(*pipeline, line(from, sieve, to, {0, 0, 0}));
  constexpr uint32_t kPackets = 3'000;
  for (uint32_t i = 1; i <= kPackets; ++i) from.send(i);
  REQUIRE(eventually([&] { return node_of(*pipeline, "out").packets == kPackets; }));
  const uint64_t dropped = drops(node_of(*pipeline, "out"), DropReason::tx_full);
  CHECK(dropped > 0);
  CHECK(node_of(*pipeline, "out").held_bytes == kHoldPacketsMax * 4);
  CHECK(eventually([&] { return pipeline->statistics().workers[0].asleep; }));
  // What was kept comes in order: the oldest, since later ones were dropped.
  uint32_t received = 0;
  bool in_order = true;
  while (const auto number = to.receive(received < kPackets - dropped ? 5000ms : 5ms))
    in_order = in_order && *number == ++received;
  CHECK(in_order);
  CHECK(received == kPackets - dropped);
  CHECK(node_of(*pipeline, "out").held_bytes == 0);
  from.send(9999);
  CHECK(to.receive() == 9999);
}

TEST_CASE("what a removed port held back is dropped with a reason and its buffers come home") {
  Outside from;
  Outside to(2048);
  Sieve sieve;
  PipelineSettings settings = settings_of(1);
  settings.pool.packets = 1100;
  auto pipeline = pipeline_or_fail(settings);
  Outside elsewhere;
  for (int round = 0; round < 5; ++round) {  // more packets altogether than the pool has
    Outside full(2048);
    apply_or_fail(*pipeline, line(from, sieve, full, {0, 0, 0}));
    for (uint32_t i = 0; i < 1'000; ++i) from.send(i);
    REQUIRE(eventually([&] { return node_of(*pipeline, "out").held_bytes > 2'000; }));
    apply_or_fail(*pipeline, line(from, sieve, elsewhere, {0, 0, 0}));
    Graph nothing;
    apply_or_fail(*pipeline, nothing);
  }
  apply_or_fail(*pipeline, line(from, sieve, elsewhere, {0, 0, 0}));
  while (elsewhere.receive(20ms)) {
  }
  from.send(7);
  CHECK(elsewhere.receive() == 7);
}

TEST_CASE("a descriptor that dies is shown as failed, not asked again, and the plane goes on") {
  Outside from;
  Outside to;
  Outside dying;
  Sieve sieve;
  Sieve second;
  auto pipeline = pipeline_or_fail(settings_of(1));
  Graph graph = line(from, sieve, to, {0, 0, 0});
  const StageId in = graph.receive("dying", 0, *dying.queue, 3);
  const StageId stage = graph.stage("second", 0, second);
  graph.connect(in, stage);
  graph.connect(stage, 2);
  apply_or_fail(*pipeline, graph);
  // An empty datagram is what DatagramQueue takes for the end.
  REQUIRE(::send(dying.end.get(), "", 0, 0) == 0);
  CHECK(eventually([&] { return node_of(*pipeline, "dying").failed; }));
  from.send(5);
  CHECK(to.receive() == 5);
  CHECK(eventually([&] { return pipeline->statistics().workers[0].asleep; }));
}

TEST_CASE("a worker that hangs is reported with the stage it is in, and the others go on") {
  Outside from;
  Outside to;
  Outside other_from;
  Outside other_to;
  Sieve sieve;
  Sieve other;
  std::atomic<bool> hang{true};
  sieve.before = [&](Batch&) {
    while (hang) std::this_thread::sleep_for(1ms);
  };
  PipelineSettings settings = settings_of(2);
  settings.stall_ns = 50'000'000;
  settings.grace_ns = 100'000'000;
  settings.ring_packets = 16;
  std::mutex mutex;
  std::vector<StallReport> reports;
  settings.on_stall = [&](const StallReport& report) {
    const std::scoped_lock lock(mutex);
    reports.push_back(report);
  };
  auto pipeline = pipeline_or_fail(settings);
  struct Release {
    std::atomic<bool>& hanging;
    ~Release() { hanging = false; }
  } release{hang};
  Graph graph = line(from, sieve, to, {0, 1, 1});
  const StageId in = graph.receive("other-in", 0, *other_from.queue, 3);
  const StageId stage = graph.stage("other", 0, other);
  const StageId out = graph.transmit("other-out", 0, *other_to.queue, 4);
  graph.connect(in, stage);
  graph.connect(stage, out);
  apply_or_fail(*pipeline, graph);
  uint32_t sent = 0;
  while (sent < 200) from.send(++sent);
  // On a busy machine others may be reported before and after, for want of a processor.
  const auto reported = [&] {
    const std::scoped_lock lock(mutex);
    return std::any_of(reports.begin(), reports.end(), [](const auto& r) { return r.node == "sieve"; });
  };
  // Who hangs with nothing waiting is not missed by anybody: the worker may have taken all there was.
  REQUIRE(eventually([&] {
    from.send(++sent);
    return reported();
  }));
  for (uint32_t i = 1; i <= 100; ++i) {
    other_from.send(i);
    REQUIRE(other_to.receive() == i);
  }
  {
    const std::scoped_lock lock(mutex);
    const auto report =
        std::find_if(reports.begin(), reports.end(), [](const auto& r) { return r.node == "sieve"; });
    REQUIRE(report != reports.end());
    CHECK(report->worker == 1);
    CHECK(report->waiting > 0);
    CHECK(report->for_ns >= settings.stall_ns);
  }
  CHECK(drops(node_of(*pipeline, "in"), DropReason::ring_full) > 0);
  CHECK(pipeline->statistics().workers[1].stalls >= 1);
  CHECK(pipeline->statistics().workers[1].stalled);
  // A graph cannot be swapped in meanwhile; the answer says so, and the swap happens when the worker moves.
  const auto refused = pipeline->apply(graph);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ETIMEDOUT);
  hang = false;
  CHECK(to.receive() == 1);
  CHECK(eventually([&] { return !pipeline->statistics().workers[1].stalled; }));
  CHECK(pipeline->apply(graph).ok());
}

TEST_CASE("packets that a stage holds come out when their time has come") {
  struct Holder final : Stage {
    std::string_view name() const override { return "holder"; }
    void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override {
      for (Packet* packet : batch.all()) held.add(packet);
      came_ns = now_ns;
      due_ns = now_ns + 5'000'000;
    }
    uint64_t tick(Outputs& outputs, uint64_t now_ns) override {
      if (now_ns < due_ns) return due_ns;
      for (Packet* packet : held.all()) outputs.forward(0, packet);
      held.clear();
      held_ns = now_ns - came_ns;
      return due_ns = UINT64_MAX;
    }
    Batch held;
    uint64_t came_ns = 0, due_ns = UINT64_MAX;
    std::atomic<uint64_t> held_ns{0};
  };
  Outside from;
  Outside to;
  Holder holder;
  auto pipeline = pipeline_or_fail(settings_of(1));
  apply_or_fail(*pipeline, line(from, holder, to, {0, 0, 0}));
  for (uint32_t i = 1; i <= 3; ++i) {
    holder.held_ns = 0;
    from.send(i);
    CHECK(to.receive() == i);
    CHECK(holder.held_ns >= 5'000'000);
  }
  CHECK(pipeline->statistics().workers[0].idle.wakes[static_cast<std::size_t>(WakeReason::timer)] >= 1);
}

TEST_CASE("a replaced configuration is freed when no worker reads it any more") {
  struct Configuration {
    explicit Configuration(uint64_t value) : a(value), b(value) {}
    ~Configuration() { a = b + 1; }  // seen by a reader that comes too late; the sanitizer sees it too
    uint64_t a, b;
  };
  struct Reader final : Stage {
    explicit Reader(Snapshot<Configuration>& shared) : configuration(shared) {}
    std::string_view name() const override { return "reader"; }
    void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override {
      const Configuration& now = configuration.read();
      for (Packet* packet : batch.all()) {
        if (now.a != now.b) torn = true;
        outputs.drop(packet, DropReason::rule);
      }
    }
    Snapshot<Configuration>& configuration;
    std::atomic<bool> torn{false};
  };
  Snapshot<Configuration> configuration(std::make_unique<Configuration>(0));
  Reader reader(configuration);
  Outside from;
  auto pipeline = pipeline_or_fail(settings_of(1));
  Graph graph;
  graph.connect(graph.receive("in", 0, *from.queue, 1), graph.stage("reader", 0, reader));
  apply_or_fail(*pipeline, graph);
  std::atomic<bool> end{false};
  uint32_t sent = 0;
  std::thread sender([&] {
    for (; !end; ++sent) {
      from.send(sent);
      if (sent % 100 == 0) std::this_thread::sleep_for(300us);
    }
  });
  uint64_t replaced = 0;
  while (replaced < 1'000 || (node_of(*pipeline, "reader").packets < 3'000 && replaced < 1'000'000))
    REQUIRE(configuration.replace(std::make_unique<Configuration>(++replaced), pipeline->quiescence()).ok());
  CHECK(node_of(*pipeline, "reader").packets >= 3'000);
  end = true;
  sender.join();
  CHECK_FALSE(reader.torn);
  CHECK(configuration.read().a == replaced);
  // Nobody waits for a worker that sleeps. One that still has packets to come is asleep for a moment only.
  REQUIRE(eventually([&] { return node_of(*pipeline, "reader").packets == sent && all_at_rest(*pipeline); }));
  const uint64_t rounds = pipeline->statistics().workers[0].rounds;
  CHECK(configuration.replace(std::make_unique<Configuration>(0), pipeline->quiescence()).ok());
  CHECK(pipeline->statistics().workers[0].rounds == rounds);
}

}  // namespace penstock::net

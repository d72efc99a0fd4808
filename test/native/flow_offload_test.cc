// Flow offload beside running workers, on a real kernel: taps in a network namespace of the test's own,
// packet sockets at their other ends as stations. While datagrams flow, configurations come and go, ports are
// blocked, removed and changed, flows age, and statistics are read. Made for the sanitizers; left out where
// namespaces or BPF are not allowed.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sched.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

#include "native/port/link.h"
#include "native/port/tap_port.h"
#include "native/switch/data_plane.h"
#include "test/native/support/frames.h"

namespace penstock::net::test {
namespace {

using std::chrono::milliseconds, std::chrono::steady_clock;

constexpr std::size_t kNumber = 14 + 20 + 8;  // where a datagram's number lies
constexpr unsigned kFlows = 6;
constexpr unsigned kService = 2000;
constexpr std::array<const char*, 3> kTaps = {"pst-a", "pst-b", "pst-c"};

// Of this thread and those it starts from now on. Null: not allowed here.
bool own_namespace() {
  static const bool entered = ::geteuid() == 0 && ::unshare(CLONE_NEWNET) == 0;
  if (!entered) MESSAGE("left out: network namespaces need root");
  return entered;
}

class Directory {
 public:
  Directory() {
    std::string path = (std::filesystem::temp_directory_path() / "penstock-offload-XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    path_ = path;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

DataPlaneSettings settings_in(const Directory& directory) {
  DataPlaneSettings settings;
  settings.pipeline.workers = 2;
  settings.pipeline.pool = {.packets = 1024, .bodies = 64, .slice_tables = 64};
  settings.pipeline.spin_directory = directory.path();
  settings.limits.flows_per_worker = 1024;
  settings.limits.connections.connections_max = 1 << 14;
  settings.limits.offload = {.flows_max = kFlows, .idle_seconds_max = 0};
  settings.runtime_directory = directory.path();
  return settings;
}

// A station at the kernel's end of a tap: what it sends leaves by the tap, what it receives came by it.
class Station {
 public:
  explicit Station(const char* tap) : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
    REQUIRE(fd_.valid());
    const int one = 1;
    REQUIRE(::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) == 0);
    const int room = 8 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    const timeval patience{.tv_sec = 0, .tv_usec = 20'000};
    REQUIRE(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
    const auto facts = link_facts(tap);
    REQUIRE(facts.ok());
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = facts->index;
    REQUIRE(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  }

  bool send(const Bytes& frame) const {
    return ::send(fd_.get(), frame.data(), frame.size(), MSG_DONTWAIT) == static_cast<ssize_t>(frame.size());
  }
  // The number of the next datagram to `port`; nothing for a while: none.
  std::optional<uint64_t> receive(unsigned port) const {
    std::array<std::byte, 2048> frame;
    const ssize_t got = ::recv(fd_.get(), frame.data(), frame.size(), 0);
    if (got < static_cast<ssize_t>(kNumber + 8)) return std::nullopt;
    const auto at = [&](std::size_t i) { return static_cast<unsigned>(frame[i]); };
    if (at(12) != 0x08 || at(13) != 0 || at(23) != 17 || (at(36) << 8 | at(37)) != port) return std::nullopt;
    uint64_t number = 0;
    std::memcpy(&number, &frame[kNumber], sizeof(number));
    return number;
  }

 private:
  Fd fd_;
};

// From station `from` to station `to` (indices of kTaps), between these UDP ports; its number is put in
// later.
Bytes datagram(unsigned from, unsigned to, unsigned source, unsigned destination) {
  const auto mac = [](unsigned station) {
    Bytes bytes(6);
    bytes[0] = std::byte{2};
    bytes[5] = static_cast<std::byte>(station + 1);
    return bytes;
  };
  const Bytes packet = ipv4({.source = 0x0a000001 + from, .destination = 0x0a000001 + to},
                            udp(source, destination, Bytes(200)));
  Bytes frame = mac(to);
  put(frame, mac(from));
  put16(frame, 0x0800);
  put(frame, packet);
  return frame;
}

SwitchConfig network_of(const std::vector<PortId>& ports) {
  SwitchConfig config;
  config.offload = true;
  config.networks.push_back({.index = 0, .name = "blue", .tracking = true});
  for (const PortId id : ports) {
    PortConfig port;
    port.id = id;
    port.name = "p" + std::to_string(id);
    port.attachments = {{0, kUntagged}};
    config.ports.push_back(port);
  }
  return config;
}

SwitchConfig with_rule(SwitchConfig config, Verdict verdict) {
  RuleConfig rule{.id = 7, .priority = 1};
  rule.match.mask.set_destination_port(0xffff);
  rule.match.value.set_destination_port(kService);
  rule.actions.verdict = verdict;
  config.rules = {rule};
  return config;
}

PortId attach_tap(DataPlane& plane, const char* name) {
  auto opened = TapPort::open({.name = name, .queues = 2});
  REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : opened.error().message));
  std::shared_ptr<TapPort> tap = std::move(*opened);
  const auto id = plane.attach(tap, tap.get());
  REQUIRE(id.ok());
  return *id;
}

void require(const Result<void>& done) {
  REQUIRE_MESSAGE(done.ok(), (done.ok() ? "" : done.error().message));
}

// Sends until it is told to stop, and knows which datagrams were sent while nothing was to pass.
class Traffic {
 public:
  Traffic(const Station& a, const Station& b) : a_(a), b_(b) {
    for (unsigned flow = 0; flow < kFlows; ++flow) {
      out_.push_back(datagram(0, 1, 3000 + flow, kService));
      back_.push_back(datagram(1, 0, kService, 3000 + flow));
    }
    threads_.emplace_back([this] { send(); });
    threads_.emplace_back([this] { collect(); });
  }
  ~Traffic() {
    stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

  // Between the two calls nothing passes from a to b, whose last packets of before have arrived.
  void forbid() { ++phase_; }
  void permit() { ++phase_; }
  // Nothing is sent meanwhile.
  void rest() { resting_ = true; }
  void go_on() { resting_ = false; }
  void finish() {
    stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::atomic<uint64_t> arrived = 0, doubled = 0;
  // To be read when it has finished.
  std::set<uint64_t> seen, forbidden;

 private:
  void send() {
    for (uint64_t number = 1; !stopping_; ++number) {
      if (resting_) {
        std::this_thread::sleep_for(milliseconds(1));
        continue;
      }
      Bytes& frame = out_[number % kFlows];
      std::memcpy(&frame[kNumber], &number, sizeof(number));
      const uint32_t before = phase_;
      a_.send(frame);
      if (before % 2 == 1 && before == phase_) forbidden.insert(number);
      if (number % 3 == 0) b_.send(back_[number / 3 % kFlows]);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
  void collect() {
    while (!stopping_)
      if (const auto number = b_.receive(kService)) {
        ++arrived;
        if (!seen.insert(*number).second) ++doubled;
      }
  }

  const Station& a_;
  const Station& b_;
  std::vector<Bytes> out_, back_;
  std::atomic<bool> stopping_{false}, resting_{false};
  std::atomic<uint32_t> phase_{0};
  std::vector<std::thread> threads_;
};

// Patient, since sanitizers are slow and machines busy.
template <typename Condition>
bool comes_true(Condition condition) {
  const auto end = steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

}  // namespace

TEST_CASE("a plane that could not be started ends in peace") {
  const Directory directory;
  DataPlaneSettings settings = settings_in(directory);
  settings.pipeline.ring_packets = 3;  // before there is a pipeline
  CHECK_FALSE(DataPlane::start(settings).ok());
  settings = settings_in(directory);
  settings.limits.flows_per_worker = 3;  // before there is a switch
  CHECK_FALSE(DataPlane::start(settings).ok());
}

TEST_CASE("flows come and go beside workers, configurations, port states and statistics") {
  if (!own_namespace()) return;
  const Directory directory;
  auto started = DataPlane::start(settings_in(directory));
  REQUIRE_MESSAGE(started.ok(), (started.ok() ? "" : started.error().message));
  DataPlane& plane = **started;
  std::vector<PortId> ports;
  for (const char* tap : kTaps) ports.push_back(attach_tap(plane, tap));
  const SwitchConfig open = with_rule(network_of(ports), Verdict::normal);
  const SwitchConfig closed = with_rule(network_of(ports), Verdict::drop);
  require(plane.apply(open));
  if (plane.offload() == nullptr) {
    MESSAGE("left out: ", plane.offload_finding());
    return;
  }

  std::atomic<bool> done{false};
  const Bytes described = datagram(0, 1, 3000, kService);
  std::thread onlooker([&] {
    while (!done) {
      for (PortId id = 0; id < kTaps.size(); ++id) {
        if (const auto port = plane.port(id)) static_cast<void>(port->mtu() + port->queues());
        static_cast<void>(plane.coalesced(id));
        static_cast<void>(plane.forwarding().port_traffic(id));
        static_cast<void>(plane.offload()->port_finding(id));
      }
      plane.offload()->refresh();
      static_cast<void>(plane.forwarding().rule_traffic());
      static_cast<void>(plane.offload()->totals());
      static_cast<void>(plane.forwarding().wants_offload());
      static_cast<void>(plane.forwarding().trace(ports[0], described, monotonic_ns()).ok());
      std::this_thread::sleep_for(milliseconds(1));
    }
  });

  {
    const Station a(kTaps[0]), b(kTaps[1]);
    Traffic traffic(a, b);
    const auto flows = [&] { return plane.offload()->totals().flows; };
    uint64_t last_arrived = 0;
    const auto arrives = [&] {
      const uint64_t before = std::exchange(last_arrived, traffic.arrived.load());
      return last_arrived > before;
    };
    // What is sent during it is not to arrive. Ends when none of it waits before the switch any more.
    const auto forbidden_time = [&] {
      traffic.forbid();
      std::this_thread::sleep_for(milliseconds(30));
      traffic.rest();
      traffic.permit();
      uint64_t before = 0;
      CHECK(comes_true([&] {
        std::this_thread::sleep_for(milliseconds(100));
        const uint64_t now = plane.forwarding().port_traffic(ports[0]).received.packets;
        return std::exchange(before, now) == now;
      }));
    };
    for (int round = 0; round < 6; ++round) {
      CAPTURE(round);
      CHECK(comes_true([&] { return flows() > 0; }));
      // A rule forbids it.
      require(plane.apply(closed));
      forbidden_time();
      require(plane.apply(open));
      traffic.go_on();
      CHECK(comes_true([&] { return flows() > 0; }));
      // The port is blocked.
      require(plane.set_port_state(ports[1], PortState::blocked));
      forbidden_time();
      require(plane.set_port_state(ports[1], PortState::up));
      traffic.go_on();
      CHECK(comes_true([&] { return flows() > 0 && arrives(); }));
      // Its interface changes.
      require(set_link_mtu(kTaps[1], round % 2 == 0 ? 1400 : 1500));
      // Another port goes, and comes back as another.
      SwitchConfig rest = open;
      rest.ports.pop_back();
      require(plane.apply(rest));
      require(plane.detach(ports[2]));
      CHECK(plane.port(ports[2]) == nullptr);
      CHECK(attach_tap(plane, kTaps[2]) == ports[2]);
      require(plane.apply(open));
      // Connections are taken along, and forgotten.
      require(plane.offload()->settle_all());
      CHECK(plane.forwarding().export_port(ports[0], monotonic_ns()).ok());
      plane.tick();
      CHECK(comes_true([&] { return flows() > 0; }));
      if (round % 3 == 0) {
        // Offload is taken back as a whole, with its programs, and comes again.
        SwitchConfig without = open;
        without.offload = false;
        require(plane.apply(without));
        CHECK(comes_true([&] { return arrives(); }));
        CHECK(comes_true([&] { return flows() == 0; }));
        require(plane.apply(open));
      } else {
        CHECK(comes_true([&] { return flows() > 0; }));
        traffic.rest();
        CHECK(comes_true([&] { return flows() == 0; }));
        traffic.go_on();
      }
    }
    CHECK(comes_true([&] { return flows() > 0; }));
    traffic.finish();
    CHECK(traffic.doubled == 0);
    CHECK(traffic.arrived > 100);
    CHECK(traffic.forbidden.size() > 10);
    for (const uint64_t number : traffic.forbidden) CHECK(traffic.seen.count(number) == 0);
  }
  done = true;
  onlooker.join();
  require(plane.offload()->settle_all());
  const FlowOffload::Totals totals = plane.offload()->totals();
  CHECK(totals.flows == 0);
  CHECK(totals.taken >= 12);
  CHECK(totals.taken == totals.withdrawn);
  CHECK(totals.traffic.packets > 0);
  CHECK(plane.offload()->port_traffic(ports[0]).received.packets > 0);
}

}  // namespace penstock::net::test

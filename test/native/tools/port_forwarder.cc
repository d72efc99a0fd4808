// Joins two ports: what one receives the other transmits, worker i serving queue i of both. The smallest
// plane there is, to test and to measure ports alone.
//
//   port_forwarder [--queues N] [--runtime DIR] PORT PORT     PORT: tap:NAME[@NAMESPACE][,mtu=N][,plain]
//                                                                 | link:NAME[@NAMESPACE]
// Prints "ready", then a line of JSON with counters for every line it reads; ends at the end of its input.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <thread>

#include "native/pipeline/hold_back.h"
#include "native/port/packet_socket_port.h"
#include "native/port/tap_port.h"
#include "test/native/tools/forwarder.h"

using namespace penstock;
using namespace penstock::net;

namespace {

struct Opened {
  std::unique_ptr<Port> port;
  LinkListener* listener = nullptr;
};

template <typename P>
Opened opened(Result<std::unique_ptr<P>> result) {
  if (!result) fail(result.error().message);
  LinkListener* listener = result->get();
  return {std::move(*result), listener};
}

Opened open_port(const std::string& description, uint32_t queues, const std::string& runtime) {
  const std::string kind = description.substr(0, description.find(':'));
  std::istringstream rest(description.substr(kind.size() + 1));
  std::string place;
  std::getline(rest, place, ',');
  const std::size_t at = place.find('@');
  const std::string name = place.substr(0, at);
  const std::string space = at == std::string::npos ? "" : place.substr(at + 1);
  if (kind == "link")
    return opened(PacketSocketPort::open(
        {.link = name, .space = space, .queues = queues, .runtime_directory = runtime}));
  if (kind != "tap") fail("unknown port " + description);
  TapOptions options{.name = name, .space = space, .queues = queues};
  for (std::string option; std::getline(rest, option, ',');) {
    if (option.starts_with("mtu=")) options.mtu = static_cast<uint32_t>(std::stoul(option.substr(4)));
    if (option == "plain") options.offloads = false;
  }
  return opened(TapPort::open(options));
}

class Worker {
 public:
  Worker(Port& first, Port& second, std::size_t index)
      : queues_{&first.queue(index), &second.queue(index)},
        poll_(::epoll_create1(EPOLL_CLOEXEC)),
        kick_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    auto pool = PacketPool::create({.packets = 2048, .bodies = 160});
    if (!pool) fail(pool.error().message);
    pool_ = std::move(*pool);
    add(kick_.get(), 2);
    watch();
    thread_ = std::thread([this] { run(); });
  }
  ~Worker() {
    stop_.store(true);
    kick();
    thread_.join();
  }
  void kick() { ::eventfd_write(kick_.get(), 1); }

 private:
  void add(int fd, uint32_t token) {
    epoll_event event{.events = EPOLLIN, .data = {.u32 = token}};
    // EEXIST: the description behind the number is the one that is watched already.
    if (::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST) fail("epoll_ctl");
  }
  void watch() {
    for (uint32_t i = 0; i < 2; ++i) {
      generation_[i] = queues_[i]->generation();
      add(queues_[i]->descriptor(), i);
      writable_[i] = false;
    }
  }
  void forget(std::size_t i) { ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, queues_[i]->descriptor(), nullptr); }

  void expect_writable(std::size_t i) {
    if (held_[i].empty() != writable_[i]) return;
    writable_[i] = !held_[i].empty();
    epoll_event event{.events = EPOLLIN | (writable_[i] ? EPOLLOUT : 0u),
                      .data = {.u32 = static_cast<uint32_t>(i)}};
    ::epoll_ctl(poll_.get(), EPOLL_CTL_MOD, queues_[i]->descriptor(), &event);
  }

  void send(std::size_t to, std::span<Packet*> packets) {
    const std::size_t taken = held_[to].empty() ? queues_[to]->transmit(packets) : 0;
    for (Packet* packet : packets.subspan(taken)) {
      if (!held_[to].add(packet)) PacketPool::release(packet);
    }
  }

  void retry(std::size_t to) {
    std::array<Packet*, kBatchPackets> some;
    while (!held_[to].empty()) {
      const std::span packets(some.data(), held_[to].take(some));
      const std::size_t taken = queues_[to]->transmit(packets);
      held_[to].put_back(packets.subspan(taken));
      if (taken < packets.size()) break;
    }
    expect_writable(to);
  }

  void forward(std::size_t from) {
    const std::size_t to = 1 - from;
    for (int rounds = 0; rounds < 8; ++rounds) {
      Batch batch;
      const ReceiveEnd end = queues_[from]->receive(batch, *pool_);
      send(to, batch.all());
      if (end == ReceiveEnd::failed) forget(from);
      if (end != ReceiveEnd::more) break;
    }
    expect_writable(to);
  }

  void run() {
    pool_->adopt();
    while (!stop_.load()) {
      epoll_event events[4];
      const int ready = ::epoll_wait(poll_.get(), events, 4, 100);
      for (int i = 0; i < ready; ++i) {
        const uint32_t token = events[i].data.u32;
        if (token == 2) {
          eventfd_t value;
          ::eventfd_read(kick_.get(), &value);
          for (std::size_t q = 0; q < 2; ++q) {
            if (generation_[q] != queues_[q]->generation()) watch();
          }
          continue;
        }
        if ((events[i].events & EPOLLOUT) != 0) retry(token);
        if ((events[i].events & ~EPOLLOUT) != 0) forward(token);
      }
    }
    for (HoldBack& held : held_) {
      for (Packet* packet = nullptr; held.take({&packet, 1}) == 1;) PacketPool::release(packet);
    }
  }

  PortQueue* queues_[2];
  HoldBack held_[2];
  Fd poll_, kick_;
  uint32_t generation_[2] = {};
  bool writable_[2] = {};
  std::unique_ptr<PacketPool> pool_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void print_counters(Port& port, const char* end) {
  static const char* const states[] = {"up", "blocked", "forward", "down"};
  std::printf("{\"name\":\"%s\",\"state\":\"%s\",\"mtu\":%u,\"queues\":[", std::string(port.name()).c_str(),
              states[static_cast<int>(port.state())], port.mtu());
  for (std::size_t i = 0; i < port.queues(); ++i) {
    const QueueCounters& counters = port.counters(i);
    std::printf(
        "%s{\"rx\":%lu,\"rxBytes\":%lu,\"rxSuper\":%lu,\"tx\":%lu,\"txBytes\":%lu,\"txSuper\":%lu,"
        "\"lost\":%lu,\"blocked\":%lu,\"failures\":%lu,",
        i == 0 ? "" : ",", counters.receive.packets.get(), counters.receive.bytes.get(),
        counters.receive.superframes.get(), counters.transmit.packets.get(), counters.transmit.bytes.get(),
        counters.transmit.superframes.get(), counters.receive.lost.get(), counters.transmit.blocked.get(),
        counters.receive.failures.get());
    print_drops([&](std::size_t reason) {
      return counters.receive.drops[reason].get() + counters.transmit.drops[reason].get();
    });
    std::printf("}");
  }
  std::printf("]}%s", end);
}

}  // namespace

int main(int argc, char** argv) {
  uint32_t queues = 1;
  std::string runtime = kRuntimeDirectory;
  std::vector<std::string> descriptions;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--queues" && i + 1 < argc) {
      queues = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (word == "--runtime" && i + 1 < argc) {
      runtime = argv[++i];
    } else {
      descriptions.push_back(word);
    }
  }
  if (descriptions.size() != 2) fail("port_forwarder wants two ports");
  Opened first = open_port(descriptions[0], queues, runtime);
  Opened second = open_port(descriptions[1], queues, runtime);
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::size_t i = 0; i < queues; ++i)
    workers.push_back(std::make_unique<Worker>(*first.port, *second.port, i));
  for (Opened* one : {&first, &second}) {
    one->port->on_change([&workers] {
      for (const auto& worker : workers) worker->kick();
    });
  }
  auto watch = LinkWatch::start();
  if (!watch) fail(watch.error().message);
  for (const Opened* one : {&first, &second}) {
    if (auto added = (*watch)->add(*one->listener); !added) fail(added.error().message);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::printf("{\"ports\":[");
    print_counters(*first.port, ",");
    print_counters(*second.port, "]}\n");
    std::fflush(stdout);
  }
  for (const Opened* one : {&first, &second}) (*watch)->remove(*one->listener);
  workers.clear();
  return 0;
}

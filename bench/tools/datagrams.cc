// Datagrams of 18 bytes (frames of 64 with the checksum trailer) between two hosts, for the benchmarks of the
// overlay and of the first packet.
//
//   datagrams answer PORT                        counts; sends back what begins with 'P', tells its count to
//   'Q' datagrams flood ADDRESS PORT SECONDS         as many as go; prints { "sent", "received" } a second
//   datagrams ping ADDRESS PORT COUNT            one after the other; prints { "p50_us", "p99_us", "lost" }
//   datagrams first ADDRESS PORT COUNT PAUSE_ms  each after a pause, the way there only; prints the same.
//   Both
//                                                hosts are namespaces of one machine, so they have one clock
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kBytes = 18;
constexpr std::size_t kVector = 32;
constexpr int kBufferBytes = 4 << 20;
constexpr unsigned kKnown = 500;
constexpr int kSilent_us = 200'000;

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int open_socket() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) fail("socket");
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kBufferBytes, sizeof(int));
  const timeval silent{0, kSilent_us};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silent, sizeof(silent));
  return fd;
}

// Vectors of datagrams in buffers of their own.
struct Messages {
  std::array<std::array<char, 64>, kVector> bytes{};
  std::array<sockaddr_in, kVector> peers{};
  std::array<iovec, kVector> pieces{};
  std::array<mmsghdr, kVector> headers{};

  explicit Messages(std::size_t length, bool named) {
    for (std::size_t i = 0; i < kVector; ++i) {
      pieces[i] = {bytes[i].data(), length};
      headers[i].msg_hdr.msg_iov = &pieces[i];
      headers[i].msg_hdr.msg_iovlen = 1;
      if (!named) continue;
      headers[i].msg_hdr.msg_name = &peers[i];
      headers[i].msg_hdr.msg_namelen = sizeof(sockaddr_in);
    }
  }
};

uint64_t now_ns() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count());
}

void answer(uint16_t port) {
  const int fd = open_socket();
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_port = htons(port);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&here), sizeof(here)) < 0) fail("bind");
  std::puts("ready");
  std::fflush(stdout);
  Messages messages(64, true);
  uint64_t count = 0;
  for (;;) {
    const int got = ::recvmmsg(fd, messages.headers.data(), kVector, MSG_WAITFORONE, nullptr);
    const uint64_t came_ns = now_ns();
    for (int i = 0; i < got; ++i) {
      const auto index = static_cast<std::size_t>(i);
      const auto& peer = messages.peers[index];
      const auto send = [&](const void* bytes, std::size_t length) {
        ::sendto(fd, bytes, length, 0, reinterpret_cast<const sockaddr*>(&peer), sizeof(peer));
      };
      const char kind = messages.bytes[index][0];
      if (kind == 'P') send(messages.bytes[index].data(), kBytes);
      if (kind == 'F') send(&came_ns, sizeof(came_ns));
      if (kind == 'S') ++count;
      if (kind != 'Q') continue;
      send(&count, sizeof(count));
      count = 0;
    }
  }
}

int reach(const char* address, const char* port) {
  const int fd = open_socket();
  sockaddr_in there{};
  there.sin_family = AF_INET;
  there.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  if (::inet_pton(AF_INET, address, &there.sin_addr) != 1) fail(address);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&there), sizeof(there)) < 0) fail("connect");
  return fd;
}

// The answerer's count since it was asked last. Asked again until it answers: the question may be lost, too.
uint64_t counted(int fd) {
  for (int tries = 0; tries < 50; ++tries) {
    uint64_t count = 0;
    ::send(fd, "Q", 1, 0);
    if (::recv(fd, &count, sizeof(count), 0) == sizeof(count)) return count;
  }
  fail("no answer");
}

void flood(int fd, double seconds) {
  Messages messages(kBytes, false);
  for (auto& bytes : messages.bytes) bytes[0] = 'S';
  counted(fd);
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration<double>(seconds);
  uint64_t sent = 0;
  while (Clock::now() < end) {
    const int done = ::sendmmsg(fd, messages.headers.data(), kVector, 0);
    if (done < 0 && errno != ENOBUFS && errno != EINTR) fail("sendmmsg");
    if (done > 0) sent += static_cast<uint64_t>(done);
  }
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  ::usleep(kSilent_us);
  const uint64_t received = counted(fd);
  std::printf("{\"sent\":%.0f,\"received\":%.0f}\n", static_cast<double>(sent) / took,
              static_cast<double>(received) / took);
}

// Prints quantiles of what took so long, in microseconds.
void print(std::vector<double>& times, std::size_t lost) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times.empty() ? 0.0
                         : times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))];
  };
  std::printf("{\"p50_us\":%.1f,\"p99_us\":%.1f,\"lost\":%zu}\n", at(0.50), at(0.99), lost);
}

void ping(int fd, std::size_t count) {
  std::vector<double> times;
  std::size_t lost = 0;
  std::array<char, kBytes> bytes{'P'};
  for (uint32_t number = 0; number < count; ++number) {
    std::memcpy(&bytes[4], &number, sizeof(number));
    const auto begin = Clock::now();
    if (::send(fd, bytes.data(), bytes.size(), 0) < 0) fail("send");
    uint32_t heard = number + 1;
    std::array<char, 64> back{};
    ssize_t got = 0;
    while (heard != number && (got = ::recv(fd, back.data(), back.size(), 0)) >= 0)
      std::memcpy(&heard, &back[4], sizeof(heard));
    if (got < 0)
      ++lost;
    else
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  print(times, lost);
}

// One question of `bytes` and its answer, at least `from_ns`: what was given up before may still come. 0 when
// lost.
uint64_t told(int fd, const std::array<char, kBytes>& bytes, uint64_t from_ns) {
  if (::send(fd, bytes.data(), bytes.size(), 0) < 0) fail("send");
  uint64_t came_ns = 0;
  while (came_ns < from_ns)
    if (::recv(fd, &came_ns, sizeof(came_ns), 0) < 0) return 0;
  return came_ns;
}

void first(int fd, std::size_t count, unsigned pause_ms) {
  std::vector<double> times;
  std::size_t lost = 0;
  const std::array<char, kBytes> bytes{'F'};
  for (unsigned i = 0; i < kKnown; ++i) told(fd, bytes, 0);
  for (std::size_t i = 0; i < count; ++i) {
    ::usleep(pause_ms * 1000);
    const uint64_t began_ns = now_ns();
    const uint64_t came_ns = told(fd, bytes, began_ns);
    if (came_ns == 0)
      ++lost;
    else
      times.push_back(static_cast<double>(came_ns - began_ns) / 1000);
  }
  print(times, lost);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "answer" && argc == 3)
    answer(static_cast<uint16_t>(std::atoi(argv[2])));
  else if (verb == "flood" && argc == 5)
    flood(reach(argv[2], argv[3]), std::atof(argv[4]));
  else if (verb == "ping" && argc == 5)
    ping(reach(argv[2], argv[3]), static_cast<std::size_t>(std::atol(argv[4])));
  else if (verb == "first" && argc == 6)
    first(reach(argv[2], argv[3]), static_cast<std::size_t>(std::atol(argv[4])),
          static_cast<unsigned>(std::atoi(argv[5])));
  else
    return 2;
  return 0;
}

// FUSE over io_uring against the real kernel: a file whose bytes say where they are, served from the ring's
// threads and from others; its end by unmounting, by abort and by stop(); and the way back to the device
// where entries are refused. What needs a mount is left out, with the reason, where the kernel or the user
// may not.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/uring_channel.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <functional>
#include <thread>

#include "native/fuse/handshake.h"
#include "native/fuse/mount.h"
#include "native/fuse/request.h"

using namespace penstock;
using namespace penstock::fuse;

namespace {

constexpr const char* kSwitch = "/sys/module/fuse/parameters/enable_uring";
constexpr uint64_t kFileInode = 2;
constexpr uint64_t kFileBytes = 4 << 20;

std::byte byte_at(uint64_t offset) {
  return static_cast<std::byte>((offset * 2654435761U) >> 24);
}

std::string switch_value() {
  std::ifstream file(kSwitch);
  std::string value;
  file >> value;
  return value;
}

// Answers for one file, "file", in the root. Requests whose number is odd are answered by another thread;
// waiting locks are kept until an unlock comes.
class Mount {
 public:
  explicit Mount(uint32_t threads, uint32_t depth) {
    char pattern[] = "/tmp/penstock-uring-XXXXXX";
    path = ::mkdtemp(pattern);
    auto made = UringChannel::create(threads, depth);
    REQUIRE(made);
    channel = std::move(*made);
    auto device = mount_fuse({.mountpoint = path});
    REQUIRE(device);
    HandshakeOptions options;
    options.io_uring = true;
    const auto agreed = handshake(device->get(), options);
    REQUIRE(agreed);
    REQUIRE(agreed->has(init_flag::over_io_uring));
    REQUIRE(channel->open(std::move(*device)));
    for (uint32_t queue = 0; queue < channel->queues(); ++queue)
      workers_.emplace_back([this, queue] { work(queue); });
    other_ = std::thread([this] { answer_elsewhere(); });
    channel->wait_until_received_from();
    struct stat status {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    connection = std::to_string(minor(status.st_dev));
  }
  ~Mount() {
    ::umount2(path.c_str(), MNT_DETACH);
    channel->stop();
    join();
    ::rmdir(path.c_str());
  }

  // Every thread has left receive() by itself.
  void join() {
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_all();
    if (other_.joinable()) other_.join();
  }

  std::string path;
  std::string connection;  // its name in the fusectl file system
  std::unique_ptr<UringChannel> channel;
  std::atomic<uint64_t> from_ring{0};
  std::atomic<uint64_t> in_place{0};
  std::atomic<uint64_t> interrupts{0};
  std::atomic<uint64_t> written{0};
  std::atomic<bool> wrong{false};
  std::atomic<bool> keep_reads{false};  // unanswered, for ever

 private:
  struct Job {
    uint32_t origin;
    std::vector<std::byte> bytes;
  };

  void work(uint32_t queue) {
    for (;;) {
      const auto [bytes, origin] = channel->receive(queue);
      if (bytes.empty()) return;
      const auto request = parse_request(bytes);
      if (!request) {
        wrong = true;
        continue;
      }
      if (queue + 1 < channel->queues()) ++from_ring;
      if (request->opcode() == Opcode::interrupt) ++interrupts;
      if (request->header.unique / 2 % 2 == 1 && request->opcode() != Opcode::write) {
        std::lock_guard lock(mutex_);
        jobs_.push_back({origin, {bytes.begin(), bytes.end()}});
        arrived_.notify_all();
      } else {
        serve(*request, origin);
      }
    }
  }

  void answer_elsewhere() {
    for (;;) {
      Job job;
      {
        std::unique_lock lock(mutex_);
        arrived_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
        if (stopping_) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      serve(*parse_request(job.bytes), job.origin);
    }
  }

  static Attr attributes(uint64_t ino) {
    Attr attr{};
    attr.ino = ino;
    attr.mode = ino == kRootInode ? S_IFDIR | 0755 : S_IFREG | 0644;
    attr.size = ino == kRootInode ? 0 : kFileBytes;
    attr.nlink = 1;
    return attr;
  }

  template <typename Out>
  void answer(uint32_t origin, const Request& request, Out out) {
    const std::array parts{iovec{&out, sizeof(out)}};
    channel->reply(origin, request.header.unique, 0, parts);
  }

  void serve(const Request& request, uint32_t origin) {
    switch (request.opcode()) {
      case Opcode::getattr:
        return answer(origin, request, AttrOut{0, 0, 0, attributes(request.header.nodeid)});
      case Opcode::lookup: {
        if (request.names[0] != "file") return fail(origin, request, ENOENT);
        EntryOut entry{};
        entry.nodeid = kFileInode;
        entry.entry_valid = 1000;
        entry.attr = attributes(kFileInode);
        return answer(origin, request, entry);
      }
      case Opcode::open:
        return answer(origin, request, OpenOut{1, open_out_flag::direct_io, 0});
      case Opcode::read:
        return read(origin, request);
      case Opcode::write:
        return write(origin, request);
      case Opcode::setlkw: {
        std::lock_guard lock(mutex_);
        waiting_.push_back({origin, request.header.unique});
        return;
      }
      case Opcode::setlk:
        unlock();
        return fail(origin, request, 0);
      case Opcode::flush:
      case Opcode::release:
        return fail(origin, request, 0);
      case Opcode::forget:
      case Opcode::batch_forget:
      case Opcode::interrupt:
        return;
      default:
        return fail(origin, request, ENOSYS);
    }
  }

  void fail(uint32_t origin, const Request& request, int error) {
    channel->reply(origin, request.header.unique, error, {});
  }

  void read(uint32_t origin, const Request& request) {
    if (keep_reads) return;
    const auto in = request.arguments<ReadIn>();
    const std::size_t length =
        in.offset >= kFileBytes ? 0 : std::min<uint64_t>(in.size, kFileBytes - in.offset);
    std::vector<std::byte> own;
    auto room = channel->answer_room(origin);
    if (room.empty()) {
      own.resize(length);
      room = own;
    } else {
      ++in_place;
    }
    for (std::size_t at = 0; at < length; ++at) room[at] = byte_at(in.offset + at);
    const std::array parts{iovec{room.data(), length}};
    channel->reply(origin, request.header.unique, 0, parts);
  }

  void write(uint32_t origin, const Request& request) {
    const auto in = request.arguments<WriteIn>();
    const auto data = request.tail(sizeof(WriteIn));
    for (std::size_t at = 0; at < data.size(); ++at) {
      if (data[at] != byte_at(in.offset + at)) wrong = true;
    }
    written += data.size();
    answer(origin, request, WriteOut{in.size, 0});
  }

  void unlock() {
    std::deque<std::pair<uint32_t, uint64_t>> granted;
    {
      std::lock_guard lock(mutex_);
      granted.swap(waiting_);
    }
    for (const auto& [origin, unique] : granted) channel->reply(origin, unique, 0, {});
  }

  std::vector<std::thread> workers_;
  std::thread other_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Job> jobs_;
  std::deque<std::pair<uint32_t, uint64_t>> waiting_;
  bool stopping_ = false;
};

bool possible() {
  if (::geteuid() != 0) {
    MESSAGE("left out: only root mounts");
  } else if (switch_value() != "Y") {
    MESSAGE("left out: " << std::string(kSwitch) << " is not Y");
  } else {
    return true;
  }
  return false;
}

// Every user of a mount is a process of its own, and without our descriptors: while it holds /dev/fuse open
// nothing would end the connection should we die. `body` answers the exit code; an alarm bounds it.
pid_t start_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::syscall(SYS_close_range, 3U, ~0U, 0U);
  ::alarm(120);
  ::_exit(body());
}

int in_child(const std::function<int()>& body) {
  const pid_t child = start_child(body);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

int read_everything(const std::string& file, std::size_t block) {
  const int fd = ::open(file.c_str(), O_RDONLY);
  if (fd < 0) return 1;
  std::vector<std::byte> buffer(block);
  for (uint64_t offset = 0; offset < kFileBytes; offset += block) {
    if (::pread(fd, buffer.data(), block, static_cast<off_t>(offset)) != static_cast<ssize_t>(block))
      return 2;
    for (std::size_t at = 0; at < block; ++at) {
      if (buffer[at] != byte_at(offset + at)) return 3;
    }
  }
  return ::close(fd) == 0 ? 0 : 4;
}

int write_everything(const std::string& file, std::size_t block) {
  const int fd = ::open(file.c_str(), O_WRONLY);
  if (fd < 0) return 1;
  std::vector<std::byte> buffer(block);
  for (uint64_t offset = 0; offset < kFileBytes; offset += block) {
    for (std::size_t at = 0; at < block; ++at) buffer[at] = byte_at(offset + at);
    if (::pwrite(fd, buffer.data(), block, static_cast<off_t>(offset)) != static_cast<ssize_t>(block))
      return 2;
  }
  return ::close(fd) == 0 ? 0 : 4;
}

// Several processes at once; true when all of them succeed.
bool all_succeed(std::size_t count, const std::function<int(std::size_t)>& body) {
  std::vector<pid_t> children;
  for (std::size_t index = 0; index < count; ++index) {
    children.push_back(start_child([&] { return body(index); }));
  }
  bool good = true;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) good = false;
  }
  return good;
}

bool eventually(const std::function<bool()>& condition) {
  for (int tries = 0; tries < 6000; ++tries) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// What every lock waits for.
bool unlock(const std::string& file) {
  return in_child([&] {
           const int fd = ::open(file.c_str(), O_RDWR);
           struct flock lock {};
           lock.l_type = F_UNLCK;
           return fd >= 0 && ::fcntl(fd, F_SETLK, &lock) == 0 ? 0 : 1;
         }) == 0;
}

// The fusectl file system is mounted for a moment: a container has none.
void abort_connection(const std::string& connection) {
  char pattern[] = "/tmp/penstock-fusectl-XXXXXX";
  const std::string directory = ::mkdtemp(pattern);
  REQUIRE(::mount("none", directory.c_str(), "fusectl", 0, nullptr) == 0);
  const int abort = ::open((directory + "/" + connection + "/abort").c_str(), O_WRONLY);
  CHECK(abort >= 0);
  CHECK(::write(abort, "1", 1) == 1);
  ::close(abort);
  CHECK(::umount(directory.c_str()) == 0);
  ::rmdir(directory.c_str());
}

}  // namespace

TEST_CASE("reads and writes of every size carry the right bytes, answered here or elsewhere") {
  if (!possible()) return;
  Mount mount(2, 2);
  const std::string file = mount.path + "/file";
  constexpr std::array<std::size_t, 4> kBlocks{4096, 65536, 1 << 20, 512};
  CHECK(
      all_succeed(kBlocks.size(), [&](std::size_t index) { return read_everything(file, kBlocks[index]); }));
  CHECK(all_succeed(3, [&](std::size_t index) { return write_everything(file, kBlocks[index]); }));
  CHECK(mount.written == 3 * kFileBytes);
  CHECK_FALSE(mount.wrong);
  CHECK(mount.from_ring > 1000);
  CHECK(mount.in_place > 1000);
  const ChannelState state = mount.channel->state();
  CHECK(state.kind == ChannelKind::io_uring);
  CHECK(state.refusal.empty());
  CHECK(state.handed_over > 100);
  CHECK(state.commit_failures == 0);
  REQUIRE(::umount(mount.path.c_str()) == 0);
  mount.join();
}

TEST_CASE("one thread serves the queues of all CPUs") {
  if (!possible()) return;
  Mount mount(1, 1);
  const std::string file = mount.path + "/file";
  CHECK(all_succeed(4, [&](std::size_t) { return read_everything(file, 65536); }));
  CHECK_FALSE(mount.wrong);
}

TEST_CASE("more waiting locks than entries do not keep the unlock out") {
  if (!possible()) return;
  Mount mount(2, 1);
  const std::string file = mount.path + "/file";
  const uint64_t before = mount.channel->state().entries;
  constexpr std::size_t kWaiters = 24;
  std::atomic<bool> released{false};
  std::thread unlocker([&] {
    CHECK(eventually([&] { return mount.channel->state().entries >= before + kWaiters; }));
    CHECK(unlock(file));
    released = true;
  });
  CHECK(all_succeed(kWaiters, [&](std::size_t) {
    const int fd = ::open(file.c_str(), O_RDWR);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    return fd >= 0 && ::fcntl(fd, F_SETLKW, &lock) == 0 ? 0 : 1;
  }));
  unlocker.join();
  CHECK(released);
}

TEST_CASE("an interrupt comes over the device") {
  if (!possible()) return;
  Mount mount(2, 2);
  const std::string file = mount.path + "/file";
  const pid_t waiter = start_child([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    const int fd = ::open(file.c_str(), O_RDWR);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    // Again and again: the first may come before it waits.
    itimerval timer{{0, 100'000}, {0, 100'000}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
    return ::fcntl(fd, F_SETLKW, &lock) == 0 ? 0 : 1;  // not answered before the unlock
  });
  CHECK(eventually([&] { return mount.interrupts > 0; }));
  CHECK(unlock(file));
  int status = 0;
  CHECK(::waitpid(waiter, &status, 0) == waiter);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(mount.interrupts == 1);
}

TEST_CASE("an abort ends every thread, and whoever waits, though nothing is answered") {
  if (!possible()) return;
  Mount mount(2, 2);
  const std::string file = mount.path + "/file";
  mount.keep_reads = true;
  std::vector<pid_t> readers;
  for (int index = 0; index < 6; ++index) {
    readers.push_back(start_child([&] { return read_everything(file, 4096); }));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  abort_connection(mount.connection);
  for (const pid_t child : readers) {
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) != 0);
  }
  mount.join();
}

TEST_CASE("stop() ends every thread while the mount lives and answers are owed") {
  if (!possible()) return;
  Mount mount(2, 1);
  const std::string file = mount.path + "/file";
  mount.keep_reads = true;
  const pid_t reader = start_child([&] { return read_everything(file, 4096); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  mount.channel->stop();
  mount.join();
  ::umount2(mount.path.c_str(), MNT_DETACH | MNT_FORCE);
  mount.channel.reset();
  int status = 0;
  CHECK(::waitpid(reader, &status, 0) == reader);
  mount.channel = std::move(*UringChannel::create(1, 1));  // for the destructor
}

TEST_CASE("where entries are refused requests are taken from the device") {
  auto made = UringChannel::create(2, 1);
  if (!made) {
    MESSAGE("left out: " << made.error().message);
    return;
  }
  UringChannel& channel = **made;
  // A FIFO takes no commands, and gives back what was written to it.
  char pattern[] = "/tmp/penstock-fifo-XXXXXX";
  const std::string directory = ::mkdtemp(pattern);
  const std::string path = directory + "/device";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const int fifo = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const int writer = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(fifo >= 0);
  REQUIRE(channel.open(Fd(fifo)));
  std::atomic<uint64_t> received{0};
  std::vector<std::thread> workers;
  for (uint32_t queue = 0; queue < channel.queues(); ++queue) {
    workers.emplace_back([&channel, &received, queue] {
      for (;;) {
        const auto [bytes, origin] = channel.receive(queue);
        if (bytes.empty()) return;
        CHECK(channel.answer_room(origin).empty());
        InHeader header;
        std::memcpy(&header, bytes.data(), sizeof(header));
        received += header.unique;
      }
    });
  }
  channel.wait_until_received_from();
  const ChannelState state = channel.state();
  CHECK(state.kind == ChannelKind::device);
  CHECK(state.refusal.find("refused") != std::string::npos);
  for (uint64_t unique = 1; unique <= 3; ++unique) {
    const InHeader header{sizeof(InHeader), static_cast<uint32_t>(Opcode::getattr), unique, 1, 0, 0, 0, 0, 0};
    REQUIRE(::write(writer, &header, sizeof(header)) == sizeof(header));
    CHECK(eventually([&] { return received == unique * (unique + 1) / 2; }));
  }
  channel.stop();
  for (std::thread& worker : workers) worker.join();
  ::close(writer);
  ::unlink(path.c_str());
  ::rmdir(directory.c_str());
}

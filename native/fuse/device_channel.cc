#include "native/fuse/device_channel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <chrono>

#include "native/fuse/protocol.h"

namespace penstock::fuse {

namespace {

int wake_signal() {
  return SIGRTMAX - 3;
}

void install_wake_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    sigaction(wake_signal(), &action, nullptr);  // no SA_RESTART: the read must return
  });
}

// A descriptor of its own with its own table of requests; where /dev/fuse may not be opened (fusermount3
// opened the first one for us) the same file once more, which works as well and only shares that table's
// lock.
Fd clone_device(int device, int flags = 0) {
  Fd clone(::open("/dev/fuse", O_RDWR | O_CLOEXEC | flags));
  uint32_t master = static_cast<uint32_t>(device);
  if (clone.valid() && ::ioctl(clone.get(), kIoctlClone, &master) == 0) return clone;
  // The same file would share these flags with the workers.
  return flags == 0 ? Fd(::fcntl(device, F_DUPFD_CLOEXEC, 0)) : Fd();
}

int write_message(int fd, OutHeader header, std::span<const iovec> parts) {
  std::array<iovec, kMaxReplyParts + 1> vector{};
  vector[0] = {&header, sizeof(header)};
  std::size_t count = 1;
  std::size_t length = sizeof(header);
  for (const iovec& part : parts) {
    if (part.iov_len == 0) continue;
    if (count == vector.size()) return E2BIG;
    vector[count++] = part;
    length += part.iov_len;
  }
  header.len = static_cast<uint32_t>(length);
  while (::writev(fd, vector.data(), static_cast<int>(count)) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace

DeviceChannel::Queue::~Queue() {
  if (buffer != nullptr) ::munmap(buffer, kRequestBuffer);
}

Result<void> DeviceChannel::Queue::allocate() {
  void* memory = ::mmap(nullptr, kRequestBuffer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno(errno, "cannot map a FUSE request buffer");
  buffer = static_cast<std::byte*>(memory);
  return {};
}

Result<std::unique_ptr<DeviceChannel>> DeviceChannel::open(Fd device, uint32_t queues) {
  install_wake_handler();
  std::unique_ptr<DeviceChannel> channel(new DeviceChannel());
  for (uint32_t index = 0; index < queues; ++index) {
    auto queue = std::make_unique<Queue>();
    if (index == 0) {
      queue->fd = std::move(device);
    } else {
      queue->fd = clone_device(channel->device());
      if (!queue->fd.valid()) return Error::from_errno(errno, "cannot open another FUSE queue");
    }
    if (Result<void> mapped = queue->allocate(); !mapped) return mapped.error();
    channel->queues_.push_back(std::move(queue));
  }
  auto polled = std::make_unique<Queue>();
  polled->fd = clone_device(channel->device(), O_NONBLOCK);
  if (polled->fd.valid()) {
    if (Result<void> mapped = polled->allocate(); !mapped) return mapped.error();
    channel->polled_ = std::move(polled);
  }
  return channel;
}

DeviceChannel::~DeviceChannel() {
  stop();
}

Received DeviceChannel::receive(uint32_t index) {
  Queue& queue = *queues_[index];
  {
    std::lock_guard lock(mutex_);
    queue.reader = ::pthread_self();
    queue.reading = true;
  }
  std::span<std::byte> request;
  while (!stopping_.load(std::memory_order_acquire)) {
    const ssize_t got = ::read(queue.fd.get(), queue.buffer, kRequestBuffer);
    if (got >= static_cast<ssize_t>(sizeof(InHeader))) {
      request = {queue.buffer, static_cast<std::size_t>(got)};
      break;
    }
    // ENOENT: the request was interrupted before we took it. ENODEV (and a short read, which the kernel never
    // makes) end the queue.
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    break;
  }
  std::lock_guard lock(mutex_);
  queue.reading = false;
  if (request.empty()) left_.notify_all();
  return {request, index};
}

Received DeviceChannel::poll() {
  if (polled_ == nullptr || stopping_.load(std::memory_order_acquire)) return {};
  const ssize_t got = ::read(polled_->fd.get(), polled_->buffer, kRequestBuffer);
  // Whatever it is but a request, a worker learns of it too.
  if (got < static_cast<ssize_t>(sizeof(InHeader))) return {};
  return {{polled_->buffer, static_cast<std::size_t>(got)}, queues()};
}

int DeviceChannel::reply(uint32_t origin, uint64_t unique, int error, std::span<const iovec> parts) {
  const OutHeader header{0, -error, unique};
  return write_message(queue_of(origin).fd.get(), header, error == 0 ? parts : std::span<const iovec>{});
}

bool DeviceChannel::reply_from_file(uint32_t origin, uint64_t unique, int descriptor, uint64_t offset,
                                    std::size_t length) {
  Queue& queue = queue_of(origin);
  return queue.pipe.reply(queue.fd.get(), unique, descriptor, offset, length);
}

int DeviceChannel::notify(int32_t code, std::span<const iovec> parts) {
  return write_message(device(), OutHeader{0, code, 0}, parts);
}

void DeviceChannel::stop() {
  stopping_.store(true, std::memory_order_release);
  std::unique_lock lock(mutex_);
  const auto none_reads = [this] {
    bool reading = false;
    for (const auto& queue : queues_) reading = reading || queue->reading;
    return !reading;
  };
  while (!none_reads()) {
    for (const auto& queue : queues_) {
      if (queue->reading) ::pthread_kill(queue->reader, wake_signal());
    }
    left_.wait_for(lock, std::chrono::milliseconds(2), none_reads);
  }
}

}  // namespace penstock::fuse

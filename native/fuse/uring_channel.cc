#include "native/fuse/uring_channel.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace penstock::fuse {

namespace {

constexpr uint32_t kThreadsMax = 64;
constexpr uint32_t kDepthMin = 4;
constexpr uint32_t kDepthDefault = 32;
constexpr uint32_t kDepthMax = 256;
constexpr uint32_t kEntriesDefault = 512;  // of all queues: half a gigabyte of addresses

// CPUs the kernel could ever have, which is what it makes queues for: "0-3" or "0-1,4-5".
uint32_t possible_cpus() {
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::string text;
  file >> text;
  const auto last = text.find_last_of("-,");
  const std::string number = last == std::string::npos ? text : text.substr(last + 1);
  const long highest = number.empty() ? -1 : std::strtol(number.c_str(), nullptr, 10);
  return highest < 0 || highest > UINT16_MAX ? 0 : static_cast<uint32_t>(highest) + 1;
}

}  // namespace

Result<std::unique_ptr<UringChannel>> UringChannel::create(uint32_t threads, uint32_t depth) {
  const uint32_t cpus = possible_cpus();
  if (cpus == 0)
    return Error{ENOSYS, "/sys/devices/system/cpu/possible does not say how many CPUs there are"};
  if (depth == 0) depth = std::clamp(kEntriesDefault / cpus, kDepthMin, kDepthDefault);
  threads = std::clamp(threads, 1U, std::min(cpus, kThreadsMax));
  std::unique_ptr<UringChannel> channel(new UringChannel());
  for (uint32_t thread = 0; thread < threads; ++thread) {
    std::vector<uint16_t> share;
    for (uint32_t cpu = thread; cpu < cpus; cpu += threads) share.push_back(static_cast<uint16_t>(cpu));
    auto worker = UringWorker::create(std::move(share), std::min(depth, kDepthMax));
    if (!worker) return worker.error();
    channel->workers_.push_back(std::move(*worker));
  }
  channel->attached_.resize(threads);
  return channel;
}

Result<void> UringChannel::open(Fd device) {
  // One queue for FORGET and INTERRUPT, and one for each thread in case the entries are refused.
  auto opened = DeviceChannel::open(std::move(device), queues());
  if (!opened) return opened.error();
  device_ = std::move(*opened);
  return {};
}

UringChannel::~UringChannel() {
  stop();
}

Received UringChannel::receive(uint32_t queue) {
  if (queue == workers_.size()) {
    const Received request = receive_from_device(queue);
    if (request.bytes.empty()) end();
    return request;
  }
  attach(queue);
  Received request = workers_[queue]->receive(ended_);
  if (!request.bytes.empty()) {
    request.origin |= queue << kEntryBits;
    return request;
  }
  end();
  if (stopping_.load(std::memory_order_acquire)) return {};
  return receive_from_device(queue);  // which has ended too, unless entries were refused
}

Received UringChannel::receive_from_device(uint32_t queue) {
  Received request = device_->receive(queue);
  request.origin |= kFromDevice;
  return request;
}

void UringChannel::attach(uint32_t queue) {
  if (attached_[queue]) return;  // of this thread alone
  const int refused = workers_[queue]->attach(*device_);
  std::lock_guard lock(mutex_);
  attached_[queue] = true;
  ++attached_count_;
  if (refused != 0) {
    refusal_ = std::string("the kernel refused an entry: ") + std::strerror(refused);
    ended_.store(true, std::memory_order_seq_cst);
  }
  attached_changed_.notify_all();
}

void UringChannel::wait_until_received_from() {
  std::unique_lock lock(mutex_);
  attached_changed_.wait(lock, [this] { return attached_count_ == workers_.size(); });
}

std::span<std::byte> UringChannel::answer_room(uint32_t origin) {
  if ((origin & kFromDevice) != 0) return {};
  return workers_[origin >> kEntryBits]->answer_room(origin & ((1U << kEntryBits) - 1));
}

int UringChannel::reply(uint32_t origin, uint64_t unique, int error, std::span<const iovec> parts) {
  if ((origin & kFromDevice) != 0) return device_->reply(origin & ~kFromDevice, unique, error, parts);
  return workers_[origin >> kEntryBits]->reply(origin & ((1U << kEntryBits) - 1), unique, error, parts);
}

void UringChannel::end() {
  ended_.store(true, std::memory_order_seq_cst);
  if (rung_.exchange(true)) return;
  for (const auto& worker : workers_) worker->ring();
}

void UringChannel::stop() {
  stopping_.store(true, std::memory_order_release);
  end();
  if (device_ != nullptr) device_->stop();
}

ChannelState UringChannel::state() const {
  ChannelState state;
  {
    std::lock_guard lock(mutex_);
    state.refusal = refusal_;
  }
  state.kind = state.refusal.empty() ? ChannelKind::io_uring : ChannelKind::device;
  for (const auto& worker : workers_) {
    state.entries += worker->entries();
    state.handed_over += worker->handed_over();
    state.rings += worker->rings();
    state.commit_failures += worker->commit_failures();
  }
  return state;
}

}  // namespace penstock::fuse

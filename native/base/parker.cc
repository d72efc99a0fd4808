#include "native/base/parker.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cassert>

namespace penstock {

Result<std::unique_ptr<Parker>> Parker::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return Error::from_errno(errno, "create an epoll set");
  Fd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return Error::from_errno(errno, "create an eventfd");
  auto parker = std::unique_ptr<Parker>(new Parker(std::move(epoll), std::move(event)));
  if (auto watched = parker->watch(parker->event_.get(), EPOLLIN, kOwnToken); !watched)
    return watched.error();
  return parker;
}

Result<void> Parker::watch(int fd, uint32_t events, uint64_t token) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0)
    return Error::from_errno(errno, "watch a descriptor");
  return {};
}

Result<void> Parker::change(int fd, uint32_t events, uint64_t token) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0)
    return Error::from_errno(errno, "change what a descriptor is watched for");
  return {};
}

void Parker::forget(int fd) {
  // Refused only for a descriptor that is closed or was never watched: then there is nothing to forget.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Parker::Wake Parker::block(uint64_t timeout_ns, std::span<epoll_event> events) {
  assert(!events.empty());
  timespec timeout{};
  timeout.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000U);
  timeout.tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000U);
  const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   timeout_ns == kForever ? nullptr : &timeout, nullptr);
  const bool woken = state_.exchange(State::awake, std::memory_order_acquire) == State::waking;
  Wake wake = take(events, count);
  // With WAKING exchanged but the eventfd not yet written the write comes later and ends the next sleep at
  // once.
  if (woken) {
    wake.by_producer = true;
    const uint64_t woken_at_ns = woken_at_ns_.load(std::memory_order_relaxed);
    const uint64_t now_ns = monotonic_ns();
    if (woken_at_ns != 0 && now_ns > woken_at_ns) wake.wake_latency_ns = now_ns - woken_at_ns;
  }
  wake.timed_out = count == 0;
  return wake;
}

Parker::Wake Parker::poll(std::span<epoll_event> events) {
  return take(events, ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0));
}

// Takes our own event out of `events`. A negative count is EINTR: nothing is ready that we know of.
Parker::Wake Parker::take(std::span<epoll_event> events, int count) {
  Wake wake;
  for (std::size_t i = 0; i < static_cast<std::size_t>(std::max(count, 0)); ++i) {
    if (events[i].data.u64 != kOwnToken) {
      events[wake.ready++] = events[i];
      continue;
    }
    eventfd_t drained = 0;
    ::eventfd_read(event_.get(), &drained);
  }
  return wake;
}

bool Parker::wake_sleeper() {
  // Before the exchange, so that whoever sees WAKING sees the time of this wake and not of an earlier one.
  woken_at_ns_.store(monotonic_ns(), std::memory_order_relaxed);
  State expected = State::sleeping;
  if (!state_.compare_exchange_strong(expected, State::waking, std::memory_order_seq_cst)) return false;
  // An eventfd refuses a write only when its counter would pass 2^64 - 2, and it is read at every wake.
  ::eventfd_write(event_.get(), 1);
  return true;
}

}  // namespace penstock

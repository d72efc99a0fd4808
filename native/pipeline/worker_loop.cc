// The worker's thread: rounds, sleeps, descriptors, and the change from one plan to the next.
#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <string>

#include "native/packet/drop_witness.h"
#include "native/pipeline/worker.h"

namespace penstock::net {
namespace {

// While there is always something to do, the descriptors that were found empty are asked again every so many
// rounds.
constexpr unsigned kRoundsBetweenPolls = 8;

}  // namespace

void Worker::attach() {
  pool_->adopt();
  quiescence_.join(index_);
}

void Worker::start() {
  started_.store(true, std::memory_order_relaxed);
  thread_ = std::thread([this] { run(); });
  // Fifteen characters at most; a name is for people who look at the thread, so that a refusal does no harm.
  pthread_setname_np(thread_.native_handle(), ("penstock-net-" + std::to_string(index_)).c_str());
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  parker_->wake();
  thread_.join();
}

void Worker::run() {
  attach();
  unsigned rounds_to_poll = kRoundsBetweenPolls;
  while (!stopping_.load(std::memory_order_acquire)) {
    const Round did = round();
    if (did.worked) {
      if (--rounds_to_poll > 0) continue;
      rounds_to_poll = kRoundsBetweenPolls;
      poll_descriptors();
    } else if (did.idle.stay) {
      poll_descriptors();
      relax();
    } else {
      sleep(did);
    }
  }
  detach();
  quiescence_.leave(index_);
}

void Worker::sleep(const Round& round) {
  uint64_t timeout_ns = round.idle.sleep_max_ns;
  if (round.due_ns != UINT64_MAX)
    timeout_ns = std::min(timeout_ns, round.due_ns > now_ns_ ? round.due_ns - now_ns_ : 0);
  const uint32_t looks = looks_seen_;
  quiescence_.leave(index_);
  const Parker::Wake wake = parker_->park(timeout_ns, events_, [&] {
    return work_waits() || stopping_.load(std::memory_order_acquire) ||
           looks_.load(std::memory_order_acquire) != looks;
  });
  quiescence_.join(index_);
  const bool control = stopping_.load(std::memory_order_acquire) ||
                       published_.load(std::memory_order_acquire) != plan_ ||
                       looks_.load(std::memory_order_acquire) != looks;
  const WakeReason reason = wake.work_seen     ? WakeReason::second_look
                            : wake.ready > 0   ? WakeReason::descriptor
                            : wake.by_producer ? (control ? WakeReason::control : WakeReason::producer)
                            : wake.timed_out   ? WakeReason::timer
                                               : WakeReason::spurious;
  governor_.woke(settings_.clock(), reason, wake.wake_latency_ns);
  adopt_plan();
  take_events(std::span(events_.data(), wake.ready));
}

void Worker::poll_descriptors() {
  if (plan_->watches.empty()) return;
  const Parker::Wake wake = parker_->poll(events_);
  take_events(std::span(events_.data(), wake.ready));
}

void Worker::take_events(std::span<const epoll_event> events) {
  for (const epoll_event& event : events) {
    const uint64_t token = event.data.u64;  // a packed structure: no reference to it
    const auto found = plan_->watches.find(token);
    if (found == plan_->watches.end()) continue;  // of a plan that is gone, or not yet ours
    Watch& watch = found->second;
    // Errors and hang-ups are for whoever reads or writes next to find.
    const bool broken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
    if (watch.receive != nullptr && (broken || (event.events & EPOLLIN) != 0)) watch.receive->ready = true;
    if (watch.transmit == nullptr || watch.transmit->state->hold.empty()) continue;
    if (!broken && (event.events & watch.queue->writable_event()) == 0) continue;
    transmit_held(watch);
    ask_for(watch, found->first);
  }
}

Watch* Worker::watch_of(PlanNode& node, uint64_t& token) {
  for (auto& [number, watch] : plan_->watches) {
    if (watch.transmit != &node) continue;
    token = number;
    return &watch;
  }
  return nullptr;
}

// Brings epoll in line with what the watch needs: readable always, writable while something is held back.
void Worker::ask_for(Watch& watch, uint64_t token) {
  const int fd = watch.queue->descriptor();
  const uint32_t generation = watch.queue->generation();
  if (generation != watch.generation) {
    watch.generation = generation;
    watch.events = 0;
    if (watch.receive != nullptr) {
      watch.receive->state->failed.store(false, std::memory_order_relaxed);
      watch.receive->ready = true;
    }
  }
  uint32_t wanted = 0;
  if (watch.receive != nullptr && !watch.receive->state->failed.load(std::memory_order_relaxed))
    wanted |= EPOLLIN;
  if (watch.transmit != nullptr && !watch.transmit->state->hold.empty())
    wanted |= watch.queue->writable_event();
  if (wanted == watch.events) return;
  bool done = true;
  if (wanted == 0)
    parker_->forget(fd);
  else
    done =
        watch.events == 0 ? parker_->watch(fd, wanted, token).ok() : parker_->change(fd, wanted, token).ok();
  watch.events = done ? wanted : 0;
  // A descriptor that epoll refuses would be waited for in vain: shown as failed.
  if (!done && watch.receive != nullptr) watch.receive->state->failed.store(true, std::memory_order_relaxed);
}

void Worker::publish(WorkerPlan* plan) {
  published_.store(plan, std::memory_order_release);
  parker_->wake();
}

void Worker::look_again() {
  looks_.fetch_add(1, std::memory_order_release);
  parker_->wake();
}

void Worker::adopt_plan() {
  const uint32_t looks = looks_.load(std::memory_order_acquire);
  if (looks != looks_seen_) {
    looks_seen_ = looks;
    for (auto& [token, watch] : plan_->watches) ask_for(watch, token);
  }
  WorkerPlan* next = published_.load(std::memory_order_acquire);
  if (next == nullptr || next == plan_) return;
  for (const auto& node : plan_->nodes)
    if (next->find(node->state->id) == nullptr) drop_held(*node, DropReason::port_down);
  for (const auto& [token, watch] : plan_->watches)
    if (!next->watches.contains(token) && watch.events != 0) parker_->forget(watch.queue->descriptor());
  for (auto& [token, watch] : next->watches) {
    const auto before = plan_->watches.find(token);
    if (before != plan_->watches.end()) {
      watch.events = before->second.events;
      watch.generation = before->second.generation;
    }
  }
  plan_ = next;
  witness_of_thread = {plan_->witness, index_};
  for (const auto& node : plan_->nodes) node->outputs.serve(*this);
  for (auto& [token, watch] : plan_->watches) ask_for(watch, token);
  due_ns_ = 0;
  stages_touched_ = true;
  adopted_.store(plan_->version, std::memory_order_release);
}

void Worker::detach() {
  for (const auto& node : plan_->nodes) drop_held(*node, DropReason::shutdown);
  witness_of_thread = {};
}

uint64_t Worker::cpu_ns() const {
  clockid_t clock{};
  if (!started_.load(std::memory_order_relaxed) ||
      pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0)
    return 0;
  return read_clock_ns(clock);
}

}  // namespace penstock::net

#include "native/fuse/session.h"

#include <sched.h>

#include <cassert>

namespace penstock::fuse {

namespace {

// With two CPUs the worker that a request wakes runs where the application was, because the other one has
// JavaScript's thread on it, awake. With more the scheduler finds it an idle one, from where an answer has to
// interrupt just the same; with one a worker that spins keeps JavaScript's thread from answering.
bool runs_on_two_cpus() {
  cpu_set_t allowed;
  return ::sched_getaffinity(0, sizeof(allowed), &allowed) == 0 && CPU_COUNT(&allowed) == 2;
}

}  // namespace

Session::Session(SessionOptions options, std::shared_ptr<FileIo> file_io)
    : options_(std::move(options)),
      file_io_(std::move(file_io)),
      names_(options_.inode_capacity, options_.dentry_capacity),
      exclusive_(options_.exclusive) {}

Result<std::unique_ptr<Session>> Session::mount(SessionOptions options, std::shared_ptr<FileIo> file_io) {
  assert(file_io != nullptr && options.workers > 0);
  std::unique_ptr<Session> session(new Session(std::move(options), std::move(file_io)));
  Result<ChannelMaker> maker = ChannelMaker::prepare(session->options_.channel, session->options_.workers);
  if (!maker) return maker.error();
  session->options_.handshake.io_uring = maker->wants_uring();
  Result<Fd> device = mount_fuse(session->options_.mount);
  if (!device) return device.error();
  Result<Negotiated> negotiated = handshake(device->get(), session->options_.handshake);
  if (!negotiated) {
    static_cast<void>(
        unmount_fuse(session->options_.mount.mountpoint, true));  // the first error is the one to tell
    return negotiated.error();
  }
  session->negotiated_ = *negotiated;
  auto channel = maker->open(std::move(*device), negotiated->has(init_flag::over_io_uring));
  if (!channel) {
    static_cast<void>(unmount_fuse(session->options_.mount.mountpoint, true));
    return channel.error();
  }
  session->channel_ = std::move(*channel);
  session->uring_refusal_ = maker->refusal();
  return session;
}

Session::~Session() {
  stop();
}

void Session::start(std::span<std::byte> ring_memory, std::function<void()> wake) {
  assert(ring_ == nullptr);
  ring_ = std::make_unique<UpcallRing>(ring_memory, std::move(wake));
  data_path_ = std::make_unique<DataPath>(*channel_, *file_io_, *ring_, names_);
  notifier_ = std::make_unique<Notifier>(*channel_);
  relays_ = channel_->state().kind == ChannelKind::device && channel_->queues() > 1 && runs_on_two_cpus();
  if (channel_->polls() && !relays_) look_out_buffer_ = std::make_unique<TransferBuffer>();
  if (relays_ && options_.halt_poll) {
    halt_poller_ =
        std::make_unique<HaltPoller>([this] { return counters_.requests.load(std::memory_order_relaxed); },
                                     [this] { return counters_.upcalls.load(std::memory_order_relaxed); });
  }
  running_ = channel_->queues();
  for (uint32_t queue = 0; queue < channel_->queues(); ++queue) {
    workers_.emplace_back([this, queue] { work(queue); });
  }
  channel_->wait_until_received_from();
}

// The notifier may be in the kernel, waiting uninterruptibly for a page or a directory that a request has
// locked. So whoever waits for JavaScript is answered first, and the workers refuse what comes until it has
// left.
void Session::stop() {
  if (ring_ != nullptr) ring_->close();
  for (const Pending& pending : pending_.close()) answer(pending.queue, pending.unique, ENOTCONN);
  if (data_path_ != nullptr) data_path_->stop();
  if (notifier_ != nullptr) notifier_->stop();
  if (channel_ != nullptr) channel_->stop();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  halt_poller_.reset();
}

bool Session::reply(uint32_t slot, int error, std::span<std::byte> payload, std::span<std::byte> annex,
                    LostName lost) {
  const std::optional<Pending> pending = pending_.take(slot);
  if (!pending) return false;
  if (error == 0 && payload.size() > pending->capacity) error = EIO;
  settle(*pending, error, payload, lost.ino);
  if (error == 0) settle_annex(annex);
  if (error == 0 && lost.held) held_.add(lost.ino);
  if (!relay_.hand(pending->unique, error, payload))
    answer(pending->queue, pending->unique, error, payload.data(), payload.size());
  return true;
}

void Session::forget_inode(uint64_t ino) {
  names_.change_inode(ino, 0);
}

void Session::forget_entry(uint64_t parent, std::string_view name) {
  names_.directory_incomplete(parent);
  names_.change_name(parent, name, 0);
}

void Session::invalidate_inode(uint64_t ino, int64_t offset, int64_t length) {
  forget_inode(ino);
  notifier_->invalidate_inode(ino, offset, length);
}

void Session::invalidate_entry(uint64_t parent, std::string_view name) {
  forget_entry(parent, name);
  notifier_->invalidate_entry(parent, std::string(name));
}

void Session::set_exclusive(bool exclusive) {
  exclusive_ = exclusive;
  if (!exclusive) names_.forget_everything();
}

ChannelState Session::channel() const {
  ChannelState state = channel_->state();
  if (state.refusal.empty()) state.refusal = uring_refusal_;
  return state;
}

std::vector<std::pair<std::string, uint64_t>> Session::stats() {
  const NameCacheCounters names = names_.counters();
  const DataPathCounters& data = data_path_->counters();
  const AnticipationCounters& spins = anticipation_.counters();
  const HaltPollCounters* polls = halt_poller_ == nullptr ? nullptr : &halt_poller_->counters();
  const ChannelState channel = channel_->state();
  return {
      {"requests", counters_.requests},
      {"upcalls", counters_.upcalls},
      {"upcallWakes", ring_->wakes()},
      {"upcallStalls", ring_->stalls()},
      {"spinHits", spins.hits},
      {"spinMisses", spins.misses},
      {"spinsSkippedForGap", spins.skipped_gap},
      {"spinsSkippedForBudget", spins.skipped_balance},
      {"answersRelayed", relay_.relayed()},
      {"relayWaitsInVain", relay_.missed()},
      {"spinServed", spins.served},
      {"spinsPreempted", spins.preempted},
      {"spinMicroseconds", spins.spun_ns / 1000},
      {"spinBudgetMicroseconds", anticipation_.balance() / 1000},
      {"haltPolls", polls ? polls->spins.load() : 0},
      {"haltPollsPaid", polls ? polls->paid.load() : 0},
      {"haltPollsPreempted", polls ? polls->preempted.load() : 0},
      {"haltPollMicroseconds", polls ? polls->spun_ns.load() / 1000 : 0},
      {"pending", pending_.live()},
      {"forgets", counters_.forgets},
      {"interrupts", counters_.interrupts},
      {"nativeLookups", names.lookup_hits},
      {"nativeNegativeLookups", names.negative_hits},
      {"nativeGetattrs", names.getattr_hits},
      {"nativeXattrs", counters_.native_xattr},
      {"nativeFlushes", counters_.native_flush},
      {"toldReleases", counters_.told_release},
      {"nativeReleases", counters_.native_release},
      {"overtakenAnswers", names.refused_stale},
      {"cacheEvictions", names.evictions},
      {"cachedInodes", names.inodes},
      {"cachedNames", names.dentries},
      {"reads", data.reads},
      {"readBytes", data.read_bytes},
      {"splicedReads", data.spliced_reads},
      {"writes", data.writes},
      {"writtenBytes", data.written_bytes},
      {"parkedRequests", data.parked},
      {"parkingWaits", data.park_waits},
      {"parkedGaveUp", data.gave_up},
      {"noticesSent", notifier_->sent()},
      {"noticesUnneeded", notifier_->unneeded()},
      {"unsupported", counters_.unsupported},
      {"malformed", counters_.malformed},
      {"lockWaitsRefused", counters_.lock_waits_refused},
      {"replyFailures", counters_.reply_failures},
      {"passthroughOpens", counters_.passthrough_opens},
      {"passthroughRefused", counters_.passthrough_refused},
      {"ioUring", channel.kind == ChannelKind::io_uring ? 1 : 0},
      {"ioUringEntries", channel.entries},
      {"ioUringHandedOver", channel.handed_over},
      {"ioUringRings", channel.rings},
      {"ioUringCommitFailures", channel.commit_failures},
  };
}

}  // namespace penstock::fuse

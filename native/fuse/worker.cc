// The worker side of a session: what is answered without JavaScript, and how the rest is handed over.
#include <linux/xattr.h>
#include <sys/stat.h>
#include <climits>

#include <fcntl.h>
#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>

#include "native/fuse/attributes.h"
#include "native/fuse/session.h"

namespace penstock::fuse {

namespace {

// Requests answered natively for one look at whether the halt poller sleeps.
constexpr uint64_t kKickEvery = 32;

// Largest result of an opcode whose request states no limit of its own.
constexpr uint32_t kMaxFixedResult = 4096;

// What settle() must know when the answer comes.
Pending pending_of(uint32_t queue, const Request& request, uint64_t clock) {
  Pending pending;
  pending.unique = request.header.unique;
  pending.nodeid = request.header.nodeid;
  pending.clock = clock;
  pending.opcode = request.opcode();
  pending.queue = queue;
  pending.capacity = kMaxFixedResult;
  pending.name = request.names[0];
  switch (request.opcode()) {
    case Opcode::rename:
      pending.newdir = request.arguments<RenameIn>().newdir;
      pending.new_name = request.names[1];
      break;
    case Opcode::rename2: {
      const auto in = request.arguments<Rename2In>();
      pending.newdir = in.newdir;
      pending.flags = in.flags;
      pending.new_name = request.names[1];
      break;
    }
    case Opcode::link:
      pending.newdir = request.arguments<LinkIn>().oldnodeid;
      break;
    case Opcode::open:
    case Opcode::opendir:
      pending.flags = request.arguments<OpenIn>().flags;
      break;
    case Opcode::readdir:
    case Opcode::readdirplus: {
      const auto in = request.arguments<ReadIn>();
      pending.handle = in.fh;
      pending.offset = in.offset;
      pending.capacity = in.size;
      break;
    }
    case Opcode::getxattr:
    case Opcode::listxattr:
      // size 0 asks for the length alone.
      pending.capacity = std::max<uint32_t>(request.arguments<GetxattrIn>().size, sizeof(GetxattrOut));
      break;
    case Opcode::flush: {
      const auto in = request.arguments<FlushIn>();
      pending.lock_owner = in.lock_owner;
      break;
    }
    case Opcode::setlk:
    case Opcode::setlkw: {
      const auto in = request.arguments<LkIn>();
      if ((in.lk_flags & kLockFlock) == 0 && in.lk.type != F_UNLCK) pending.lock_owner = in.owner;
      break;
    }
    case Opcode::release:
    case Opcode::releasedir:
      pending.handle = request.arguments<ReleaseIn>().fh;
      break;
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
      pending.newdir = request.arguments<CopyFileRangeIn>().nodeid_out;
      break;
    default:
      break;
  }
  return pending;
}

UpcallRecord record_of(const Request& request, uint32_t slot) {
  const InHeader& header = request.header;
  return {0, header.opcode, slot, header.uid, header.gid, header.pid, header.nodeid, 0, request.group};
}

}  // namespace

void Session::answer(uint32_t queue, uint64_t unique, int error, const void* data, std::size_t length) {
  const std::array parts{iovec{const_cast<void*>(data), length}};
  const int failed = channel_->reply(queue, unique, error, parts);
  // ENOENT: the request was interrupted or aborted meanwhile.
  if (failed != 0 && failed != ENOENT) counters_.reply_failures.fetch_add(1, std::memory_order_relaxed);
}

void Session::work(uint32_t queue) {
  const HaltPoller::Worker registered(halt_poller_.get());
  const TransferBuffer buffer;
  for (;;) {
    const Received received = channel_->receive(queue);
    if (received.bytes.empty()) break;
    // Relaxed, and set by one of several at about the same moment: it is an estimate.
    if (next_request_at_.load(std::memory_order_relaxed) == 0)
      next_request_at_.store(monotonic_ns(), std::memory_order_relaxed);
    take(received, buffer);
  }
  // The last one out says so; when we are being stopped the ring is closed and nobody hears it.
  if (running_.fetch_sub(1) == 1) ring_->push(UpcallRecord{.kind = kRecordEnded}, {});
}

void Session::take(const Received& received, const TransferBuffer& buffer) {
  counters_.requests.fetch_add(1, std::memory_order_relaxed);
  InHeader header;
  std::memcpy(&header, received.bytes.data(), sizeof(header));
  std::span<const std::byte> bytes = received.bytes;
  std::vector<std::byte> wide;
  if (header.opcode == static_cast<uint32_t>(Opcode::setxattr) && !negotiated_.has(init_flag::setxattr_ext))
    bytes = wide = widened_setxattr(bytes);
  if (const auto request = parse_request(bytes)) {
    serve(received.origin, *request, buffer);
  } else {
    counters_.malformed.fetch_add(1, std::memory_order_relaxed);
    answer(received.origin, header.unique, EIO);
  }
}

void Session::serve(uint32_t queue, const Request& request, const TransferBuffer& buffer) {
  switch (request.opcode()) {
    case Opcode::read:
      data_path_->read(queue, request, buffer);
      return note_served(request);
    case Opcode::write:
      data_path_->write(queue, request);
      return note_served(request);
    case Opcode::forget:
    case Opcode::batch_forget:
      return serve_forget(request);
    case Opcode::interrupt:
      return serve_interrupt(queue, request);
    case Opcode::destroy:
      return answer(queue, request.header.unique, 0);
    case Opcode::lookup:
    case Opcode::getattr:
    case Opcode::getxattr:
    case Opcode::listxattr:
    case Opcode::flush:
    case Opcode::release:
    case Opcode::releasedir:
      if (!serve_natively(queue, request)) return upcall(queue, request);
      return note_served(request);
    case Opcode::setlk:
    case Opcode::setlkw:
      return upcall(queue, request);
    case Opcode::setattr:
    case Opcode::readlink:
    case Opcode::symlink:
    case Opcode::mknod:
    case Opcode::mkdir:
    case Opcode::unlink:
    case Opcode::rmdir:
    case Opcode::rename:
    case Opcode::rename2:
    case Opcode::link:
    case Opcode::open:
    case Opcode::create:
    case Opcode::statfs:
    case Opcode::fsync:
    case Opcode::fsyncdir:
    case Opcode::setxattr:
    case Opcode::removexattr:
    case Opcode::opendir:
    case Opcode::readdir:
    case Opcode::readdirplus:
    case Opcode::getlk:
    case Opcode::fallocate:
    case Opcode::lseek:
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
      return upcall(queue, request);
    case Opcode::ioctl:
      counters_.unsupported.fetch_add(1, std::memory_order_relaxed);
      return answer(queue, request.header.unique, ENOTTY);
    default:
      // ACCESS (the kernel checks permissions itself), BMAP, POLL, TMPFILE, STATX (GETATTR follows), SYNCFS,
      // DAX mappings, and what later kernels invent: ENOSYS makes the kernel fall back, and mostly not ask
      // again.
      counters_.unsupported.fetch_add(1, std::memory_order_relaxed);
      return answer(queue, request.header.unique, ENOSYS);
  }
}

bool Session::serve_natively(uint32_t queue, const Request& request) {
  switch (request.opcode()) {
    case Opcode::lookup:
      return serve_lookup(queue, request);
    case Opcode::getattr:
      return serve_getattr(queue, request);
    case Opcode::getxattr:
    case Opcode::listxattr:
      return serve_xattr(queue, request);
    case Opcode::flush:
      return serve_flush(queue, request);
    default:
      return serve_release(queue, request);
  }
}

bool Session::serve_lookup(uint32_t queue, const Request& request) {
  // Not even absence can be told of a name that cannot be: ENAMETOOLONG comes from above.
  if (request.names[0].size() > NAME_MAX) return false;
  const uint64_t now = monotonic_ns();
  auto known = names_.lookup(request.header.nodeid, request.names[0], now);
  if (!known) return false;
  EntryOut out{};
  const Validity name_validity = remaining(now, known->valid_until);
  out.entry_valid = name_validity.sec;
  out.entry_valid_nsec = name_validity.nsec;
  if (!known->negative) {
    if (!overlay_local(*file_io_, known->inode.attr) && known->inode.had_local) return false;
    const Validity validity = remaining(now, known->inode.valid_until);
    out.nodeid = known->inode.attr.ino;
    out.attr_valid = validity.sec;
    out.attr_valid_nsec = validity.nsec;
    out.attr = known->inode.attr;
  }
  answer(queue, request.header.unique, 0, &out, sizeof(out));
  return true;
}

bool Session::serve_getattr(uint32_t queue, const Request& request) {
  const uint64_t now = monotonic_ns();
  auto known = names_.attributes(request.header.nodeid, now);
  if (!known) return false;
  if (!overlay_local(*file_io_, known->attr) && known->had_local) return false;
  const Validity validity = remaining(now, known->valid_until);
  const AttrOut out{validity.sec, validity.nsec, 0, known->attr};
  answer(queue, request.header.unique, 0, &out, sizeof(out));
  return true;
}

// Only absence is answered here: the flags say which attributes cannot exist.
bool Session::serve_xattr(uint32_t queue, const Request& request) {
  const auto known = names_.attributes(request.header.nodeid, monotonic_ns());
  if (!known) return false;
  if (request.opcode() == Opcode::listxattr) {
    if (known->flags != 0) return false;
    const GetxattrOut none{};
    const bool length_only = request.arguments<GetxattrIn>().size == 0;
    answer(queue, request.header.unique, 0, &none, length_only ? sizeof(none) : 0);
  } else {
    const std::string_view name = request.names[0];
    uint32_t decisive = inode_flag::has_xattr | inode_flag::has_access_acl | inode_flag::has_default_acl |
                        inode_flag::has_capability;
    if (name == XATTR_NAME_CAPS) decisive = inode_flag::has_capability;
    if (name == XATTR_NAME_POSIX_ACL_ACCESS) decisive = inode_flag::has_access_acl;
    if (name == XATTR_NAME_POSIX_ACL_DEFAULT) decisive = inode_flag::has_default_acl;
    if ((known->flags & decisive) != 0) return false;
    answer(queue, request.header.unique, ENODATA);
  }
  counters_.native_xattr.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool Session::serve_flush(uint32_t queue, const Request& request) {
  const auto in = request.arguments<FlushIn>();
  {
    std::lock_guard lock(lock_owners_mutex_);
    if (lock_owners_overflowed_ || lock_owners_.contains({request.header.nodeid, in.lock_owner}))
      return false;
  }
  counters_.native_flush.fetch_add(1, std::memory_order_relaxed);
  answer(queue, request.header.unique, 0);
  return true;
}

// Nobody waits for the answer to a RELEASE, but JavaScript's time is another request's: it is answered here,
// and JavaScript only told. Where a lock or a backing goes with it, JavaScript comes first.
bool Session::serve_release(uint32_t queue, const Request& request) {
  const auto in = request.arguments<ReleaseIn>();
  if ((in.release_flags & kReleaseFlockUnlock) != 0) return false;
  if ((in.fh & kHandleSimple) == 0) {
    if ((in.fh & kHandlePassthrough) != 0 || request.opcode() != Opcode::release) return false;
    counters_.told_release.fetch_add(1, std::memory_order_relaxed);
    ring_->push(record_of(request, kNoSlot), request.body);  // fails only when stopping
    answer(queue, request.header.unique, 0);
    return true;
  }
  if ((in.fh & kHandlePassthrough) != 0) release_backing(request.header.nodeid);
  counters_.native_release.fetch_add(1, std::memory_order_relaxed);
  answer(queue, request.header.unique, 0);
  return true;
}

// The kernel sends an interrupt only for a request that some worker took. JavaScript's are forwarded to it,
// any other runs to its end. (An answer of EAGAIN would have the interrupt sent again, but not for a request
// that came over io_uring: Linux 6.18 looks for it on the device alone.)
void Session::serve_interrupt(uint32_t queue, const Request& request) {
  counters_.interrupts.fetch_add(1, std::memory_order_relaxed);
  const uint64_t target = request.arguments<InterruptIn>().unique;
  if (const auto slot = pending_.interrupt(target)) {
    ring_->push(UpcallRecord{.kind = static_cast<uint32_t>(Opcode::interrupt), .slot = *slot}, {});
  }
}

// nodeid is the inode number and is never reused: there is no count to keep. The kernel drops all references
// at once when it evicts an inode; one it gives back before (an answer that another overtook) ends a hold
// early, which costs what a handle without a name still shows.
void Session::serve_forget(const Request& request) {
  counters_.forgets.fetch_add(1, std::memory_order_relaxed);
  if (held_.none()) return;
  bool first = false;
  if (request.opcode() == Opcode::forget) {
    first = held_.forget(request.header.nodeid);
  } else {
    const uint32_t count = request.arguments<BatchForgetIn>().count;
    for (uint32_t index = 0; index < count; ++index) {
      ForgetOne one;
      std::memcpy(&one, request.body.data() + sizeof(BatchForgetIn) + index * sizeof(one), sizeof(one));
      first |= held_.forget(one.nodeid);
    }
  }
  if (first)
    ring_->push(UpcallRecord{.kind = kRecordForgotten, .slot = kNoSlot}, {});  // fails only when stopping
}

// Before JavaScript sees the request, and once more when it is granted: a FLUSH may have come between.
void Session::note_lock_owner(uint64_t ino, uint64_t owner) {
  std::lock_guard lock(lock_owners_mutex_);
  if (lock_owners_.size() == kLockOwnersMax) lock_owners_overflowed_ = true;
  if (!lock_owners_overflowed_) lock_owners_[{ino, owner}] = ++locks_asked_;
}

void Session::forget_lock_owner(const Pending& flush) {
  std::lock_guard lock(lock_owners_mutex_);
  const auto found = lock_owners_.find({flush.nodeid, flush.lock_owner});
  if (found != lock_owners_.end() && found->second <= flush.locks_asked) lock_owners_.erase(found);
}

uint64_t Session::locks_asked() {
  std::lock_guard lock(lock_owners_mutex_);
  return locks_asked_;
}

// Workers that do not relay need not share one more cache line.
void Session::note_served(const Request& request) {
  if (!relays_) return;
  const uint64_t before = served_natively_.fetch_add(1, std::memory_order_relaxed);
  if (before % kKickEvery == 0 && halt_poller_ != nullptr) halt_poller_->kick(request.header.pid);
}

// Not what waits for a disk or for others, and not what answers with more than fits. JavaScript's thread
// answers soon if it looks out, or if it is awake and has nothing but this.
bool Session::may_relay(Opcode opcode) {
  if (!relays_) return false;
  if (!watching_.load(std::memory_order_relaxed) && !(ring_->awake() && pending_.live() == 1)) return false;
  switch (opcode) {
    case Opcode::setlkw:
    case Opcode::fsync:
    case Opcode::fsyncdir:
    case Opcode::statfs:
    case Opcode::fallocate:
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
    case Opcode::readdir:
    case Opcode::readdirplus:
      return false;
    default:
      return true;
  }
}

void Session::upcall(uint32_t queue, const Request& request) {
  if (request.opcode() == Opcode::setlkw && pending_.live() > PendingTable::kLockWaitLimit) {
    counters_.lock_waits_refused.fetch_add(1, std::memory_order_relaxed);
    return answer(queue, request.header.unique, ENOLCK);
  }
  if (ring_->too_large(request.body.size())) return answer(queue, request.header.unique, E2BIG);
  Pending pending = pending_of(queue, request, names_.clock());
  if (pending.opcode == Opcode::flush) {
    pending.locks_asked = locks_asked();
  } else if (pending.lock_owner != 0) {
    note_lock_owner(pending.nodeid, pending.lock_owner);
  }
  const auto slot = pending_.add(std::move(pending), !ring_->on_consumer_thread());
  if (!slot) return answer(queue, request.header.unique, ENOTCONN);  // stopping
  counters_.upcalls.fetch_add(1, std::memory_order_relaxed);
  const uint64_t unique = request.header.unique;
  const bool waits = may_relay(request.opcode()) && relay_.begin(unique);
  ring_->push(record_of(request, *slot), request.body);  // fails only when stopping
  if (pending_.announce(*slot, unique))
    ring_->push(UpcallRecord{.kind = static_cast<uint32_t>(Opcode::interrupt), .slot = *slot}, {});
  if (!waits) return;
  if (const auto found = relay_.wait(unique)) {
    answer(queue, unique, found->error, found->payload().data(), found->payload().size());
  }
}

}  // namespace penstock::fuse

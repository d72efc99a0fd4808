#include "native/fuse/notifier.h"

#include <array>
#include <utility>

#include "native/fuse/protocol.h"

namespace penstock::fuse {

Notifier::Notifier(Channel& channel) : channel_(channel), thread_([this] { run(); }) {}

Notifier::~Notifier() {
  stop();
}

void Notifier::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  posted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Notifier::invalidate_inode(uint64_t ino, int64_t offset, int64_t length) {
  post({.ino = ino, .offset = offset, .length = length});
}

void Notifier::invalidate_entry(uint64_t parent, std::string name) {
  post({.entry = true, .ino = parent, .name = std::move(name)});
}

void Notifier::post(Notice notice) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    queue_.push_back(std::move(notice));
  }
  posted_.notify_one();
}

void Notifier::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    posted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Notice notice = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    send(notice);
    lock.lock();
  }
}

void Notifier::send(const Notice& notice) {
  int failed = 0;
  if (notice.entry) {
    NotifyInvalEntryOut out{notice.ino, static_cast<uint32_t>(notice.name.size()), 0};
    const std::array parts{iovec{&out, sizeof(out)},
                           iovec{const_cast<char*>(notice.name.c_str()), notice.name.size() + 1}};
    failed = channel_.notify(static_cast<int32_t>(NotifyCode::inval_entry), parts);
  } else {
    NotifyInvalInodeOut out{notice.ino, notice.offset, notice.length};
    const std::array parts{iovec{&out, sizeof(out)}};
    failed = channel_.notify(static_cast<int32_t>(NotifyCode::inval_inode), parts);
  }
  (failed == 0 ? sent_ : unneeded_).fetch_add(1, std::memory_order_relaxed);
}

}  // namespace penstock::fuse

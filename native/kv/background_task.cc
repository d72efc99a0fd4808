#include "native/kv/background_task.h"

#include <pthread.h>

namespace penstock::kv {

BackgroundTask::BackgroundTask(const char* name, std::function<void()> work)
    : work_(std::move(work)), thread_([this] { run(); }) {
  ::pthread_setname_np(thread_.native_handle(), name);
}

BackgroundTask::~BackgroundTask() {
  wait();
  tell(kEnded);
  thread_.join();
}

void BackgroundTask::begin() {
  assert(!under_way());
  tell(kAsked);
}

void BackgroundTask::tell(uint32_t state) {
  state_.store(state, std::memory_order_release);
  state_.notify_all();
}

void BackgroundTask::run() {
  for (;;) {
    state_.wait(kIdle, std::memory_order_acquire);
    if (state_.load(std::memory_order_acquire) == kEnded) return;
    work_();
    tell(kIdle);
  }
}

}  // namespace penstock::kv

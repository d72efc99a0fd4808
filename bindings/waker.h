// A JavaScript function that threads of ours call to wake somebody there, until it is closed or its
// environment ends: workers of a plane go on for a moment after that, and what they called would be gone.
#pragma once

#include <napi.h>

#include <mutex>
#include <utility>

namespace penstock::bindings {

class Waker {
 public:
  // Does not keep the process alive.
  Waker(Napi::Env env, const Napi::Function& function, const char* name)
      : function_(Napi::ThreadSafeFunction::New(env, function, name, 0, 1)) {
    function_.Unref(env);
  }
  ~Waker() { close(); }
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;

  // Any thread.
  void wake() {
    const std::lock_guard lock(mutex_);
    if (open_) function_.NonBlockingCall();
  }
  // From the environment's clean-up hook at the latest.
  void close() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(open_, false)) function_.Release();
  }

 private:
  std::mutex mutex_;
  bool open_ = true;
  Napi::ThreadSafeFunction function_;
};

}  // namespace penstock::bindings

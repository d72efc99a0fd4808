// Calls a function whenever the event loop of an environment is about to wait for events: the last moment to
// announce that its thread sleeps, and the first at which that is true (libuv's prepare phase,
// https://docs.libuv.org/en/v1.x/design.html#the-i-o-loop). Also called when it will only look, because a
// callback of setImmediate is due: uv_backend_timeout() would tell, but says 0 before many a real wait too.
//
// Thread: the loop's. The function must not call into JavaScript. Does not keep the process alive.
#pragma once

#include <napi.h>
#include <uv.h>

#include <functional>
#include <utility>

namespace penstock::bindings {

class BeforeWait {
 public:
  BeforeWait(Napi::Env env, std::function<void()> call) : watch_(new Watch{{}, std::move(call)}) {
    uv_loop_t* loop = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok || uv_prepare_init(loop, &watch_->handle) != 0)
      Napi::Error::Fatal("BeforeWait", "no event loop");
    watch_->handle.data = watch_;
    uv_unref(reinterpret_cast<uv_handle_t*>(&watch_->handle));
    uv_prepare_start(&watch_->handle,
                     [](uv_prepare_t* handle) { static_cast<Watch*>(handle->data)->call(); });
  }
  BeforeWait(const BeforeWait&) = delete;
  BeforeWait& operator=(const BeforeWait&) = delete;
  // The loop keeps the handle a little longer.
  ~BeforeWait() {
    watch_->call = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(&watch_->handle),
             [](uv_handle_t* handle) { delete static_cast<Watch*>(handle->data); });
  }

 private:
  struct Watch {
    uv_prepare_t handle;
    std::function<void()> call;
  };

  Watch* watch_;
};

}  // namespace penstock::bindings

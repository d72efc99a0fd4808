// Runs something that may block on a thread of the pool, and settles a promise with its outcome.
//
//   main thread:  on_pool(...) ─> promise                      answer(env, value) ─> resolved with what it
//   returns pool:                          work() ─> Result<Value> ─┤
//                                                              the error ─> rejected (to_js_error)
//
// `keep_alive`, the object that `work` uses, is not collected meanwhile.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <utility>

#include "bindings/module.h"

namespace penstock::bindings {

template <typename Work, typename Answer>
class PoolWorker final : public Napi::AsyncWorker {
 public:
  PoolWorker(Napi::Object keep_alive, Work work, Answer answer)
      : Napi::AsyncWorker(keep_alive.Env(), "penstock"),
        deferred_(Napi::Promise::Deferred::New(keep_alive.Env())),
        keep_alive_(Napi::Persistent(keep_alive)),
        work_(std::move(work)),
        answer_(std::move(answer)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { outcome_.emplace(work_()); }

  void OnOK() override {
    if (outcome_->ok())
      deferred_.Resolve(answer_(Env(), *outcome_));
    else
      deferred_.Reject(to_js_error(Env(), outcome_->error()).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference keep_alive_;
  Work work_;
  Answer answer_;
  std::optional<decltype(std::declval<Work&>()())> outcome_;
};

template <typename Work, typename Answer>
Napi::Value start_on_pool(Napi::Object keep_alive, Work work, Answer answer) {
  auto worker = std::make_unique<PoolWorker<Work, Answer>>(keep_alive, std::move(work), std::move(answer));
  const Napi::Promise promise = worker->promise();
  worker.release()->Queue();  // deletes itself when done
  return promise;
}

// `work` answers a Result<Value>, `answer` makes of the value what JavaScript gets.
template <typename Work, typename Answer>
Napi::Value on_pool(Napi::Object keep_alive, Work work, Answer answer) {
  auto of_value = [answer = std::move(answer)](Napi::Env env, auto& outcome) -> Napi::Value {
    return answer(env, outcome.value());
  };
  return start_on_pool(keep_alive, std::move(work), std::move(of_value));
}

// `work` answers a Result<void>; JavaScript gets undefined.
template <typename Work>
Napi::Value on_pool(Napi::Object keep_alive, Work work) {
  return start_on_pool(keep_alive, std::move(work),
                       [](Napi::Env env, Result<void>&) -> Napi::Value { return env.Undefined(); });
}

}  // namespace penstock::bindings

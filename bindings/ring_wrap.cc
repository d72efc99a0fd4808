// RingPort for JavaScript (bindings/ring.ts says what each method means), and the layout table that keeps the
// TypeScript reader and native/port/ring_port.h from drifting apart.
#include <napi.h>

#include <cstddef>
#include <memory>
#include <string>

#include "bindings/layout.h"
#include "bindings/module.h"
#include "bindings/ring_port_handle.h"
#include "bindings/waker.h"
#include "native/port/ring_exerciser.h"
#include "native/port/ring_port.h"

namespace penstock::bindings {

namespace {

using net::RingExerciser;
using net::RingPort;

class RingPortWrap final : public Napi::ObjectWrap<RingPortWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "RingPort",
        {InstanceMethod<&RingPortWrap::kick>("kick"), InstanceMethod<&RingPortWrap::handle>("handle"),
         InstanceMethod<&RingPortWrap::stats>("stats"), InstanceMethod<&RingPortWrap::exercise>("exercise"),
         InstanceMethod<&RingPortWrap::exercised>("exercised"),
         InstanceMethod<&RingPortWrap::close>("close")});
  }

  // memory, options, wake
  explicit RingPortWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RingPortWrap>(info) {
    auto memory = info[0].As<Napi::Uint8Array>();
    const auto options = info[1].As<Napi::Object>();
    net::RingOptions ring;
    ring.name = options.Get("name").As<Napi::String>().Utf8Value();
    ring.records_bytes = options.Get("recordsBytes").As<Napi::Number>().Uint32Value();
    ring.frames_bytes = options.Get("framesBytes").As<Napi::Number>().Uint32Value();
    ring.snap = options.Get("snap").As<Napi::Number>().Uint32Value();
    ring.verdicts = options.Get("verdicts").As<Napi::Boolean>().Value();
    waker_ = std::make_shared<Waker>(info.Env(), info[2].As<Napi::Function>(), "penstock ring");
    auto port = RingPort::open(ring, {reinterpret_cast<std::byte*>(memory.Data()), memory.ByteLength()},
                               [waker = waker_] { waker->wake(); });
    if (!port) {
      waker_->close();
      to_js_error(info.Env(), port.error()).ThrowAsJavaScriptException();
      return;
    }
    port_ = std::move(*port);
    memory_ = Napi::Persistent(memory);
    napi_add_env_cleanup_hook(info.Env(), &RingPortWrap::on_environment_exit, this);
    hooked_ = true;
  }

  ~RingPortWrap() override { end(); }

 private:
  void kick(const Napi::CallbackInfo&) {
    if (port_ != nullptr) port_->kick();
  }

  Napi::Value handle(const Napi::CallbackInfo& info) {
    if (port_ == nullptr) return info.Env().Undefined();
    return export_ring_port(info.Env(), port_);
  }

  Napi::Value stats(const Napi::CallbackInfo& info) {
    auto out = Napi::Object::New(info.Env());
    if (port_ == nullptr) return out;
    const net::QueueCounters& counters = port_->counters(0);
    const auto put = [&](const std::string& name, uint64_t value) {
      out.Set(name, static_cast<double>(value));
    };
    put("toScript", counters.transmit.packets.get());
    put("fromScript", counters.receive.packets.get());
    for (std::size_t i = 1; i < net::kDropReasons; ++i) {
      const uint64_t drops = counters.transmit.drops[i].get() + counters.receive.drops[i].get();
      if (drops > 0) put("drop " + std::string(net::kDropReasonNames[i]), drops);
    }
    return out;
  }

  // packets, flows, frame bytes
  void exercise(const Napi::CallbackInfo& info) {
    if (port_ == nullptr) return;
    net::ExerciseOptions options;
    options.packets = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
    options.flows = info[1].As<Napi::Number>().Uint32Value();
    options.frame_bytes = info[2].As<Napi::Number>().Uint32Value();
    exerciser_.reset();
    exerciser_ = std::make_unique<RingExerciser>(*port_, options);
  }

  Napi::Value exercised(const Napi::CallbackInfo& info) {
    auto out = Napi::Object::New(info.Env());
    out.Set("done", exerciser_ != nullptr && exerciser_->done());
    out.Set("seconds", exerciser_ == nullptr ? 0 : static_cast<double>(exerciser_->nanoseconds()) / 1e9);
    out.Set("checksum", exerciser_ == nullptr ? 0 : static_cast<double>(exerciser_->checksum()));
    return out;
  }

  void close(const Napi::CallbackInfo&) { end(); }

  static void on_environment_exit(void* self) {
    auto* wrap = static_cast<RingPortWrap*>(self);
    wrap->hooked_ = false;
    wrap->end();
  }

  // A switch that still holds the port must have been closed first: the memory belongs to JavaScript.
  void end() {
    if (port_ == nullptr) return;
    exerciser_.reset();
    port_.reset();
    if (hooked_) napi_remove_env_cleanup_hook(Env(), &RingPortWrap::on_environment_exit, this);
    hooked_ = false;
    waker_->close();
  }

  Napi::Reference<Napi::Uint8Array> memory_;
  std::shared_ptr<Waker> waker_;  // the port's, too
  std::shared_ptr<RingPort> port_;
  std::unique_ptr<RingExerciser> exerciser_;
  bool hooked_ = false;
};

Napi::Object layout_of(Napi::Env env) {
  using namespace net;  // NOLINT: the listed structures are named as there
  Layout layout(env);
#include "bindings/ring_layout.inc"
  layout.put("kRingDataOffset", net::kRingDataOffset);
  layout.put("kRingPacket", net::kRingPacket);
  layout.put("kRingSkip", net::kRingSkip);
  return layout.object();
}

void initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("RingPort", RingPortWrap::define(env));
  exports.Set("ringLayout", layout_of(env));
}

PENSTOCK_EXPORT(initialize);

}  // namespace

}  // namespace penstock::bindings

// FuseSession and MemoryFileIo for JavaScript (bindings/fuse.ts says what each method means), and the layout
// table that keeps the TypeScript codec and native/fuse/protocol.h from drifting apart.
#include <napi.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/before_wait.h"
#include "bindings/file_io_handle.h"
#include "bindings/layout.h"
#include "bindings/module.h"
#include "bindings/on_pool.h"
#include "native/fuse/memory_file_io.h"
#include "native/fuse/mount.h"
#include "native/fuse/session.h"

namespace penstock::bindings {

namespace {

using fuse::MemoryFileIo;
using fuse::Session;
using fuse::SessionOptions;

uint64_t to_u64(const Napi::Value& value) {
  return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
}

class FuseSession final : public Napi::ObjectWrap<FuseSession> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "FuseSession",
        {InstanceMethod<&FuseSession::mount>("mount"), InstanceMethod<&FuseSession::start>("start"),
         InstanceMethod<&FuseSession::reply>("reply"), InstanceMethod<&FuseSession::look_out>("lookOut"),
         InstanceMethod<&FuseSession::resume>("resume"), InstanceMethod<&FuseSession::fail>("fail"),
         InstanceMethod<&FuseSession::forget_inode>("forgetInode"),
         InstanceMethod<&FuseSession::forget_entry>("forgetEntry"),
         InstanceMethod<&FuseSession::invalidate_inode>("invalidateInode"),
         InstanceMethod<&FuseSession::invalidate_entry>("invalidateEntry"),
         InstanceMethod<&FuseSession::set_exclusive>("setExclusive"),

         InstanceMethod<&FuseSession::take_forgotten>("takeForgotten"),
         InstanceMethod<&FuseSession::unmount>("unmount"), InstanceMethod<&FuseSession::stop>("stop"),
         InstanceMethod<&FuseSession::stats>("stats"), InstanceMethod<&FuseSession::negotiated>("negotiated"),
         InstanceMethod<&FuseSession::channel>("channel")});
  }

  explicit FuseSession(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FuseSession>(info) {
    const auto options = info[0].As<Napi::Object>();
    const auto text = [&](const char* key) { return options.Get(key).As<Napi::String>().Utf8Value(); };
    const auto number = [&](const char* key) { return options.Get(key).As<Napi::Number>().Uint32Value(); };
    const auto flag = [&](const char* key) { return options.Get(key).As<Napi::Boolean>().Value(); };
    options_.mount.mountpoint = text("mountpoint");
    options_.mount.source = text("source");
    options_.mount.extra = text("mountOptions");
    options_.mount.allow_other = flag("allowOther");
    options_.mount.force_fusermount = flag("forceFusermount");
    options_.handshake.max_background = static_cast<uint16_t>(number("maxBackground"));
    options_.handshake.passthrough = flag("passthrough");
    options_.workers = number("workers");
    const std::string io_uring = text("ioUring");
    options_.channel.io_uring = io_uring == "on"     ? fuse::UringUse::required
                                : io_uring == "auto" ? fuse::UringUse::if_possible
                                                     : fuse::UringUse::off;
    options_.channel.depth = number("ioUringDepth");
    options_.inode_capacity = number("inodeCapacity");
    options_.dentry_capacity = number("dentryCapacity");
    options_.exclusive = flag("exclusive");
    options_.halt_poll = flag("haltPoll");
    file_io_ = import_file_io(options.Get("fileIo"));
    if (file_io_ == nullptr) {
      Napi::TypeError::New(info.Env(), "fileIo must be the handle of a FileIo").ThrowAsJavaScriptException();
    }
  }

  ~FuseSession() override { end(); }

 private:
  Napi::Value mount(const Napi::CallbackInfo& info) {
    return on_pool(Value(), [this]() -> Result<void> {
      auto session = Session::mount(options_, file_io_);
      if (!session) return session.error();
      session_ = std::move(*session);
      return {};
    });
  }

  // ring, reply buffer, wake-up callback
  void start(const Napi::CallbackInfo& info) {
    auto ring = info[0].As<Napi::Uint8Array>();
    auto reply = info[1].As<Napi::Uint8Array>();
    std::span<std::byte> memory(reinterpret_cast<std::byte*>(ring.Data()), ring.ByteLength());
    if (!fuse::UpcallRing::usable(memory)) {
      Napi::RangeError::New(info.Env(), "the ring's size or alignment is not usable")
          .ThrowAsJavaScriptException();
      return;
    }
    ring_ = Napi::Persistent(ring);
    reply_ = Napi::Persistent(reply);
    reply_memory_ = {reinterpret_cast<std::byte*>(reply.Data()), reply.ByteLength()};
    wake_ = Napi::ThreadSafeFunction::New(info.Env(), info[2].As<Napi::Function>(), "penstock fuse", 0, 1);
    napi_add_env_cleanup_hook(info.Env(), &FuseSession::on_environment_exit, this);
    hooked_ = true;
    session_->start(memory, [this] { wake_.NonBlockingCall(); });
    before_wait_.emplace(info.Env(), [this] {
      if (!session_->may_sleep()) wake_.NonBlockingCall();
    });
  }

  Napi::Value reply(const Napi::CallbackInfo& info) {
    const uint32_t slot = info[0].As<Napi::Number>().Uint32Value();
    const int error = info[1].As<Napi::Number>().Int32Value();
    const uint32_t length = info[2].As<Napi::Number>().Uint32Value();
    const uint32_t annex = info[3].As<Napi::Number>().Uint32Value();
    if (session_ == nullptr || std::size_t{length} + annex > reply_memory_.size())
      return Napi::Boolean::New(info.Env(), false);
    const fuse::LostName lost{to_u64(info[4]), info[5].As<Napi::Boolean>().Value()};
    const bool found =
        session_->reply(slot, error, reply_memory_.first(length), reply_memory_.subspan(length, annex), lost);
    return Napi::Boolean::New(info.Env(), found);
  }

  Napi::Value look_out(const Napi::CallbackInfo& info) {
    const bool fresh = info[0].As<Napi::Boolean>().Value();
    const fuse::LookOut next = session_ == nullptr ? fuse::LookOut::sleep : session_->look_out(fresh);
    return Napi::Number::New(info.Env(), static_cast<uint32_t>(next));
  }

  Napi::Value resume(const Napi::CallbackInfo& info) {
    const bool found = session_ != nullptr && session_->resume(info[0].As<Napi::Number>().Uint32Value());
    return Napi::Boolean::New(info.Env(), found);
  }

  Napi::Value fail(const Napi::CallbackInfo& info) {
    const bool found = session_ != nullptr && session_->fail(info[0].As<Napi::Number>().Uint32Value(),
                                                             info[1].As<Napi::Number>().Int32Value());
    return Napi::Boolean::New(info.Env(), found);
  }

  void forget_inode(const Napi::CallbackInfo& info) {
    if (session_ != nullptr) session_->forget_inode(to_u64(info[0]));
  }

  void forget_entry(const Napi::CallbackInfo& info) {
    auto name = info[1].As<Napi::Uint8Array>();
    if (session_ == nullptr) return;
    session_->forget_entry(to_u64(info[0]), {reinterpret_cast<const char*>(name.Data()), name.ByteLength()});
  }

  void invalidate_inode(const Napi::CallbackInfo& info) {
    if (session_ == nullptr) return;
    session_->invalidate_inode(to_u64(info[0]), info[1].As<Napi::Number>().Int64Value(),
                               info[2].As<Napi::Number>().Int64Value());
  }

  void invalidate_entry(const Napi::CallbackInfo& info) {
    auto name = info[1].As<Napi::Uint8Array>();
    if (session_ == nullptr) return;
    session_->invalidate_entry(to_u64(info[0]),
                               {reinterpret_cast<const char*>(name.Data()), name.ByteLength()});
  }

  void set_exclusive(const Napi::CallbackInfo& info) {
    if (session_ != nullptr) session_->set_exclusive(info[0].As<Napi::Boolean>().Value());
  }

  Napi::Value take_forgotten(const Napi::CallbackInfo& info) {
    auto out = Napi::Array::New(info.Env());
    if (session_ == nullptr) return out;
    uint32_t index = 0;
    for (const uint64_t ino : session_->take_forgotten()) out[index++] = static_cast<double>(ino);
    return out;
  }

  Napi::Value unmount(const Napi::CallbackInfo& info) {
    const bool lazy = info[0].As<Napi::Boolean>().Value();
    // Its turn may come when the mount has ended and the session is gone.
    return on_pool(Value(), [this, lazy] { return fuse::unmount_fuse(options_.mount.mountpoint, lazy); });
  }

  void stop(const Napi::CallbackInfo&) { end(); }

  Napi::Value stats(const Napi::CallbackInfo& info) {
    auto out = Napi::Object::New(info.Env());
    if (session_ == nullptr) return out;
    for (const auto& [name, value] : session_->stats()) out.Set(name, static_cast<double>(value));
    return out;
  }

  Napi::Value negotiated(const Napi::CallbackInfo& info) {
    auto out = Napi::Object::New(info.Env());
    const fuse::Negotiated& agreed = session_->negotiated();
    out.Set("kernelMinor", agreed.kernel_minor);
    out.Set("passthrough", agreed.has(fuse::init_flag::passthrough));
    out.Set("flags", Napi::BigInt::New(info.Env(), agreed.flags));
    return out;
  }

  Napi::Value channel(const Napi::CallbackInfo& info) {
    auto out = Napi::Object::New(info.Env());
    const fuse::ChannelState state = session_ == nullptr ? fuse::ChannelState{} : session_->channel();
    out.Set("kind", state.kind == fuse::ChannelKind::io_uring ? "io_uring" : "device");
    out.Set("refusal", state.refusal);
    return out;
  }

  static void on_environment_exit(void* self) {
    auto* session = static_cast<FuseSession*>(self);
    session->hooked_ = false;
    session->end();
  }

  // Joins every thread before the memory they use and the function they call may go.
  void end() {
    if (session_ == nullptr) return;
    before_wait_.reset();
    session_->stop();
    session_.reset();
    if (!wake_) return;
    if (hooked_) napi_remove_env_cleanup_hook(Env(), &FuseSession::on_environment_exit, this);
    hooked_ = false;
    wake_.Release();
    wake_ = {};
  }

  SessionOptions options_;
  std::shared_ptr<fuse::FileIo> file_io_;
  Napi::Reference<Napi::Uint8Array> ring_;
  Napi::Reference<Napi::Uint8Array> reply_;
  std::span<std::byte> reply_memory_;
  Napi::ThreadSafeFunction wake_;
  std::optional<BeforeWait> before_wait_;
  bool hooked_ = false;
  std::unique_ptr<Session> session_;
};

class MemoryFileIoWrap final : public Napi::ObjectWrap<MemoryFileIoWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "MemoryFileIo",
        {InstanceMethod<&MemoryFileIoWrap::handle>("fileIo"),
         InstanceMethod<&MemoryFileIoWrap::attach>("attach"),
         InstanceMethod<&MemoryFileIoWrap::truncate>("truncate"),
         InstanceMethod<&MemoryFileIoWrap::punch>("punch"), InstanceMethod<&MemoryFileIoWrap::seek>("seek"),
         InstanceMethod<&MemoryFileIoWrap::read>("read"), InstanceMethod<&MemoryFileIoWrap::write>("write"),
         InstanceMethod<&MemoryFileIoWrap::size>("size"), InstanceMethod<&MemoryFileIoWrap::pages>("pages"),
         InstanceMethod<&MemoryFileIoWrap::remove>("remove")});
  }

  // capacity in bytes, and whether files must be attached
  explicit MemoryFileIoWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<MemoryFileIoWrap>(info), file_io_(std::make_shared<MemoryFileIo>(to_u64(info[0]))) {
    file_io_->require_attach(info[1].As<Napi::Boolean>().Value());
  }

 private:
  Napi::Value handle(const Napi::CallbackInfo& info) { return export_file_io(info.Env(), file_io_); }
  void attach(const Napi::CallbackInfo& info) { file_io_->attach(to_u64(info[0])); }
  void truncate(const Napi::CallbackInfo& info) { file_io_->truncate(to_u64(info[0]), to_u64(info[1])); }
  void punch(const Napi::CallbackInfo& info) {
    file_io_->punch(to_u64(info[0]), to_u64(info[1]), to_u64(info[2]));
  }
  void remove(const Napi::CallbackInfo& info) { file_io_->remove(to_u64(info[0])); }

  Napi::Value seek(const Napi::CallbackInfo& info) {
    const auto found = file_io_->seek(to_u64(info[0]), to_u64(info[1]), info[2].As<Napi::Boolean>().Value());
    return Napi::Number::New(info.Env(), found ? static_cast<double>(*found) : -1);
  }

  // Bytes read into, or written from, a Uint8Array; a negative errno on failure.
  Napi::Value read(const Napi::CallbackInfo& info) {
    auto target = info[2].As<Napi::Uint8Array>();
    const auto outcome = file_io_->read(to_u64(info[0]), to_u64(info[1]),
                                        {reinterpret_cast<std::byte*>(target.Data()), target.ByteLength()});
    return outcome_value(info.Env(), outcome);
  }

  Napi::Value write(const Napi::CallbackInfo& info) {
    auto source = info[2].As<Napi::Uint8Array>();
    const auto outcome =
        file_io_->write(to_u64(info[0]), to_u64(info[1]),
                        {reinterpret_cast<const std::byte*>(source.Data()), source.ByteLength()});
    return outcome_value(info.Env(), outcome);
  }

  static Napi::Value outcome_value(Napi::Env env, const fuse::IoOutcome& outcome) {
    if (outcome.status == fuse::IoStatus::done)
      return Napi::Number::New(env, static_cast<double>(outcome.bytes));
    return Napi::Number::New(env, -(outcome.status == fuse::IoStatus::error ? outcome.error : EAGAIN));
  }

  Napi::Value size(const Napi::CallbackInfo& info) {
    const auto local = file_io_->attributes(to_u64(info[0]));
    return Napi::Number::New(info.Env(), local ? static_cast<double>(local->size) : 0);
  }

  Napi::Value pages(const Napi::CallbackInfo& info) {
    const auto local = file_io_->attributes(to_u64(info[0]));
    return Napi::Number::New(info.Env(), local ? static_cast<double>(local->pages) : 0);
  }

  std::shared_ptr<MemoryFileIo> file_io_;
};

// Offsets and sizes the TypeScript codec relies on; its test compares them with its own constants.
Napi::Object layout_of(Napi::Env env) {
  using namespace fuse;  // NOLINT: the listed structures are named as there
  Layout layout(env);
#include "bindings/fuse_layout.inc"
  layout.put("UpcallRing.head", fuse::UpcallRing::kHeadOffset);
  layout.put("UpcallRing.tail", fuse::UpcallRing::kTailOffset);
  layout.put("UpcallRing.sleeping", fuse::UpcallRing::kSleepingOffset);
  layout.put("UpcallRing.data", fuse::UpcallRing::kDataOffset);
  layout.put("kRecordSkip", fuse::kRecordSkip);
  layout.put("kRecordEnded", fuse::kRecordEnded);
  layout.put("kRecordDataNeed", fuse::kRecordDataNeed);
  layout.put("kRecordForgotten", fuse::kRecordForgotten);
  layout.put("kNoSlot", fuse::kNoSlot);
  layout.put("kOpenSimpleRelease", fuse::kOpenSimpleRelease);
  return layout.object();
}

void initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("FuseSession", FuseSession::define(env));
  exports.Set("MemoryFileIo", MemoryFileIoWrap::define(env));
  exports.Set("fuseLayout", layout_of(env));
}

PENSTOCK_EXPORT(initialize);

}  // namespace

}  // namespace penstock::bindings

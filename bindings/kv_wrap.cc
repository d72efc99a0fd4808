// RocksStore for JavaScript. Opening, syncing and closing happen on the thread pool, everything else at once.
#include <memory>
#include <string>

#include "bindings/module.h"
#include "bindings/on_pool.h"
#include "native/kv/rocks_store.h"

namespace penstock::bindings {

namespace {

using kv::RocksStore;

// One buffer shared with the caller carries keys in and values out (layouts in rocks_store.h).
std::span<std::byte> bytes_of(const Napi::Value& value) {
  auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<std::byte*>(array.Data()), array.ByteLength()};
}

uint32_t u32(const Napi::Value& value) {
  return value.As<Napi::Number>().Uint32Value();
}

class RocksStoreWrap : public Napi::ObjectWrap<RocksStoreWrap> {
 public:
  static void initialize(Napi::Env env, Napi::Object exports);
  explicit RocksStoreWrap(const Napi::CallbackInfo& info);

 private:
  static Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value get(const Napi::CallbackInfo& info);
  Napi::Value scan(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value take_snapshot(const Napi::CallbackInfo& info);
  Napi::Value release_snapshot(const Napi::CallbackInfo& info);
  Napi::Value sync(const Napi::CallbackInfo& info);
  Napi::Value rotate(const Napi::CallbackInfo& info);
  Napi::Value properties(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  Napi::Value fail(const Error& error) {
    to_js_error(Env(), error).ThrowAsJavaScriptException();
    return Env().Undefined();
  }

  // True, with an exception pending, once `close` was called.
  bool refuse_closed() {
    if (store_) return false;
    fail(Error{EBADF, "the store is closed"});
    return true;
  }

  // Shared with a sync or close under way on the thread pool.
  std::shared_ptr<RocksStore> store_;
};

void RocksStoreWrap::initialize(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor = DefineClass(
      env, "RocksStore",
      {StaticMethod<&RocksStoreWrap::open>("open"), InstanceMethod<&RocksStoreWrap::get>("get"),
       InstanceMethod<&RocksStoreWrap::scan>("scan"), InstanceMethod<&RocksStoreWrap::write>("write"),
       InstanceMethod<&RocksStoreWrap::take_snapshot>("takeSnapshot"),
       InstanceMethod<&RocksStoreWrap::release_snapshot>("releaseSnapshot"),
       InstanceMethod<&RocksStoreWrap::sync>("sync"), InstanceMethod<&RocksStoreWrap::rotate>("rotate"),
       InstanceMethod<&RocksStoreWrap::properties>("properties"),
       InstanceMethod<&RocksStoreWrap::close>("close")});
  exports.Set("RocksStore", constructor);
}

RocksStoreWrap::RocksStoreWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RocksStoreWrap>(info) {
  if (info.Length() < 1 || !info[0].IsExternal()) {
    Napi::TypeError::New(info.Env(), "use RocksStore.open").ThrowAsJavaScriptException();
    return;
  }
  store_ = std::move(*info[0].As<Napi::External<std::unique_ptr<RocksStore>>>().Data());
}

Napi::Value RocksStoreWrap::open(const Napi::CallbackInfo& info) {
  const std::string directory = info[0].As<Napi::String>();
  const std::size_t block_cache_bytes = u32(info[1]);
  auto constructor =
      std::make_shared<Napi::FunctionReference>(Napi::Persistent(info.This().As<Napi::Function>()));
  auto work = [directory, block_cache_bytes] { return RocksStore::open(directory, block_cache_bytes); };
  auto answer = [constructor](Napi::Env env, std::unique_ptr<RocksStore>& opened) -> Napi::Value {
    return constructor->New({Napi::External<std::unique_ptr<RocksStore>>::New(env, &opened)});
  };
  return on_pool(info.This().As<Napi::Object>(), std::move(work), std::move(answer));
}

// get(buffer, keyBytes, snapshot): length of the value, -1 if there is none.
Napi::Value RocksStoreWrap::get(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  const auto found = store_->get(bytes_of(info[0]), u32(info[1]), u32(info[2]));
  if (!found) return fail(found.error());
  const std::optional<std::size_t>& length = found.value();
  return Napi::Number::New(Env(), length.has_value() ? static_cast<double>(*length) : -1);
}

// scan(buffer, startBytes, endBytes, limit, reverse, snapshot): bytes used, or needed if above the buffer's
// length.
Napi::Value RocksStoreWrap::scan(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  const kv::ScanRequest request{u32(info[1]), u32(info[2]), u32(info[3]),
                                info[4].As<Napi::Boolean>().Value()};
  const auto used = store_->scan(bytes_of(info[0]), request, u32(info[5]));
  if (!used) return fail(used.error());
  return Napi::Number::New(Env(), static_cast<double>(used.value()));
}

// write(buffer, bytes): what the memtable holds, to be compared with the rotation threshold.
Napi::Value RocksStoreWrap::write(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  const auto written = store_->write(bytes_of(info[0]).first(u32(info[1])));
  if (!written) return fail(written.error());
  return Napi::Number::New(Env(), static_cast<double>(store_->unrotated_bytes()));
}

Napi::Value RocksStoreWrap::take_snapshot(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  const auto snapshot = store_->take_snapshot();
  return snapshot ? Napi::Number::New(info.Env(), snapshot.value()) : fail(snapshot.error());
}

Napi::Value RocksStoreWrap::release_snapshot(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  store_->release_snapshot(u32(info[0]));
  return info.Env().Undefined();
}

Napi::Value RocksStoreWrap::sync(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  // The journal and what is recent belong to this thread.
  if (const auto taken = store_->hand_over(); !taken) return fail(taken.error());
  return on_pool(Value(), [store = store_] { return store->sync(); });
}

Napi::Value RocksStoreWrap::rotate(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  const auto rotated = store_->rotate();
  return rotated ? info.Env().Undefined() : fail(rotated.error());
}

Napi::Value RocksStoreWrap::properties(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  Napi::Object object = Napi::Object::New(info.Env());
  for (const auto& [name, value] : store_->properties())
    object.Set(name, Napi::Number::New(info.Env(), double(value)));
  return object;
}

// Nothing may be called afterwards. The work owns the last reference, so that closing, which waits for
// RocksDB's background work, happens on the thread pool.
Napi::Value RocksStoreWrap::close(const Napi::CallbackInfo& info) {
  if (refuse_closed()) return Env().Undefined();
  return on_pool(Value(), [store = std::move(store_)]() mutable {
    store.reset();
    return Result<void>();
  });
}

void initialize_kv(Napi::Env env, Napi::Object exports) {
  RocksStoreWrap::initialize(env, exports);
}

PENSTOCK_EXPORT(initialize_kv);

}  // namespace

}  // namespace penstock::bindings

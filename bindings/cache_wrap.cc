// The gateway's local cache for JavaScript: argument conversion around native/cache, no logic. Calls that
// only touch memory and the page cache are synchronous; fsync, open and close run on libuv's threads.
#include <limits>
#include <utility>

#include "bindings/file_io_handle.h"
#include "bindings/module.h"
#include "bindings/native_handle.h"
#include "bindings/on_pool.h"
#include "native/cache/cache.h"

namespace penstock::bindings {
namespace {

using cache::Attributes;
using cache::Cache;
using fuse::IoOutcome;
using fuse::IoStatus;
using fuse::Timespec;

using Share = std::shared_ptr<Cache>;

uint64_t number(const Napi::Value& value) {
  return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
}

Napi::Number to_js(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

Timespec timespec_of(const Napi::Value& value) {
  const auto object = value.As<Napi::Object>();
  return {object.Get("sec").As<Napi::Number>().Int64Value(),
          object.Get("nsec").As<Napi::Number>().Uint32Value()};
}

Napi::Object to_js(Napi::Env env, const Timespec& time) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("sec", Napi::Number::New(env, static_cast<double>(time.sec)));
  object.Set("nsec", Napi::Number::New(env, time.nsec));
  return object;
}

void set_attributes(Napi::Object object, const Attributes& attributes) {
  const Napi::Env env = object.Env();
  object.Set("size", to_js(env, attributes.size));
  object.Set("pages", to_js(env, attributes.pages));
  object.Set("mtime", to_js(env, attributes.mtime));
  object.Set("ctime", to_js(env, attributes.ctime));
}

const char* name_of(IoStatus status) {
  switch (status) {
    case IoStatus::done:
      return "done";
    case IoStatus::need_attach:
      return "need-attach";
    case IoStatus::need_map:
      return "need-map";
    case IoStatus::need_fetch:
      return "need-fetch";
    case IoStatus::need_grant:
      return "need-grant";
    case IoStatus::need_clean:
      return "need-clean";
    case IoStatus::error:
      return "error";
  }
  return "error";
}

Napi::Value to_js(Napi::Env env, const IoOutcome& outcome) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("status", name_of(outcome.status));
  object.Set("errno", outcome.error);
  object.Set("offset", to_js(env, outcome.need_offset));
  object.Set("length", to_js(env, outcome.need_length));
  object.Set("bytes", to_js(env, outcome.bytes));
  return object;
}

Napi::Array to_js(Napi::Env env, const std::vector<cache::PageRun>& runs) {
  Napi::Array list = Napi::Array::New(env, runs.size());
  for (uint32_t index = 0; index < runs.size(); ++index) {
    Napi::Array run = Napi::Array::New(env, 2);
    run.Set(0u, to_js(env, runs[index].first));
    run.Set(1u, to_js(env, runs[index].count));
    list.Set(index, run);
  }
  return list;
}

void raise(Napi::Env env, const Result<void>& result) {
  if (!result) to_js_error(env, result.error()).ThrowAsJavaScriptException();
}

class CacheWrap final : public Napi::ObjectWrap<CacheWrap> {
 public:
  static void initialize(Napi::Env env, Napi::Object exports) {
    Napi::Function constructor = DefineClass(env, "Cache",
                                             {InstanceMethod<&CacheWrap::open>("open"),
                                              InstanceMethod<&CacheWrap::close>("close"),
                                              InstanceMethod<&CacheWrap::lose>("lose"),
                                              InstanceMethod<&CacheWrap::make_anew>("makeAnew"),
                                              InstanceMethod<&CacheWrap::recovery>("recovery"),
                                              InstanceMethod<&CacheWrap::file_io>("fileIo"),
                                              InstanceMethod<&CacheWrap::page_endpoint>(kPageEndpointMethod),
                                              InstanceMethod<&CacheWrap::attach>("attach"),
                                              InstanceMethod<&CacheWrap::attributes>("attributes"),
                                              InstanceMethod<&CacheWrap::detach>("detach"),
                                              InstanceMethod<&CacheWrap::forget>("forget"),
                                              InstanceMethod<&CacheWrap::condemn>("condemn"),
                                              InstanceMethod<&CacheWrap::set_map>("setMap"),
                                              InstanceMethod<&CacheWrap::set_holes>("setHoles"),
                                              InstanceMethod<&CacheWrap::grant>("grant"),
                                              InstanceMethod<&CacheWrap::grant_remaining>("grantRemaining"),
                                              InstanceMethod<&CacheWrap::take_back_grant>("takeBackGrant"),
                                              InstanceMethod<&CacheWrap::read_into>("readInto"),
                                              InstanceMethod<&CacheWrap::write>("write"),
                                              InstanceMethod<&CacheWrap::fill>("fill"),
                                              InstanceMethod<&CacheWrap::read_page_run>("readPages"),
                                              InstanceMethod<&CacheWrap::truncate>("truncate"),
                                              InstanceMethod<&CacheWrap::punch>("punch"),
                                              InstanceMethod<&CacheWrap::zero>("zero"),
                                              InstanceMethod<&CacheWrap::allocate>("allocate"),
                                              InstanceMethod<&CacheWrap::seek>("seek"),
                                              InstanceMethod<&CacheWrap::set_times>("setTimes"),
                                              InstanceMethod<&CacheWrap::sync_files>("syncFiles"),
                                              InstanceMethod<&CacheWrap::sync_all>("syncAll"),
                                              InstanceMethod<&CacheWrap::sync_log>("syncLog"),
                                              InstanceMethod<&CacheWrap::begin_publish>("beginPublish"),
                                              InstanceMethod<&CacheWrap::publishable>("publishable"),
                                              InstanceMethod<&CacheWrap::complete_publish>("completePublish"),
                                              InstanceMethod<&CacheWrap::abort_publish>("abortPublish"),
                                              InstanceMethod<&CacheWrap::dirty_state>("dirtyState"),
                                              InstanceMethod<&CacheWrap::dirty_bytes_of>("dirtyBytesOf"),
                                              InstanceMethod<&CacheWrap::is_dirty>("isDirty"),
                                              InstanceMethod<&CacheWrap::pin>("pin"),
                                              InstanceMethod<&CacheWrap::unpin>("unpin"),
                                              InstanceMethod<&CacheWrap::evict>("evict"),
                                              InstanceMethod<&CacheWrap::is_wholly_valid>("isWhollyValid"),
                                              InstanceMethod<&CacheWrap::open_backing>("openBacking"),
                                              InstanceMethod<&CacheWrap::check>("check"),
                                              InstanceMethod<&CacheWrap::stats>("stats")});
    exports.Set("Cache", constructor);
  }

  explicit CacheWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    tag_page_endpoint(info.This().As<Napi::Object>());
  }

 private:
  // bindings/cache.ts calls nothing else before `open` has resolved.
  Cache& held() const { return *share_; }

  Napi::Value open(const Napi::CallbackInfo& info) {
    const auto given = info[0].As<Napi::Object>();
    cache::CacheOptions options;
    options.directory = given.Get("directory").As<Napi::String>();
    options.identity = given.Get("identity").As<Napi::String>().Utf8Value();
    options.boot_id = given.Get("bootId").As<Napi::String>().Utf8Value();
    options.budget_bytes = number(given.Get("budgetBytes"));
    options.dirty_budget_bytes = number(given.Get("dirtyBudgetBytes"));
    auto keep = std::make_shared<Napi::ObjectReference>(Napi::Persistent(info.This().As<Napi::Object>()));
    return on_pool(Value(), [this, options, keep]() -> Result<void> {
      auto opened = Cache::open(options);
      if (!opened) return opened.error();
      share_ = std::move(*opened);
      endpoint_ = {share_.get(), share_.get()};
      return {};
    });
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    return on_pool(Value(), [share = share_] { return share->close(); });
  }
  Napi::Value recovery(const Napi::CallbackInfo& info) {
    const cache::Recovery& found = held().recovery();
    const Napi::Env env = info.Env();
    Napi::Object object = Napi::Object::New(env);
    object.Set("files", to_js(env, found.files));
    object.Set("dirtyFiles", to_js(env, found.dirty_files));
    object.Set("dirtyBytes", to_js(env, found.dirty_bytes));
    object.Set("droppedPages", to_js(env, found.dropped_pages));
    object.Set("chargedPages", to_js(env, found.charged_pages));
    object.Set("bootChanged", found.boot_changed);
    return object;
  }
  Napi::Value file_io(const Napi::CallbackInfo& info) { return export_file_io(info.Env(), share_); }
  Napi::Value page_endpoint(const Napi::CallbackInfo& info) {
    return Napi::External<PageEndpoint>::New(info.Env(), &endpoint_);
  }

  Napi::Value attach(const Napi::CallbackInfo& info) {
    const auto given = info[1].As<Napi::Object>();
    cache::AttachBase base;
    base.attributes = {number(given.Get("size")), number(given.Get("pages")), timespec_of(given.Get("mtime")),
                       timespec_of(given.Get("ctime"))};
    base.version = number(given.Get("version"));
    base.is_new = given.Get("isNew").ToBoolean();
    Napi::Object object = Napi::Object::New(info.Env());
    set_attributes(object, held().attach(number(info[0]), base));
    return object;
  }
  Napi::Value attributes(const Napi::CallbackInfo& info) {
    const auto local = held().attributes(number(info[0]));
    if (!local) return info.Env().Undefined();
    Napi::Object object = Napi::Object::New(info.Env());
    set_attributes(object, {local->size, local->pages, local->mtime, local->ctime});
    return object;
  }
  Napi::Value detach(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), held().detach(number(info[0])));
  }
  void forget(const Napi::CallbackInfo& info) { held().forget(number(info[0])); }
  void lose(const Napi::CallbackInfo&) { held().lose(); }
  void make_anew(const Napi::CallbackInfo& info) { raise(info.Env(), held().make_anew()); }
  void condemn(const Napi::CallbackInfo& info) { held().condemn(number(info[0])); }
  void set_map(const Napi::CallbackInfo& info) {
    const auto bits = info[2].As<Napi::Uint8Array>();
    raise(info.Env(), held().set_map(number(info[0]), number(info[1]), {bits.Data(), bits.ByteLength()}));
  }
  void set_holes(const Napi::CallbackInfo& info) {
    raise(info.Env(), held().set_holes(number(info[0]), number(info[1]), number(info[2])));
  }
  void grant(const Napi::CallbackInfo& info) { held().grant(number(info[0])); }
  Napi::Value grant_remaining(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(held().grant_remaining()));
  }
  Napi::Value take_back_grant(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().take_back_grant(number(info[0])));
  }

  static std::span<std::byte> bytes_of(const Napi::Value& value) {
    auto bytes = value.As<Napi::Uint8Array>();
    return std::as_writable_bytes(std::span<uint8_t>(bytes.Data(), bytes.ByteLength()));
  }
  Napi::Value read_into(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().read(number(info[0]), number(info[1]), bytes_of(info[2])));
  }
  Napi::Value write(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().write(number(info[0]), number(info[1]), bytes_of(info[2])));
  }
  void fill(const Napi::CallbackInfo& info) {
    raise(info.Env(), held().fill_pages(number(info[0]), number(info[1]), bytes_of(info[2])));
  }
  void read_page_run(const Napi::CallbackInfo& info) {
    raise(info.Env(), held().read_pages(number(info[0]), number(info[1]), bytes_of(info[2])));
  }
  Napi::Value truncate(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().truncate(number(info[0]), number(info[1])));
  }
  Napi::Value punch(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().punch(number(info[0]), number(info[1]), number(info[2])));
  }
  Napi::Value zero(const Napi::CallbackInfo& info) {
    return to_js(info.Env(),
                 held().zero(number(info[0]), number(info[1]), number(info[2]), info[3].ToBoolean()));
  }
  Napi::Value allocate(const Napi::CallbackInfo& info) {
    return to_js(info.Env(),
                 held().allocate(number(info[0]), number(info[1]), number(info[2]), info[3].ToBoolean()));
  }
  Napi::Value seek(const Napi::CallbackInfo& info) {
    const bool data = info[2].As<Napi::String>().Utf8Value() == "data";
    return to_js(info.Env(), held().seek(number(info[0]), number(info[1]),
                                         data ? cache::SeekKind::data : cache::SeekKind::hole));
  }
  void set_times(const Napi::CallbackInfo& info) {
    const auto given = info[1].As<Napi::Object>();
    cache::Times times;
    if (const Napi::Value mtime = given.Get("mtime"); mtime.IsObject()) times.mtime = timespec_of(mtime);
    if (const Napi::Value ctime = given.Get("ctime"); ctime.IsObject()) times.ctime = timespec_of(ctime);
    raise(info.Env(), held().set_times(number(info[0]), times));
  }
  Napi::Value sync_files(const Napi::CallbackInfo& info) {
    const auto list = info[0].As<Napi::Float64Array>();
    std::vector<uint64_t> inos(list.Data(), list.Data() + list.ElementLength());
    return on_pool(
        Value(),
        [share = share_, inos = std::move(inos)]() -> Result<std::vector<Result<void>>> {
          return share->sync_files(inos);
        },
        [](Napi::Env env, const std::vector<Result<void>>& outcomes) -> Napi::Value {
          Napi::Array errors = Napi::Array::New(env, outcomes.size());
          for (uint32_t index = 0; index < outcomes.size(); ++index) {
            if (!outcomes[index]) errors.Set(index, to_js_error(env, outcomes[index].error()).Value());
          }
          return errors;
        });
  }
  Napi::Value sync_all(const Napi::CallbackInfo& info) {
    return on_pool(Value(), [share = share_] { return share->sync_all(); });
  }
  Napi::Value sync_log(const Napi::CallbackInfo& info) {
    return on_pool(Value(), [share = share_] { return share->sync_log(); });
  }

  Napi::Value begin_publish(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    std::vector<uint64_t> inos;
    const auto limits = info[0].As<Napi::Object>();
    if (const Napi::Value chosen = limits.Get("inos"); chosen.IsArray()) {
      const auto list = chosen.As<Napi::Array>();
      for (uint32_t index = 0; index < list.Length(); ++index) inos.push_back(number(list.Get(index)));
      if (inos.empty()) return Napi::Array::New(env);
    }
    Result<void> taken;
    const auto snapshots =
        held().begin_publish({number(limits.Get("maxFiles")), number(limits.Get("maxBytes"))}, inos, &taken);
    if (!taken) {
      raise(env, taken);
      return Napi::Value();
    }
    Napi::Array list = Napi::Array::New(env, snapshots.size());
    for (uint32_t index = 0; index < snapshots.size(); ++index) {
      const cache::PublishSnapshot& snapshot = snapshots[index];
      Napi::Object object = Napi::Object::New(env);
      object.Set("ino", to_js(env, snapshot.ino));
      object.Set("generation", snapshot.generation);
      set_attributes(object, snapshot.attributes);
      object.Set("baseVersion", to_js(env, snapshot.base_version));
      const bool cut = snapshot.base_limit_page != cache::kNoLimit;
      object.Set("baseLimitPage", cut ? to_js(env, snapshot.base_limit_page)
                                      : Napi::Number::New(env, std::numeric_limits<double>::infinity()));
      object.Set("writes", to_js(env, snapshot.writes));
      object.Set("holes", to_js(env, snapshot.holes));
      list.Set(index, object);
    }
    return list;
  }
  Napi::Value publishable(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(),
                              held().publishable(number(info[0]), static_cast<uint32_t>(number(info[1]))));
  }
  void complete_publish(const Napi::CallbackInfo& info) {
    raise(info.Env(),
          held().complete_publish(number(info[0]), static_cast<uint32_t>(number(info[1])), number(info[2])));
  }
  void abort_publish(const Napi::CallbackInfo& info) {
    raise(info.Env(), held().abort_publish(number(info[0]), static_cast<uint32_t>(number(info[1]))));
  }
  Napi::Value dirty_state(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const cache::DirtyState state = held().dirty_state();
    Napi::Object object = Napi::Object::New(env);
    object.Set("dirtyFiles", to_js(env, state.dirty_files));
    object.Set("dirtyBytes", to_js(env, state.dirty_bytes));
    object.Set("inFlightBytes", to_js(env, state.in_flight_bytes));
    object.Set("oldestDirtyMs", to_js(env, state.oldest_dirty_ms));
    object.Set("cachedBytes", to_js(env, state.cached_bytes));
    object.Set("budgetBytes", to_js(env, state.budget_bytes));
    object.Set("descriptorsTaken", Napi::Boolean::New(env, state.descriptors_taken));
    return object;
  }
  Napi::Value dirty_bytes_of(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().dirty_bytes_of(number(info[0])));
  }
  Napi::Value is_dirty(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), held().is_dirty(number(info[0])));
  }
  void pin(const Napi::CallbackInfo& info) { held().pin(number(info[0])); }
  void unpin(const Napi::CallbackInfo& info) { held().unpin(number(info[0])); }
  Napi::Value evict(const Napi::CallbackInfo& info) {
    return to_js(info.Env(), held().evict(number(info[0])));
  }
  Napi::Value is_wholly_valid(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), held().is_wholly_valid(number(info[0])));
  }
  Napi::Value open_backing(const Napi::CallbackInfo& info) {
    const Result<int> fd = held().open_backing(number(info[0]));
    if (fd) return Napi::Number::New(info.Env(), *fd);
    to_js_error(info.Env(), fd.error()).ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  Napi::Value check(const Napi::CallbackInfo& info) {
    const std::vector<std::string> wrong = held().check();
    Napi::Array list = Napi::Array::New(info.Env(), wrong.size());
    for (uint32_t index = 0; index < wrong.size(); ++index) list.Set(index, wrong[index]);
    return list;
  }
  Napi::Value stats(const Napi::CallbackInfo& info) {
    Napi::Object object = Napi::Object::New(info.Env());
    for (const auto& [name, value] : held().stats()) object.Set(name, to_js(info.Env(), value));
    return object;
  }

  Share share_;
  PageEndpoint endpoint_;
};

void initialize_cache(Napi::Env env, Napi::Object exports) {
  CacheWrap::initialize(env, exports);
}
PENSTOCK_EXPORT(initialize_cache);

}  // namespace
}  // namespace penstock::bindings

// ExtentStore for JavaScript. Every method but `statistics` runs on libuv's thread pool and answers with a
// promise; numbers cross in one Float64Array a call (2^53 pages and ids are enough), pages between native
// objects only.
//
//   stage         items | per item: stripe, base, new version, ino, file page, keep pages (Infinity: all),
//   holes, writes,
//                 then [first, count] for each hole and each write
//   fetch         per range: stripe, version, ino, file page, first page, count
//   read          stripe, version, first page, count: into a Uint8Array of that many pages, mostly shared
//                 memory, which nobody may touch until the promise settles
//   versions      per version: stripe, version        (drop, confirm; the answer of unconfirmed)
//   damaged       per page: stripe, version, page      (the answer of scrub, after the number of pages
//   checked)
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/module.h"
#include "bindings/native_handle.h"
#include "bindings/on_pool.h"
#include "native/extent/extent_store.h"

namespace penstock::bindings {
namespace {

using extent::ExtentStore;
using StorePointer = std::shared_ptr<ExtentStore>;

// Reads numbers in order; a malformed one or a missing one is remembered.
class NumberReader {
 public:
  explicit NumberReader(const Napi::Float64Array& numbers)
      : next_(numbers.Data()), end_(numbers.Data() + numbers.ElementLength()) {}

  bool at_end() const { return next_ == end_; }
  bool ok() const { return ok_; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - next_); }

  uint64_t integer() {
    const double value = raw();
    if (!(value >= 0) || value > 9007199254740991.0 || value != std::floor(value)) ok_ = false;
    return ok_ ? static_cast<uint64_t>(value) : 0;
  }

  uint64_t integer_or_infinity(uint64_t infinity) {
    if (next_ != end_ && std::isinf(*next_) && *next_ > 0) {
      next_++;
      return infinity;
    }
    return integer();
  }

 private:
  double raw() {
    if (next_ != end_) return *next_++;
    ok_ = false;
    return 0;
  }

  const double* next_;
  const double* end_;
  bool ok_ = true;
};

struct StageBatch {
  std::vector<extent::StageItem> items;
  std::vector<extent::PageRange> ranges;

  bool read(NumberReader reader) {
    const uint64_t count = reader.integer();
    if (count > reader.left()) return false;
    ranges.reserve(reader.left() / 2);  // never reallocated: items point into it
    for (uint64_t i = 0; i < count && reader.ok(); i++) {
      extent::StageItem item;
      item.stripe = reader.integer();
      item.base_version = reader.integer();
      item.new_version = reader.integer();
      item.ino = reader.integer();
      item.file_page = reader.integer();
      item.keep_pages = reader.integer_or_infinity(extent::kKeepAllPages);
      const uint64_t holes = reader.integer();
      const uint64_t writes = reader.integer();
      if (holes > reader.left() / 2 || writes > reader.left() / 2 - holes) return false;
      const std::size_t begin = ranges.size();
      for (uint64_t range = 0; range < holes + writes; range++) {
        const uint64_t first = reader.integer();
        ranges.push_back({first, reader.integer()});
      }
      item.holes = std::span{ranges}.subspan(begin, holes);
      item.writes = std::span{ranges}.subspan(begin + holes, writes);
      items.push_back(item);
    }
    return reader.ok() && reader.at_end();
  }
};

std::vector<extent::VersionKey> read_versions(NumberReader reader, bool& ok) {
  std::vector<extent::VersionKey> versions;
  while (!reader.at_end() && reader.ok()) {
    const uint64_t stripe = reader.integer();
    versions.push_back({stripe, reader.integer()});
  }
  ok = reader.ok();
  return versions;
}

// Memory of the caller's as a sink of the pages from `begin` on.
class MemorySink final : public PageSink {
 public:
  MemorySink(uint64_t begin, std::span<std::byte> memory) : begin_(begin), memory_(memory) {}

  Result<void> fill_pages(uint64_t, uint64_t first_page, std::span<const std::byte> pages) override {
    const auto place = memory_.subspan((first_page - begin_) * kPageSize, pages.size());
    std::copy(pages.begin(), pages.end(), place.begin());
    return {};
  }

 private:
  uint64_t begin_;
  std::span<std::byte> memory_;
};

Napi::Value to_array(Napi::Env env, const std::vector<double>& numbers) {
  auto array = Napi::Float64Array::New(env, numbers.size());
  std::copy(numbers.begin(), numbers.end(), array.Data());
  return array;
}

Napi::Value refuse(Napi::Env env, const char* message) {
  Napi::TypeError::New(env, message).ThrowAsJavaScriptException();
  return env.Undefined();
}

uint64_t option(const Napi::Object& options, const char* name, uint64_t otherwise) {
  const Napi::Value value = options.Get(name);
  return value.IsNumber() ? static_cast<uint64_t>(std::max<int64_t>(0, value.As<Napi::Number>().Int64Value()))
                          : otherwise;
}

}  // namespace

class ExtentStoreWrap : public Napi::ObjectWrap<ExtentStoreWrap> {
 public:
  static void initialize(Napi::Env env, Napi::Object exports) {
    const Napi::Function constructor =
        DefineClass(env, "ExtentStore",
                    {
                        StaticMethod<&ExtentStoreWrap::load>("load"),
                        InstanceMethod<&ExtentStoreWrap::start>("start"),
                        InstanceMethod<&ExtentStoreWrap::stage>("stage"),
                        InstanceMethod<&ExtentStoreWrap::drop>("drop"),
                        InstanceMethod<&ExtentStoreWrap::fetch>("fetch"),
                        InstanceMethod<&ExtentStoreWrap::read>("read"),
                        InstanceMethod<&ExtentStoreWrap::presence>("presence"),
                        InstanceMethod<&ExtentStoreWrap::scrub>("scrub"),
                        InstanceMethod<&ExtentStoreWrap::unconfirmed>("unconfirmed"),
                        InstanceMethod<&ExtentStoreWrap::confirm>("confirm"),
                        InstanceMethod<&ExtentStoreWrap::check>("check"),
                        InstanceMethod<&ExtentStoreWrap::checkpoint>("checkpoint"),
                        InstanceMethod<&ExtentStoreWrap::statistics>("statistics"),
                        InstanceMethod<&ExtentStoreWrap::close>("close"),
                    });
    exports.Set("ExtentStore", constructor);
  }

  // Called by `load` with the store in an External, by nobody else.
  explicit ExtentStoreWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ExtentStoreWrap>(info) {
    if (!info[0].IsExternal()) {
      refuse(info.Env(), "an ExtentStore is made by ExtentStore.load");
      return;
    }
    loaded_ = std::move(*info[0].As<Napi::External<StorePointer>>().Data());
  }

 private:
  static Napi::Value load(const Napi::CallbackInfo& info) {
    if (!info[0].IsString() || !info[1].IsObject()) {
      return refuse(info.Env(), "ExtentStore.load takes a directory and options");
    }
    const auto given = info[1].As<Napi::Object>();
    extent::StoreOptions options;
    options.capacity_bytes = option(given, "capacityBytes", options.capacity_bytes);
    options.extent_bytes_max = option(given, "extentBytesMax", options.extent_bytes_max);
    options.growth_bytes_min = option(given, "growthBytesMin", options.growth_bytes_min);
    options.growth_bytes_max = option(given, "growthBytesMax", options.growth_bytes_max);
    options.free_floor_bytes = option(given, "freeFloorBytes", options.free_floor_bytes);
    options.segment_bytes = option(given, "segmentBytes", options.segment_bytes);
    options.checkpoint_bytes = option(given, "checkpointBytes", options.checkpoint_bytes);
    const auto constructor = info.This().As<Napi::Function>();
    auto shared_constructor = std::make_shared<Napi::FunctionReference>(Napi::Persistent(constructor));
    return on_pool(
        constructor,
        [directory = info[0].As<Napi::String>().Utf8Value(), options]() -> Result<StorePointer> {
          auto loaded = ExtentStore::load(host_file_system(), directory, options);
          if (!loaded) return loaded.error();
          return StorePointer(std::move(*loaded));
        },
        [shared_constructor](Napi::Env env, StorePointer& store) -> Napi::Value {
          return shared_constructor->New({Napi::External<StorePointer>::New(env, &store)});
        });
  }

  // The loaded store is gone when this fails.
  Napi::Value start(const Napi::CallbackInfo& info) {
    if (loaded_ == nullptr) return closed(info.Env());
    return on_pool(
        info.This().As<Napi::Object>(),
        [loaded = std::exchange(loaded_, nullptr)]() mutable -> Result<StorePointer> {
          const StorePointer store = std::exchange(loaded, nullptr);
          if (auto started = store->start(); !started) return started.error();
          return store;
        },
        [this](Napi::Env env, StorePointer& store) -> Napi::Value {
          store_ = std::move(store);
          return env.Undefined();
        });
  }

  Napi::Value stage(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    auto batch = std::make_shared<StageBatch>();
    if (!info[0].IsTypedArray() || !batch->read(NumberReader(info[0].As<Napi::Float64Array>()))) {
      return refuse(info.Env(), "malformed stage instructions");
    }
    const PageEndpoint* endpoint = borrow_page_endpoint(info[1]);
    if (endpoint == nullptr || endpoint->source == nullptr)
      return refuse(info.Env(), "not a source of pages");
    return on_pool(info[1].As<Napi::Object>(), [store = store_, batch, source = endpoint->source] {
      return store->stage(batch->items, *source);
    });
  }

  Napi::Value fetch(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    if (!info[0].IsTypedArray()) return refuse(info.Env(), "malformed fetch ranges");
    NumberReader reader(info[0].As<Napi::Float64Array>());
    std::vector<extent::FetchRange> ranges;
    while (!reader.at_end() && reader.ok()) {
      extent::FetchRange& range = ranges.emplace_back();
      for (uint64_t* field :
           {&range.stripe, &range.version, &range.ino, &range.file_page, &range.first_page, &range.count}) {
        *field = reader.integer();
      }
    }
    if (!reader.ok()) return refuse(info.Env(), "malformed fetch ranges");
    const PageEndpoint* endpoint = borrow_page_endpoint(info[1]);
    if (endpoint == nullptr || endpoint->sink == nullptr) return refuse(info.Env(), "not a sink of pages");
    return on_pool(info[1].As<Napi::Object>(),
                   [store = store_, ranges = std::move(ranges), sink = endpoint->sink]() -> Result<void> {
                     for (const extent::FetchRange& range : ranges) {
                       if (auto done = store->fetch(range, *sink); !done) return done;
                     }
                     return {};
                   });
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    if (!info[0].IsTypedArray() || !info[1].IsTypedArray())
      return refuse(info.Env(), "malformed read of pages");
    NumberReader reader(info[0].As<Napi::Float64Array>());
    extent::FetchRange range;
    for (uint64_t* field : {&range.stripe, &range.version, &range.first_page, &range.count}) {
      *field = reader.integer();
    }
    auto target = info[1].As<Napi::Uint8Array>();
    const std::span<std::byte> memory{reinterpret_cast<std::byte*>(target.Data()), target.ByteLength()};
    if (!reader.ok() || !reader.at_end() || memory.size() % kPageSize != 0 ||
        memory.size() / kPageSize != range.count) {
      return refuse(info.Env(), "malformed read of pages");
    }
    return on_pool(target, [store = store_, range, memory]() -> Result<void> {
      std::fill(memory.begin(), memory.end(), std::byte{0});
      MemorySink sink(range.first_page, memory);
      return store->fetch(range, sink);
    });
  }

  Napi::Value drop(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    bool ok = info[0].IsTypedArray();
    std::vector<extent::VersionKey> versions;
    if (ok) versions = read_versions(NumberReader(info[0].As<Napi::Float64Array>()), ok);
    if (!ok) return refuse(info.Env(), "malformed versions");
    return on_pool(
        info.This().As<Napi::Object>(),
        [store = store_, versions = std::move(versions)] { return store->drop(versions); },
        [](Napi::Env env, uint64_t dropped) -> Napi::Value {
          return Napi::Number::New(env, static_cast<double>(dropped));
        });
  }

  // stripe, version, first page, count
  Napi::Value presence(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    uint64_t numbers[4] = {};
    for (std::size_t i = 0; i < 4; i++) {
      const double value = info[i].IsNumber() ? info[i].As<Napi::Number>().DoubleValue() : -1;
      if (!(value >= 0) || value > 9007199254740991.0) return refuse(info.Env(), "malformed range of pages");
      numbers[i] = static_cast<uint64_t>(value);
    }
    if (numbers[3] > (uint64_t{1} << 28)) return refuse(info.Env(), "a range of more than 2^28 pages");
    return on_pool(
        info.This().As<Napi::Object>(),
        [store = store_, stripe = numbers[0], version = numbers[1], first = numbers[2], count = numbers[3]] {
          return store->presence(stripe, version, first, count);
        },
        [](Napi::Env env, const std::vector<uint8_t>& bits) -> Napi::Value {
          auto array = Napi::Uint8Array::New(env, bits.size());
          std::copy(bits.begin(), bits.end(), array.Data());
          return array;
        });
  }

  Napi::Value scrub(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    const uint32_t shard = info[0].ToNumber().Uint32Value() % ExtentStore::kShards;
    return on_pool(
        info.This().As<Napi::Object>(), [store = store_, shard] { return store->scrub(shard); },
        [](Napi::Env env, const extent::ScrubResult& result) -> Napi::Value {
          std::vector<double> numbers{static_cast<double>(result.pages_checked)};
          for (const extent::DamagedPage& page : result.damaged) {
            for (const uint64_t field : {page.stripe, page.version, page.page}) {
              numbers.push_back(static_cast<double>(field));
            }
          }
          return to_array(env, numbers);
        });
  }

  Napi::Value unconfirmed(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    const uint32_t shard = info[0].ToNumber().Uint32Value() % ExtentStore::kShards;
    const auto grace_ms = static_cast<uint64_t>(std::max<int64_t>(0, info[1].ToNumber().Int64Value()));
    const std::size_t max = info[2].ToNumber().Uint32Value();
    return on_pool(
        info.This().As<Napi::Object>(),
        [store = store_, shard, grace_ms, max]() -> Result<std::vector<extent::VersionKey>> {
          return store->unconfirmed(shard, grace_ms, max);
        },
        [](Napi::Env env, const std::vector<extent::VersionKey>& versions) -> Napi::Value {
          std::vector<double> numbers;
          for (const extent::VersionKey& key : versions) {
            numbers.push_back(static_cast<double>(key.stripe));
            numbers.push_back(static_cast<double>(key.version));
          }
          return to_array(env, numbers);
        });
  }

  Napi::Value confirm(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    bool ok = info[0].IsTypedArray();
    std::vector<extent::VersionKey> versions;
    if (ok) versions = read_versions(NumberReader(info[0].As<Napi::Float64Array>()), ok);
    if (!ok) return refuse(info.Env(), "malformed versions");
    return on_pool(info.This().As<Napi::Object>(),
                   [store = store_, versions = std::move(versions)]() -> Result<void> {
                     store->confirm_published(versions);
                     return {};
                   });
  }

  Napi::Value check(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    return on_pool(
        info.This().As<Napi::Object>(),
        [store = store_]() -> Result<std::vector<std::string>> { return store->check(); },
        [](Napi::Env env, const std::vector<std::string>& broken) -> Napi::Value {
          auto array = Napi::Array::New(env, broken.size());
          for (std::size_t i = 0; i < broken.size(); i++) array.Set(static_cast<uint32_t>(i), broken[i]);
          return array;
        });
  }

  Napi::Value checkpoint(const Napi::CallbackInfo& info) {
    if (store_ == nullptr) return closed(info.Env());
    return on_pool(info.This().As<Napi::Object>(), [store = store_] { return store->checkpoint(); });
  }

  Napi::Value statistics(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (store_ == nullptr) return closed(env);
    const auto result = store_->statistics();
    if (!result) {
      to_js_error(env, result.error()).ThrowAsJavaScriptException();
      return env.Undefined();
    }
    const extent::StoreStatistics& s = *result;
    const std::pair<const char*, uint64_t> fields[] = {
        {"bytesTotal", s.bytes_total},
        {"bytesFree", s.bytes_free},
        {"bytesMapped", s.bytes_mapped},
        {"bytesExtents", s.bytes_extents},
        {"bytesLogical", s.bytes_logical},
        {"bytesMemory", s.bytes_memory},
        {"extents", s.extents},
        {"stripes", s.stripes},
        {"versions", s.versions},
        {"stages", s.stages},
        {"drops", s.drops},
        {"commitGroups", s.commit_groups},
        {"pagesWritten", s.pages_written},
        {"pagesMoved", s.pages_moved},
        {"pagesFetched", s.pages_fetched},
        {"pagesDamaged", s.pages_damaged},
        {"expansionsAhead", s.expansions_ahead},
        {"expansionsForced", s.expansions_forced},
        {"refusedFull", s.refused_full},
        {"checkpoints", s.checkpoints},
        {"checkpointsPostponed", s.checkpoints_postponed},
        {"journalBytes", s.journal_bytes},
    };
    auto object = Napi::Object::New(env);
    for (const auto& [name, value] : fields)
      object.Set(name, Napi::Number::New(env, static_cast<double>(value)));
    return object;
  }

  // The store closes, and its lock is released, when calls under way are done.
  Napi::Value close(const Napi::CallbackInfo& info) {
    return on_pool(info.This().As<Napi::Object>(),
                   [store = std::exchange(store_, nullptr),
                    loaded = std::exchange(loaded_, nullptr)]() mutable -> Result<void> {
                     store.reset();
                     loaded.reset();
                     return {};
                   });
  }

  static Napi::Value closed(Napi::Env env) {
    to_js_error(env, Error{EBADF, "the extent store is closed"}).ThrowAsJavaScriptException();
    return env.Undefined();
  }

  StorePointer loaded_;  // until `start`
  StorePointer store_;   // from then on
};

static void initialize_extent_store(Napi::Env env, Napi::Object exports) {
  ExtentStoreWrap::initialize(env, exports);
}
PENSTOCK_EXPORT(initialize_extent_store);

}  // namespace penstock::bindings

// PageBuffer for JavaScript: new PageBuffer(bytes), size, read(offset, length), write(offset, buffer).
#include "bindings/module.h"
#include "bindings/native_handle.h"
#include "native/extent/page_buffer.h"

namespace penstock::bindings {

class PageBufferWrap : public Napi::ObjectWrap<PageBufferWrap> {
 public:
  static void initialize(Napi::Env env, Napi::Object exports) {
    exports.Set("PageBuffer",
                DefineClass(env, "PageBuffer",
                            {
                                InstanceAccessor<&PageBufferWrap::size>("size"),
                                InstanceMethod<&PageBufferWrap::read>("read"),
                                InstanceMethod<&PageBufferWrap::write>("write"),
                                InstanceMethod<&PageBufferWrap::page_endpoint>(kPageEndpointMethod),
                            }));
  }

  explicit PageBufferWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<PageBufferWrap>(info), pages_(static_cast<std::size_t>(number(info, 0))) {
    tag_page_endpoint(info.This().As<Napi::Object>());
  }

 private:
  static int64_t number(const Napi::CallbackInfo& info, std::size_t index) {
    return std::max<int64_t>(0, info[index].ToNumber().Int64Value());
  }

  Napi::Value size(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(pages_.size()));
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    const auto length = static_cast<std::size_t>(number(info, 1));
    auto out = Napi::Buffer<std::byte>::New(info.Env(), length);
    pages_.read(static_cast<uint64_t>(number(info, 0)), {out.Data(), length});
    return out;
  }

  void write(const Napi::CallbackInfo& info) {
    if (!info[1].IsBuffer()) {
      Napi::TypeError::New(info.Env(), "data must be a Buffer").ThrowAsJavaScriptException();
      return;
    }
    const auto data = info[1].As<Napi::Buffer<std::byte>>();
    pages_.write(static_cast<uint64_t>(number(info, 0)), {data.Data(), data.Length()});
  }

  Napi::Value page_endpoint(const Napi::CallbackInfo& info) {
    return Napi::External<PageEndpoint>::New(info.Env(), &endpoint_);
  }

  extent::PageBuffer pages_;
  PageEndpoint endpoint_{&pages_, &pages_};
};

static void initialize_page_buffer(Napi::Env env, Napi::Object exports) {
  PageBufferWrap::initialize(env, exports);
}
PENSTOCK_EXPORT(initialize_page_buffer);

}  // namespace penstock::bindings

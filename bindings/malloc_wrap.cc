// The calls of native/base/malloc_bounds.h.
#include <napi.h>

#include "bindings/module.h"
#include "native/base/malloc_bounds.h"

namespace penstock::bindings {

namespace {

void initialize_malloc(Napi::Env env, Napi::Object exports) {
  exports.Set("boundMalloc", Napi::Function::New(
                                 env, [](const Napi::CallbackInfo&) { bound_malloc(); }, "boundMalloc"));
  exports.Set("mallocBytesInUse", Napi::Function::New(
                                      env,
                                      [](const Napi::CallbackInfo& info) -> Napi::Value {
                                        return Napi::Number::New(info.Env(),
                                                                 static_cast<double>(malloc_bytes_in_use()));
                                      },
                                      "mallocBytesInUse"));
}

PENSTOCK_EXPORT(initialize_malloc);

}  // namespace

}  // namespace penstock::bindings

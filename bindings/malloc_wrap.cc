// The one call of native/base/malloc_bounds.h.
#include <napi.h>

#include "bindings/module.h"
#include "native/base/malloc_bounds.h"

namespace penstock::bindings {

namespace {

void initialize_malloc(Napi::Env env, Napi::Object exports) {
  exports.Set("boundMalloc", Napi::Function::New(
                                 env, [](const Napi::CallbackInfo&) { bound_malloc(); }, "boundMalloc"));
}

PENSTOCK_EXPORT(initialize_malloc);

}  // namespace

}  // namespace penstock::bindings

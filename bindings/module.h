// How one *_wrap file announces itself to the addon: a static Registration runs before napi_register_module,
// so that a new native object needs no edit anywhere else.
#pragma once

#include <napi.h>

#include "native/base/result.h"

namespace penstock::bindings {

using Initializer = void (*)(Napi::Env, Napi::Object exports);

struct Registration {
  explicit Registration(Initializer initializer);
};

// A JavaScript Error with `code` (the errno's name, e.g. 'ENOSPC') and `errno` (positive) properties.
Napi::Error to_js_error(Napi::Env env, const Error& error);

}  // namespace penstock::bindings

#define PENSTOCK_EXPORT(initializer) \
  static const ::penstock::bindings::Registration registration_of_##initializer(initializer)

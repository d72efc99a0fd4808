// The addon's entry: runs every registered *_wrap initializer for each environment (main thread or worker)
// that loads it.
#include <vector>

#include "bindings/module.h"

namespace penstock::bindings {

static std::vector<Initializer>& initializers() {
  static std::vector<Initializer> list;
  return list;
}

Registration::Registration(Initializer initializer) {
  initializers().push_back(initializer);
}

Napi::Error to_js_error(Napi::Env env, const Error& error) {
  Napi::Error js_error = Napi::Error::New(env, error.message);
  const char* name = strerrorname_np(error.code);
  js_error.Set("code", Napi::String::New(env, name != nullptr ? name : "EIO"));
  js_error.Set("errno", Napi::Number::New(env, error.code));
  return js_error;
}

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  for (Initializer initializer : initializers()) initializer(env, exports);
  return exports;
}

NODE_API_MODULE(penstock, initialize)

}  // namespace penstock::bindings

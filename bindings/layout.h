// The sizes and offsets of native structures as JavaScript reads them: a test of each codec compares them
// with its own constants. Where structures are listed (*_layout.inc) a Layout named `layout` is in scope, and
// their namespace.
#pragma once

#include <napi.h>

#include <cstddef>

namespace penstock::bindings {

class Layout {
 public:
  explicit Layout(Napi::Env env) : object_(Napi::Object::New(env)) {}
  void put(const char* name, std::size_t value) { object_.Set(name, static_cast<double>(value)); }
  Napi::Object object() const { return object_; }

 private:
  Napi::Object object_;
};

}  // namespace penstock::bindings

#define PENSTOCK_SIZE(type) layout.put("sizeof " #type, sizeof(type))
#define PENSTOCK_OFFSET(type, field) layout.put(#type "." #field, offsetof(type, field))

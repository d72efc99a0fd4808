// How one addon object is handed to another without JavaScript touching its pages: the owner tags itself and
// answers `pageEndpoint()` with an External; the borrower checks the tag, takes the pointers and holds a
// reference to the owner for as long as it uses them.
//
//   owner (cache, page buffer)                      borrower (extent store)
//     constructor: tag_page_endpoint(this)   <──   borrow_page_endpoint(object): tag checked, then
//     pageEndpoint() pageEndpoint(): External<PageEndpoint>        + Persistent(object) until the work is
//     done
#pragma once

#include <napi.h>

#include "native/base/page_io.h"

namespace penstock::bindings {

// Either pointer may be null: an object can be a source only, or a sink only. It must stay where it is, and
// valid, while the owning JavaScript object lives.
struct PageEndpoint {
  PageSource* source = nullptr;
  PageSink* sink = nullptr;
};

inline constexpr napi_type_tag kPageEndpointTag = {0x6a1d5c0e93b74f28, 0xb2f07c61d84e9a35};
inline constexpr const char* kPageEndpointMethod = "pageEndpoint";

// Called by the owner's constructor on its JavaScript object.
inline void tag_page_endpoint(Napi::Object owner) {
  owner.TypeTag(&kPageEndpointTag);
}

// The endpoint of `value`, or null (no exception pending) when it is not an owner of one.
inline PageEndpoint* borrow_page_endpoint(Napi::Value value) {
  if (!value.IsObject()) return nullptr;
  const auto owner = value.As<Napi::Object>();
  if (!owner.CheckTypeTag(&kPageEndpointTag)) return nullptr;
  const Napi::Value method = owner.Get(kPageEndpointMethod);
  if (!method.IsFunction()) return nullptr;
  const Napi::Value handle = method.As<Napi::Function>().Call(owner, {});
  if (!handle.IsExternal()) return nullptr;
  return handle.As<Napi::External<PageEndpoint>>().Data();
}

}  // namespace penstock::bindings

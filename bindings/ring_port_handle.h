// How a ring port is handed to another native object (the switch) without JavaScript seeing its pointers: an
// External that owns a share of it.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "native/port/ring_port.h"

namespace penstock::bindings {

inline constexpr napi_type_tag kRingPortTag = {0x3f2c9a7be1d84655, 0x91c07f4e2ab6d803};

inline Napi::Value export_ring_port(Napi::Env env, std::shared_ptr<net::RingPort> port) {
  using Share = std::shared_ptr<net::RingPort>;
  auto share = std::make_unique<Share>(std::move(port));
  auto handle = Napi::External<Share>::New(
      env, share.get(), [](Napi::BasicEnv, Share* held) { std::unique_ptr<Share>(held).reset(); });
  static_cast<void>(share.release());  // the External's finalizer deletes it
  handle.TypeTag(&kRingPortTag);
  return handle;
}

// Null (no exception pending) when `value` is no such handle.
inline std::shared_ptr<net::RingPort> import_ring_port(const Napi::Value& value) {
  if (!value.IsExternal()) return nullptr;
  const auto handle = value.As<Napi::External<std::shared_ptr<net::RingPort>>>();
  return handle.CheckTypeTag(&kRingPortTag) ? *handle.Data() : nullptr;
}

}  // namespace penstock::bindings

// How a holder of file data (the cache) hands its FileIo to a FUSE session through JavaScript.
//
//   cache.fileIo()                 -> External { shared_ptr<FileIo>, type tag }
//   new FuseSession({ fileIo, … }) -> checks the tag, copies the shared_ptr
//
// Worker threads call the FileIo until the session has joined them, which can be after the garbage collector
// took the cache's JavaScript object: hence shared ownership, and not a borrowed pointer. The tag makes a
// wrong value a nullptr here and not a wild pointer.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "native/fuse/file_io.h"

namespace penstock::bindings {

inline constexpr napi_type_tag kFileIoTag = {0x7065'6e73'746f'636bULL, 0x4669'6c65'496f'0001ULL};

// The JavaScript value that carries `file_io` to a session; it owns a share until collected.
inline Napi::Value export_file_io(Napi::Env env, std::shared_ptr<fuse::FileIo> file_io) {
  using Share = std::shared_ptr<fuse::FileIo>;
  auto share = std::make_unique<Share>(std::move(file_io));
  auto handle = Napi::External<Share>::New(
      env, share.get(), [](Napi::BasicEnv, Share* held) { std::unique_ptr<Share>(held).reset(); });
  static_cast<void>(share.release());  // the External's finalizer deletes it
  handle.TypeTag(&kFileIoTag);
  return handle;
}

// The FileIo carried by `value`, or nullptr when `value` carries none.
inline std::shared_ptr<fuse::FileIo> import_file_io(Napi::Value value) {
  if (!value.IsExternal()) return nullptr;
  auto handle = value.As<Napi::External<std::shared_ptr<fuse::FileIo>>>();
  if (!handle.CheckTypeTag(&kFileIoTag)) return nullptr;
  return *handle.Data();
}

}  // namespace penstock::bindings

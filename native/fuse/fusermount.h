// Mounting without root: the setuid helper fusermount3 mounts for us and hands the descriptor of /dev/fuse
// over.
//
//   we:          socketpair ── spawn fusermount3 with _FUSE_COMMFD=<their end> ──┐
//   fusermount3: open(/dev/fuse), checks, mount(2), sendmsg(SCM_RIGHTS) ──> our end, exits
//
// What the helper has to say on its standard error becomes part of our error.
#pragma once

#include <string>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock::fuse {

// `options` as after `-o`. Blocks until the helper has exited.
Result<Fd> fusermount(const std::string& mountpoint, const std::string& options);
Result<void> fusermount_detach(const std::string& mountpoint, bool lazy);

}  // namespace penstock::fuse

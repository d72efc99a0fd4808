// Attaches a FUSE connection to a directory, and detaches it.
//
//   root:      open(/dev/fuse) -> mount(2) "fuse.penstock" with fd=N
//   others:    socketpair -> fusermount3 (setuid) with _FUSE_COMMFD -> the descriptor comes back by
//   SCM_RIGHTS
//
// Everything here may block (a path walk can cross the very mount it is about), so it never runs on the
// JavaScript thread.
#pragma once

#include <string>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock::fuse {

struct MountOptions {
  std::string mountpoint;
  std::string source = "penstock";  // first column of mount(8)
  std::string extra;  // comma separated, of mount(8): ro, nodev, nosuid, noexec, noatime, nonempty, ...
  bool allow_other = true;
  bool force_fusermount = false;  // go through fusermount3 even as root
};

// Refuses, with one line that says what to do: a mountpoint that is missing, not a directory, not empty
// (unless `nonempty` is among the options) or already a mount of ours; no /dev/fuse; no fusermount3 when not
// root.
Result<Fd> mount_fuse(const MountOptions& options);

// `lazy` detaches now and lets open files finish. EBUSY when the mount is in use and not lazy.
Result<void> unmount_fuse(const std::string& mountpoint, bool lazy);

// True when /proc/self/mountinfo lists a penstock file system at exactly this (absolute, normalised) path.
bool is_mounted(const std::string& mountpoint);

}  // namespace penstock::fuse

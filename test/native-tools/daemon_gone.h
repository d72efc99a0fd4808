// What a system call on a mounted file system answers when the daemon below it is no more.
#pragma once

#include <cerrno>

// ECANCELED: the kernel's FUSE over io_uring ends so the requests that it was about to hand to a dying task.
inline bool is_daemon_gone(int error) {
  return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED || error == EIO || error == ENODEV;
}

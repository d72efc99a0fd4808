// A network namespace, and how to do something inside it.
//
// setns(2) moves the calling thread, and a thread of a pool must not stay moved. So what has to happen inside
// (open a tap, a socket, write a sysctl) runs on a helper thread that enters, works and ends; descriptors it
// opened belong to the namespace for good and are used from anywhere.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock::net {

class NetworkNamespace {
 public:
  // `path` names it (/run/netns/NAME, /proc/PID/ns/net); empty: the calling thread's.
  static Result<NetworkNamespace> open(const std::string& path);

  // Runs `work` inside, waits for it, and answers what it answered; EPERM without CAP_SYS_ADMIN.
  Result<void> run(const std::function<Result<void>()>& work) const;

  // As given to open.
  const std::string& path() const { return path_; }
  // Identifies the namespace while it lives.
  uint64_t inode() const { return inode_; }

 private:
  NetworkNamespace(std::string path, std::shared_ptr<Fd> fd, uint64_t inode)
      : path_(std::move(path)), fd_(std::move(fd)), inode_(inode) {}

  std::string path_;
  std::shared_ptr<Fd> fd_;
  uint64_t inode_;
};

}  // namespace penstock::net

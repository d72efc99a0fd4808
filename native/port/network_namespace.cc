#include "native/port/network_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <thread>

namespace penstock::net {

Result<NetworkNamespace> NetworkNamespace::open(const std::string& path) {
  const char* name = path.empty() ? "/proc/thread-self/ns/net" : path.c_str();
  auto fd = std::make_shared<Fd>(::open(name, O_RDONLY | O_CLOEXEC));
  if (!fd->valid()) return Error::from_errno(errno, std::string("network namespace ") + name);
  struct stat status {};
  if (::fstat(fd->get(), &status) < 0) return Error::from_errno(errno, name);
  return NetworkNamespace(path, std::move(fd), status.st_ino);
}

Result<void> NetworkNamespace::run(const std::function<Result<void>()>& work) const {
  struct stat here {};
  if (::stat("/proc/thread-self/ns/net", &here) == 0 && here.st_ino == inode_) return work();
  Result<void> outcome;
  std::thread inside([&] {
    if (::setns(fd_->get(), CLONE_NEWNET) < 0) {
      outcome = Error::from_errno(errno, "entering network namespace " + path_);
      return;
    }
    outcome = work();
  });
  inside.join();
  return outcome;
}

}  // namespace penstock::net

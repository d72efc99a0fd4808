// A process that owns locks, for comparison with the kernel: a line in, a line out.
//
//   open PATH                     a fresh descriptor (closing the old one drops every lock), answers its
//   inode number posix KIND START LENGTH       fcntl(F_SETLK), KIND is read, write or unlock, LENGTH 0 is to
//   the end of the file wait KIND START LENGTH        fcntl(F_SETLKW) flock KIND flock(LOCK_NB) ofd KIND
//   START LENGTH         fcntl(F_OFD_SETLK) on the same descriptor
//
// Answers "ok" or the name of the error.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>

namespace {

short lock_type(std::string const& kind) {
  return kind == "read" ? F_RDLCK : kind == "write" ? F_WRLCK : F_UNLCK;
}

int flock_operation(std::string const& kind) {
  return (kind == "read" ? LOCK_SH : kind == "write" ? LOCK_EX : LOCK_UN) | LOCK_NB;
}

void answer(int result) {
  std::cout << (result == 0 ? "ok" : strerrorname_np(errno)) << std::endl;
}

}  // namespace

int main() {
  int fd = -1;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb;
    std::string kind;
    words >> verb >> kind;
    if (verb == "open") {
      if (fd >= 0) close(fd);
      fd = open(kind.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      struct stat status {};
      if (fd < 0 || fstat(fd, &status) != 0) return 1;
      std::cout << status.st_ino << std::endl;
      continue;
    }
    if (verb == "flock") {
      answer(flock(fd, flock_operation(kind)));
      continue;
    }
    struct flock range {};
    range.l_type = lock_type(kind);
    range.l_whence = SEEK_SET;
    words >> range.l_start >> range.l_len;
    int const command = verb == "wait" ? F_SETLKW : verb == "ofd" ? F_OFD_SETLK : F_SETLK;
    answer(fcntl(fd, command, &range));
  }
  return 0;
}

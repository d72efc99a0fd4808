// The loop of the system-call server, and the operations that frame a program: begin, end, tree, probe, as,
// umask.
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "fsop.h"

namespace fsop {
namespace {

std::string root;
// The real root directory: the way out of the program's own. Nothing of the file system under test is held
// open.
int outside = -1;

// As root a program runs in its directory as its root, so that no ".." of it touches anything else.
std::string enter(const std::string& name) {
  umask(022);
  if (chdir((root + "/" + name).c_str()) != 0) return failure();
  return outside < 0 ? ok() : result(chroot("."));
}

std::string leave() {
  if (outside >= 0 && (fchdir(outside) != 0 || chroot(".") != 0)) return failure();
  return result(chdir("/"));
}

std::string become(uid_t user, gid_t group) {
  if (outside < 0) return ok();
  // Up first: only root may set the rest. seteuid away from 0 drops the effective capabilities, as for a real
  // user.
  if (seteuid(0) != 0 || setgroups(0, nullptr) != 0 || setegid(group) != 0) return failure();
  return result(seteuid(user));
}

std::string begin(const std::string& name) {
  become(0, 0);
  umask(022);
  std::string const path = root + "/" + name;
  if (mkdir(path.c_str(), 0777) != 0) return failure();
  // A setgid or default ACL of the root must not leak in, and every user of the program may create here.
  if (chmod(path.c_str(), 0777) != 0) return failure();
  return enter(name);
}

std::string end(const std::string& name) {
  close_all();
  become(0, 0);
  std::string const left = leave();
  if (left != "ok") return left;
  return remove_tree(root + "/" + name);
}

// Names what this file system can do; programs use what both sides can.
std::string probe() {
  std::string const path = root + "/.probe";
  std::string const other = root + "/.probe2";
  std::string found;
  auto const note = [&found](bool works, const char* name) {
    if (works) found += std::string(found.empty() ? "" : ",") + name;
  };
  unlink(path.c_str());
  unlink(other.c_str());
  int const fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  int const fd2 = open(other.c_str(), O_RDWR | O_CREAT, 0600);
  if (fd < 0 || fd2 < 0) return failure();
  uint8_t* const page = scratch(65536);
  fill({page, 65536}, 1, 0);
  if (pwrite(fd, page, 65536, 0) != 65536) return failure();
  note(fallocate(fd, 0, 0, 131072) == 0, "allocate");
  note(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 262144) == 0, "keep");
  note(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0, "punch");
  note(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096) == 0, "zero");
  off_t from = 0;
  off_t to = 0;
  note(copy_file_range(fd, &from, fd2, &to, 4096, 0) == 4096, "copy");
  note(lseek(fd, 0, SEEK_HOLE) >= 0, "seek");
  int const direct = open(path.c_str(), O_RDWR | O_DIRECT);
  note(direct >= 0 && pread(direct, page, 4096, 4096) == 4096, "direct");
  if (direct >= 0) close(direct);
  void* const mapping = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  note(mapping != MAP_FAILED, "mmap");
  if (mapping != MAP_FAILED) munmap(mapping, 4096);
  note(setxattr(path.c_str(), "user.probe", "x", 1, 0) == 0, "xattr");
  const uint8_t access_list[] = {2, 0, 0,    0,    1,    0,    6,    0, 0xff, 0xff, 0xff, 0xff, 4,    0,
                                 4, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4,    0,    0xff, 0xff, 0xff, 0xff};
  note(setxattr(path.c_str(), "system.posix_acl_access", access_list, sizeof access_list, 0) == 0, "acl");
  note(renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0, "exchange");
  note(renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, other.c_str(), RENAME_NOREPLACE) != 0 && errno == EEXIST,
       "noreplace");
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  note(fcntl(fd, F_OFD_SETLK, &range) == 0, "lock");
  close(fd);
  close(fd2);
  unlink(path.c_str());
  unlink(other.c_str());
  note(outside >= 0, "users");
  return ok(found);
}

int serve() {
  std::map<std::string, Operation> operations;
  add_data_operations(operations);
  add_mapping_operations(operations);
  add_lock_operations(operations);
  add_name_operations(operations);
  add_attribute_operations(operations);
  operations["begin"] = [](Arguments a) { return begin(a[0]); };
  operations["end"] = [](Arguments a) { return end(a[0]); };
  operations["closeall"] = [](Arguments) {
    close_all();
    return ok();
  };
  operations["leave"] = [](Arguments) {
    close_all();
    become(0, 0);
    return leave();
  };
  operations["enter"] = [](Arguments a) { return enter(a[0]); };
  operations["tree"] = [](Arguments) {
    become(0, 0);
    return tree();
  };
  operations["probe"] = [](Arguments) { return probe(); };
  operations["as"] = [](Arguments a) {
    return become(static_cast<uid_t>(number(a[0])), static_cast<gid_t>(number(a[1])));
  };
  operations["umask"] = [](Arguments a) {
    umask(static_cast<mode_t>(std::stoul(a[0], nullptr, 8)));
    return ok();
  };

  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    std::vector<std::string> arguments;
    for (std::string word; words >> word;) arguments.push_back(word == "%" ? "" : word);
    auto const operation = operations.find(verb);
    std::string answer = "err BADVERB " + verb;
    // Missing arguments read as empty names: a malformed line answers an error, it does not crash the server.
    arguments.resize(std::max<size_t>(arguments.size(), 8));
    if (operation != operations.end()) answer = operation->second(arguments);
    answer += '\n';
    // At once: when an operation hangs, the answers before it say which.
    if (write(STDOUT_FILENO, answer.data(), answer.size()) < 0) return 1;
  }
  close_all();
  return 0;
}

}  // namespace
}  // namespace fsop

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fsop ROOT < program\n");
    return 2;
  }
  fsop::root = argv[1];
  if (geteuid() == 0) fsop::outside = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fsop::serve();
}

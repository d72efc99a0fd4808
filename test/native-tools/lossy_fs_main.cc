// Mounts a disk that can lose power (lossy_fs.h), on one thread, so that a cut falls between two requests and
// hits everything on it at the same instant.
//
//   lossy_fs DIRECTORY MOUNTPOINT      loads DIRECTORY, mounts, prints "ready"
//   < cut SEED REQUESTS IMAGE          after so many more requests: serves no more, writes IMAGE
//   < lie                            from here on it says that it synced and does not
//   > cut UNSYNCED_PAGES LOST_PAGES UNSYNCED_NAMES LOST_NAMES      and ends
//   end of input                       unmounts and ends
#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <unordered_map>

#include "lossy_fs.h"

namespace lossy {
namespace {

constexpr double kForeverSeconds = 3600;
constexpr uint64_t kDiskBytes = uint64_t{64} << 30;

struct PendingCut {
  uint64_t seed = 0;
  uint64_t requests_left = 0;
  std::string image;
};

struct Server {
  Disk disk;
  std::unordered_map<uint64_t, InodePtr> inodes;
  std::optional<PendingCut> cut;
  bool is_lying = false;  // says that it synced and does not
};

Server& server() {
  static Server instance;
  return instance;
}

const InodePtr& inode_of(fuse_ino_t number) {
  return number == FUSE_ROOT_ID ? server().disk.root() : server().inodes.at(number);
}

struct stat attributes(const Inode& inode) {
  struct stat status {};
  status.st_ino = inode.number;
  status.st_mode = inode.mode;
  status.st_nlink = inode.links;
  status.st_uid = getuid();
  status.st_gid = getgid();
  status.st_size = static_cast<off_t>(inode.size);
  status.st_blocks = static_cast<blkcnt_t>(inode.pages.size() * kPageBytes / 512);
  status.st_blksize = kPageBytes;
  status.st_mtim = status.st_ctim = status.st_atim = inode.mtime;
  return status;
}

fuse_entry_param entry_of(const InodePtr& inode) {
  inode->lookups += 1;
  server().inodes[inode->number] = inode;
  fuse_entry_param entry{};
  entry.ino = inode->number;
  entry.attr = attributes(*inode);
  entry.attr_timeout = entry.entry_timeout = kForeverSeconds;
  return entry;
}

void on_init(void*, fuse_conn_info* connection) {
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const auto& entries = inode_of(parent)->entries;
  const auto found = entries.find(name);
  if (found == entries.end()) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  const fuse_entry_param entry = entry_of(found->second);
  fuse_reply_entry(request, &entry);
}

void on_forget(fuse_req_t request, fuse_ino_t number, uint64_t count) {
  const auto found = server().inodes.find(number);
  if (found != server().inodes.end()) {
    found->second->lookups -= count;
    if (found->second->lookups == 0) server().inodes.erase(found);
  }
  fuse_reply_none(request);
}

void on_getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  const struct stat status = attributes(*inode_of(number));
  fuse_reply_attr(request, &status, kForeverSeconds);
}

void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int fields, fuse_file_info*) {
  Inode& inode = *inode_of(number);
  if ((fields & FUSE_SET_ATTR_SIZE) != 0)
    server().disk.truncate(inode, static_cast<uint64_t>(wanted->st_size));
  if ((fields & FUSE_SET_ATTR_MODE) != 0) inode.mode = (inode.mode & S_IFMT) | (wanted->st_mode & 07777);
  if ((fields & FUSE_SET_ATTR_MTIME) != 0) inode.mtime = wanted->st_mtim;
  const struct stat status = attributes(inode);
  fuse_reply_attr(request, &status, kForeverSeconds);
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  const fuse_entry_param entry =
      entry_of(server().disk.create(inode_of(parent), name, S_IFDIR | (mode & 07777)));
  fuse_reply_entry(request, &entry);
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  const fuse_entry_param entry =
      entry_of(server().disk.create(inode_of(parent), name, S_IFREG | (mode & 07777)));
  info->keep_cache = 1;
  fuse_reply_create(request, &entry, info);
}

void on_remove(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const InodePtr& directory = inode_of(parent);
  const auto found = directory->entries.find(name);
  if (found == directory->entries.end()) {
    fuse_reply_err(request, ENOENT);
  } else if (!found->second->entries.empty()) {
    fuse_reply_err(request, ENOTEMPTY);
  } else {
    server().disk.remove(directory, name);
    fuse_reply_err(request, 0);
  }
}

void on_rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
               unsigned flags) {
  const auto& targets = inode_of(to)->entries;
  const auto target = targets.find(new_name);
  if (!inode_of(from)->entries.contains(name) ||
      ((flags & RENAME_EXCHANGE) != 0 && target == targets.end())) {
    fuse_reply_err(request, ENOENT);
  } else if ((flags & RENAME_NOREPLACE) != 0 && target != targets.end()) {
    fuse_reply_err(request, EEXIST);
  } else if (flags == 0 && target != targets.end() && !target->second->entries.empty()) {
    fuse_reply_err(request, ENOTEMPTY);
  } else {
    server().disk.rename(inode_of(from), name, inode_of(to), new_name, (flags & RENAME_EXCHANGE) != 0);
    fuse_reply_err(request, 0);
  }
}

void on_open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  if ((info->flags & O_TRUNC) != 0) server().disk.truncate(*inode_of(number), 0);
  info->keep_cache = 1;
  fuse_reply_open(request, info);
}

void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info*) {
  const Inode& inode = *inode_of(number);
  const auto at = static_cast<uint64_t>(offset);
  std::vector<uint8_t> bytes(at >= inode.size ? 0 : std::min<uint64_t>(size, inode.size - at));
  server().disk.read(inode, at, bytes.data(), bytes.size());
  fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void on_write(fuse_req_t request, fuse_ino_t number, const char* bytes, size_t size, off_t offset,
              fuse_file_info*) {
  server().disk.write(*inode_of(number), static_cast<uint64_t>(offset),
                      reinterpret_cast<const uint8_t*>(bytes), size);
  fuse_reply_write(request, size);
}

void on_fsync(fuse_req_t request, fuse_ino_t number, int, fuse_file_info*) {
  if (!server().is_lying) server().disk.sync(*inode_of(number));
  fuse_reply_err(request, 0);
}

void on_fallocate(fuse_req_t request, fuse_ino_t number, int mode, off_t offset, off_t length,
                  fuse_file_info*) {
  Inode& inode = *inode_of(number);
  const auto at = static_cast<uint64_t>(offset);
  const auto count = static_cast<uint64_t>(length);
  if (mode == 0) {
    server().disk.grow(inode, at + count);
  } else if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
    server().disk.punch(inode, at, count);
  } else if (mode != FALLOC_FL_KEEP_SIZE) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  fuse_reply_err(request, 0);
}

void on_readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info*) {
  // Cookies are positions; a directory that changes during a listing may repeat or skip, as programs that
  // list what nobody changes do not notice.
  std::vector<char> buffer(size);
  size_t used = 0;
  off_t position = 0;
  for (const auto& [name, inode] : inode_of(number)->entries) {
    if (position++ < offset) continue;
    struct stat status {};
    status.st_ino = inode->number;
    status.st_mode = inode->mode;
    const size_t needed =
        fuse_add_direntry(request, buffer.data() + used, size - used, name.c_str(), &status, position);
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void on_statfs(fuse_req_t request, fuse_ino_t) {
  struct statvfs status {};
  status.f_bsize = status.f_frsize = kPageBytes;
  status.f_blocks = kDiskBytes / kPageBytes;
  status.f_bfree = status.f_bavail = status.f_blocks / 2;
  status.f_namemax = 255;
  fuse_reply_statfs(request, &status);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.mkdir = on_mkdir;
  ops.create = on_create;
  ops.unlink = on_remove;
  ops.rmdir = on_remove;
  ops.rename = on_rename;
  ops.open = on_open;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  ops.fsyncdir = on_fsync;
  ops.fallocate = on_fallocate;
  ops.readdir = on_readdir;
  ops.statfs = on_statfs;
  return ops;
}

// False: end of input.
bool take_command() {
  static std::string input;
  char bytes[4096];
  const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
  if (count <= 0) return false;
  input.append(bytes, static_cast<size_t>(count));
  if (input == "lie\n") {
    server().is_lying = true;
    input.clear();
  }
  char image[4096];
  PendingCut cut;
  if (input.ends_with('\n') && std::sscanf(input.c_str(), "cut %" SCNu64 " %" SCNu64 " %4095s", &cut.seed,
                                           &cut.requests_left, image) == 3) {
    cut.image = image;
    server().cut = cut;
    input.clear();
  }
  return true;
}

int serve(fuse_session* session) {
  fuse_buf buffer{};
  while (fuse_session_exited(session) == 0) {
    if (server().cut && server().cut->requests_left-- == 0) {
      const CutReport report = server().disk.cut(server().cut->seed, server().cut->image);
      std::printf("cut %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", report.unsynced_pages,
                  report.lost_pages, report.unsynced_names, report.lost_names);
      return 0;
    }
    pollfd waiting[2] = {{fuse_session_fd(session), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    // A quiet disk is cut too: the wait for more requests is bounded.
    const int ready = poll(waiting, 2, server().cut ? 50 : -1);
    if (ready < 0 && errno != EINTR) return 1;
    if (ready == 0 && server().cut) server().cut->requests_left = 0;
    if ((waiting[1].revents & (POLLIN | POLLHUP)) != 0 && !take_command()) return 0;
    if ((waiting[0].revents & (POLLIN | POLLERR)) == 0) continue;
    const int received = fuse_session_receive_buf(session, &buffer);
    if (received == -EINTR) continue;
    if (received <= 0) return received == 0 ? 0 : 1;
    fuse_session_process_buf(session, &buffer);
  }
  return 0;
}

int run(const char* directory, const char* mountpoint) {
  server().disk.load(directory);
  char program[] = "lossy_fs";
  char option[] = "-oallow_other,default_permissions,fsname=lossy";
  char* arguments[] = {program, option, nullptr};
  fuse_args args{2, arguments, 0};
  const fuse_lowlevel_ops ops = operations();
  fuse_session* const session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_session_mount(session, mountpoint) != 0) return 1;
  std::printf("ready\n");
  std::fflush(stdout);
  const int code = serve(session);
  std::fflush(stdout);
  // After a cut the mount stays, dead, until whoever used it is gone: the process end closes the connection.
  if (!server().cut) fuse_session_unmount(session);
  std::_Exit(code);
}

}  // namespace
}  // namespace lossy

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: lossy_fs DIRECTORY MOUNTPOINT\n");
    return 2;
  }
  try {
    return lossy::run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

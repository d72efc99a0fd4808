#include "native/fuse/mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <vector>

#include "native/fuse/fusermount.h"

namespace penstock::fuse {

namespace {

constexpr const char* kDevice = "/dev/fuse";
constexpr const char* kSubtype = "penstock";
constexpr const char* kNoDevice = "/dev/fuse is missing; load the kernel module with: modprobe fuse";
constexpr unsigned kMaxRead = 1 << 20;

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape_octal(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::vector<std::string> split_options(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    if (!item.empty()) out.push_back(item);
  }
  return out;
}

struct FlagName {
  const char* name;
  unsigned long flag;
  bool set;
};
constexpr std::array kFlagNames{
    FlagName{"ro", MS_RDONLY, true},
    FlagName{"rw", MS_RDONLY, false},
    FlagName{"nosuid", MS_NOSUID, true},
    FlagName{"suid", MS_NOSUID, false},
    FlagName{"nodev", MS_NODEV, true},
    FlagName{"dev", MS_NODEV, false},
    FlagName{"noexec", MS_NOEXEC, true},
    FlagName{"exec", MS_NOEXEC, false},
    FlagName{"noatime", MS_NOATIME, true},
    FlagName{"atime", MS_NOATIME, false},
    FlagName{"nodiratime", MS_NODIRATIME, true},
    FlagName{"sync", MS_SYNCHRONOUS, true},
    FlagName{"dirsync", MS_DIRSYNC, true},
};

struct ParsedOptions {
  unsigned long flags = 0;
  bool nonempty = false;
};

Result<ParsedOptions> parse_options(const MountOptions& options) {
  ParsedOptions parsed;
  for (const std::string& item : split_options(options.extra)) {
    if (item == "nonempty") {
      parsed.nonempty = true;
      continue;
    }
    const auto known = std::find_if(kFlagNames.begin(), kFlagNames.end(),
                                    [&](const FlagName& candidate) { return item == candidate.name; });
    if (known == kFlagNames.end()) return Error{EINVAL, "mount option '" + item + "' is not known"};
    parsed.flags = known->set ? parsed.flags | known->flag : parsed.flags & ~known->flag;
  }
  return parsed;
}

Result<struct stat> check_mountpoint(const std::string& path, bool nonempty) {
  struct stat status {};
  const int failed = ::stat(path.c_str(), &status) == 0 ? 0 : errno;
  if (failed == ENOTCONN)
    return Error{ENOTCONN, path + " is a mount whose process is gone; take it away with: umount -l " + path};
  if (is_mounted(path)) return Error{EBUSY, path + " is already a penstock mount; unmount it first"};
  if (failed == ENOENT)
    return Error{ENOENT, "mountpoint " + path + " does not exist; create the directory first"};
  if (failed != 0) return Error::from_errno(failed, "cannot look at mountpoint " + path);
  if (!S_ISDIR(status.st_mode)) return Error{ENOTDIR, "mountpoint " + path + " is not a directory"};
  if (nonempty) return status;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return Error::from_errno(errno, "cannot read mountpoint " + path);
  bool empty = true;
  for (const dirent* entry = ::readdir(directory); entry != nullptr && empty; entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    empty = name == "." || name == "..";
  }
  ::closedir(directory);
  if (!empty)
    return Error{ENOTEMPTY,
                 "mountpoint " + path + " is not empty; use an empty directory, or -o nonempty to cover it"};
  return status;
}

Result<Fd> mount_as_root(const MountOptions& options, const ParsedOptions& parsed, const struct stat& root) {
  Fd device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (!device.valid()) {
    if (errno == ENOENT || errno == ENODEV) return Error{ENODEV, kNoDevice};
    return Error::from_errno(errno, "cannot open /dev/fuse");
  }
  std::ostringstream data;
  data << "fd=" << device.get() << ",rootmode=" << std::oct << (root.st_mode & S_IFMT) << std::dec
       << ",user_id=" << ::geteuid() << ",group_id=" << ::getegid()
       << ",default_permissions,max_read=" << kMaxRead;
  if (options.allow_other) data << ",allow_other";
  const std::string type = std::string("fuse.") + kSubtype;
  if (::mount(options.source.c_str(), options.mountpoint.c_str(), type.c_str(), parsed.flags,
              data.str().c_str()) != 0) {
    return Error::from_errno(errno, "cannot mount on " + options.mountpoint);
  }
  return device;
}

}  // namespace

bool is_mounted(const std::string& mountpoint) {
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    // 36 35 98:0 ROOT MOUNTPOINT OPTIONS [optional fields] - TYPE SOURCE SUPER
    std::istringstream fields(line);
    std::string skip, path, field;
    fields >> skip >> skip >> skip >> skip >> path;
    while (fields >> field && field != "-") {
    }
    std::string type;
    fields >> type;
    if (unescape_octal(path) == mountpoint && type == std::string("fuse.") + kSubtype) return true;
  }
  return false;
}

Result<Fd> mount_fuse(const MountOptions& options) {
  Result<ParsedOptions> parsed = parse_options(options);
  if (!parsed) return parsed.error();
  Result<struct stat> root = check_mountpoint(options.mountpoint, parsed->nonempty);
  if (!root) return root.error();
  if (::geteuid() == 0 && !options.force_fusermount) return mount_as_root(options, *parsed, *root);
  if (::access(kDevice, F_OK) != 0) return Error{ENODEV, kNoDevice};
  std::string list = "fsname=" + options.source + ",subtype=" + kSubtype +
                     ",default_permissions,max_read=" + std::to_string(kMaxRead);
  if (options.allow_other) list += ",allow_other";
  for (const std::string& item : split_options(options.extra)) {
    if (item != "nonempty") list += "," + item;
  }
  return fusermount(options.mountpoint, list);
}

Result<void> unmount_fuse(const std::string& mountpoint, bool lazy) {
  if (::geteuid() == 0) {
    if (::umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) return {};
    if (errno == EBUSY) return Error{EBUSY, mountpoint + " is in use; close what uses it, or unmount lazily"};
    if (errno == EINVAL) return Error{EINVAL, mountpoint + " is not mounted"};
    return Error::from_errno(errno, "cannot unmount " + mountpoint);
  }
  return fusermount_detach(mountpoint, lazy);
}

}  // namespace penstock::fuse

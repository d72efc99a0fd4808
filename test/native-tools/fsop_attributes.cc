// Operations on what stat, xattr and ACL calls show.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fsop.h"

namespace fsop {
namespace {

mode_t octal(const std::string& text) {
  return static_cast<mode_t>(std::stoul("0" + text, nullptr, 8));
}

std::string status_of(int outcome, const struct stat& status) {
  return outcome != 0 ? failure() : ok(describe(status));
}

timespec time_of(const std::string& text) {
  if (text == "now") return {0, UTIME_NOW};
  if (text == "omit") return {0, UTIME_OMIT};
  size_t const point = text.find('.');
  return {static_cast<time_t>(number(text.substr(0, point))),
          static_cast<long>(number(text.substr(point + 1)))};
}

std::string set_times(Arguments a) {
  std::string const path = decode(a[0]);
  timespec const times[2] = {time_of(a[1]), time_of(a[2])};
  if (utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return failure();
  struct stat status;
  return status_of(lstat(path.c_str(), &status), status);
}

std::string set_attribute(Arguments a) {
  size_t const length = static_cast<size_t>(number(a[2]));
  uint8_t* const value = scratch(length);
  fill({value, length}, static_cast<uint64_t>(number(a[3])), 0);
  int const flags = a[4] == "create" ? XATTR_CREATE : a[4] == "replace" ? XATTR_REPLACE : 0;
  return result(lsetxattr(decode(a[0]).c_str(), a[1].c_str(), value, length, flags));
}

std::string get_attribute(Arguments a) {
  uint8_t* const value = scratch(65536);
  ssize_t const length = lgetxattr(decode(a[0]).c_str(), a[1].c_str(), value, 65536);
  return length < 0 ? failure() : ok(digest({value, static_cast<size_t>(length)}));
}

std::string list_attributes(Arguments a) {
  char names[4096];
  ssize_t const length = llistxattr(decode(a[0]).c_str(), names, sizeof names);
  if (length < 0) return failure();
  std::vector<std::string> found;
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(std::strlen(names + at)) + 1)
    found.push_back(names + at);
  std::sort(found.begin(), found.end());
  std::string text;
  for (const std::string& name : found) text += name + ";";
  return ok(text);
}

// acl PATH access|default USER|- OWNER-BITS USER-BITS GROUP-BITS MASK OTHER: the kernel's binary form
// (version 2, then tag, permissions, id per entry).
std::string set_access_list(Arguments a) {
  std::vector<uint8_t> value = {2, 0, 0, 0};
  auto const entry = [&value](uint16_t tag, const std::string& bits, uint32_t id) {
    uint16_t const permissions = static_cast<uint16_t>(number(bits) & 7);
    for (uint32_t const piece : {uint32_t{tag} | uint32_t{permissions} << 16, id}) {
      for (int i = 0; i < 4; ++i) value.push_back(static_cast<uint8_t>(piece >> (8 * i)));
    }
  };
  bool const named = a[2] != "-";
  entry(0x01, a[3], 0xffffffff);
  if (named) entry(0x02, a[4], static_cast<uint32_t>(number(a[2])));
  entry(0x04, a[5], 0xffffffff);
  if (named) entry(0x10, a[6], 0xffffffff);
  entry(0x20, a[7], 0xffffffff);
  std::string const name = "system.posix_acl_" + a[1];
  return result(setxattr(decode(a[0]).c_str(), name.c_str(), value.data(), value.size(), 0));
}

}  // namespace

void add_attribute_operations(std::map<std::string, Operation>& operations) {
  operations["stat"] = [](Arguments a) {
    struct stat status;
    return status_of(stat(decode(a[0]).c_str(), &status), status);
  };
  operations["lstat"] = [](Arguments a) {
    struct stat status;
    return status_of(lstat(decode(a[0]).c_str(), &status), status);
  };
  operations["fstat"] = [](Arguments a) {
    struct stat status;
    return status_of(fstat(slot_of(a[0]).fd, &status), status);
  };
  operations["chmod"] = [](Arguments a) { return result(chmod(decode(a[0]).c_str(), octal(a[1]))); };
  operations["fchmod"] = [](Arguments a) { return result(fchmod(slot_of(a[0]).fd, octal(a[1]))); };
  operations["chown"] = [](Arguments a) {
    return result(
        lchown(decode(a[0]).c_str(), static_cast<uid_t>(number(a[1])), static_cast<gid_t>(number(a[2]))));
  };
  operations["fchown"] = [](Arguments a) {
    return result(
        fchown(slot_of(a[0]).fd, static_cast<uid_t>(number(a[1])), static_cast<gid_t>(number(a[2]))));
  };
  // As the effective user, as an open would decide.
  operations["access"] = [](Arguments a) {
    return result(faccessat(AT_FDCWD, decode(a[0]).c_str(), static_cast<int>(number(a[1])), AT_EACCESS));
  };
  operations["utimens"] = set_times;
  operations["setxattr"] = set_attribute;
  operations["getxattr"] = get_attribute;
  operations["listxattr"] = list_attributes;
  operations["removexattr"] = [](Arguments a) {
    return result(lremovexattr(decode(a[0]).c_str(), a[1].c_str()));
  };
  operations["acl"] = set_access_list;
}

}  // namespace fsop

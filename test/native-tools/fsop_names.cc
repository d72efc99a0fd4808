// Operations on names: create, link, rename, remove, list; and whole trees.
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "fsop.h"

namespace fsop {
namespace {

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

mode_t octal(const std::string& text) {
  return static_cast<mode_t>(std::stoul("0" + text, nullptr, 8));
}

std::string make_node(Arguments a) {
  mode_t const type = a[1] == "fifo"     ? S_IFIFO
                      : a[1] == "socket" ? S_IFSOCK
                      : a[1] == "device" ? S_IFCHR
                                         : S_IFREG;
  return result(mknod(decode(a[0]).c_str(), type | octal(a[2]), type == S_IFCHR ? dev_t{0x0305} : dev_t{0}));
}

struct Listed {
  std::string name;
  unsigned char type;
  bool operator<(const Listed& other) const { return name < other.name; }
};

int list(const char* path, std::vector<Listed>& entries) {
  Directory const directory(opendir(path), &closedir);
  if (!directory) return -1;
  errno = 0;
  while (dirent* const entry = readdir(directory.get())) entries.push_back({entry->d_name, entry->d_type});
  if (errno != 0) return -1;
  std::sort(entries.begin(), entries.end());
  return 0;
}

std::string read_directory(Arguments a) {
  std::vector<Listed> entries;
  if (list(decode(a[0]).c_str(), entries) != 0) return failure();
  std::string text;
  // A name listed twice shows up twice. "." and ".." must be there, whatever their type says.
  for (const Listed& entry : entries) text += encode(entry.name) + ":" + std::to_string(entry.type) + ";";
  return ok(text);
}

// Reads a directory in small pieces while entries come and go; answers how many of those that were there
// throughout were seen, and how many of them twice.
std::string churn(Arguments a) {
  std::string const path = decode(a[0]);
  int64_t const count = number(a[1]);
  auto const touch = [&path](const std::string& name) {
    int const fd = open((path + "/" + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
  };
  if (mkdir(path.c_str(), 0755) != 0) return failure();
  for (int64_t i = 0; i < count; ++i) {
    touch("stay-" + std::to_string(i));
    touch("go-" + std::to_string(i));
  }
  int const fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failure();
  std::map<std::string, int> seen;
  int64_t round = 0;
  alignas(8) char buffer[1024];
  ssize_t length = 0;
  while ((length = getdents64(fd, buffer, sizeof buffer)) > 0) {
    for (ssize_t at = 0; at < length;) {
      auto const* const entry = reinterpret_cast<const dirent64*>(buffer + at);
      if (std::strncmp(entry->d_name, "stay-", 5) == 0) ++seen[entry->d_name];
      at += entry->d_reclen;
    }
    unlink((path + "/go-" + std::to_string(round * 7 % count)).c_str());
    touch("new-" + std::to_string(round));
    if (++round > 100 * count) break;
  }
  close(fd);
  if (length < 0) return failure();
  // How many rounds there were is the file system's affair: what came and went is taken away.
  for (int64_t i = 0; i < std::max(count, round); ++i) {
    unlink((path + "/go-" + std::to_string(i)).c_str());
    unlink((path + "/new-" + std::to_string(i)).c_str());
  }
  size_t twice = 0;
  for (const auto& [name, times] : seen) twice += times > 1;
  return ok(std::to_string(seen.size()) + " seen, " + std::to_string(twice) + " twice");
}

std::string put(Arguments a) {
  int const fd = open(decode(a[0]).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  if (fd < 0) return failure();
  size_t const length = static_cast<size_t>(number(a[1]));
  uint8_t* const bytes = scratch(length);
  fill({bytes, length}, static_cast<uint64_t>(number(a[2])), 0);
  std::string answer = result(write(fd, bytes, length));
  if (close(fd) != 0) answer += " close " + failure();
  return answer;
}

std::string contents(const std::string& path) {
  int const fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0) return failure();
  struct stat status;
  std::string text;
  if (fstat(fd, &status) == 0) {
    size_t const length = static_cast<size_t>(status.st_size);
    uint8_t* const bytes = scratch(length + 1);
    // One byte more than the size: a file that has more to give than stat says is caught.
    ssize_t const count = read(fd, bytes, length + 1);
    text = count < 0 ? failure() : digest({bytes, static_cast<size_t>(count)});
  }
  close(fd);
  return text;
}

std::string attributes_of(const std::string& path) {
  char names[4096];
  ssize_t const length = llistxattr(path.c_str(), names, sizeof names);
  std::vector<std::string> found;
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(std::strlen(names + at)) + 1)
    found.push_back(names + at);
  std::sort(found.begin(), found.end());
  std::string text;
  for (const std::string& name : found) {
    uint8_t value[65536];
    ssize_t const size = lgetxattr(path.c_str(), name.c_str(), value, sizeof value);
    text += "," + name + "=" + (size < 0 ? failure() : digest({value, static_cast<size_t>(size)}));
  }
  return text;
}

void walk(const std::string& path, std::map<std::pair<dev_t, ino_t>, std::string>& seen, std::string& text) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    text += encode(path) + " " + failure() + ";";
    return;
  }
  text += encode(path) + " " + describe(status) + attributes_of(path);
  // Hard links: the first path of the inode stands for its number.
  auto const first = seen.try_emplace({status.st_dev, status.st_ino}, path);
  if (!first.second) text += " same-as " + encode(first.first->second);
  if (S_ISREG(status.st_mode) && first.second) text += " " + contents(path);
  if (S_ISLNK(status.st_mode)) {
    char target[4097];
    ssize_t const length = readlink(path.c_str(), target, sizeof target);
    text += " -> " + (length < 0 ? failure() : encode({target, static_cast<size_t>(length)}));
  }
  text += ";";
  if (!S_ISDIR(status.st_mode)) return;
  std::vector<Listed> entries;
  if (list(path.c_str(), entries) != 0) text += failure() + ";";
  for (const Listed& entry : entries) {
    if (entry.name != "." && entry.name != "..") walk(path + "/" + entry.name, seen, text);
  }
}

int remove_one(const char* path, const struct stat*, int, struct FTW*) {
  return remove(path);
}

}  // namespace

std::string tree() {
  std::map<std::pair<dev_t, ino_t>, std::string> seen;
  std::string text;
  walk(".", seen, text);
  return ok(text);
}

std::string remove_tree(const std::string& path) {
  return result(nftw(path.c_str(), remove_one, 64, FTW_DEPTH | FTW_PHYS));
}

void add_name_operations(std::map<std::string, Operation>& operations) {
  operations["mkdir"] = [](Arguments a) { return result(mkdir(decode(a[0]).c_str(), octal(a[1]))); };
  operations["mknod"] = make_node;
  operations["symlink"] = [](Arguments a) {
    return result(symlink(decode(a[0]).c_str(), decode(a[1]).c_str()));
  };
  operations["link"] = [](Arguments a) { return result(link(decode(a[0]).c_str(), decode(a[1]).c_str())); };
  operations["unlink"] = [](Arguments a) { return result(unlink(decode(a[0]).c_str())); };
  operations["rmdir"] = [](Arguments a) { return result(rmdir(decode(a[0]).c_str())); };
  operations["rename"] = [](Arguments a) {
    unsigned const flags = a[2] == "noreplace" ? RENAME_NOREPLACE : a[2] == "exchange" ? RENAME_EXCHANGE : 0;
    return result(renameat2(AT_FDCWD, decode(a[0]).c_str(), AT_FDCWD, decode(a[1]).c_str(), flags));
  };
  operations["readdir"] = read_directory;
  operations["readlink"] = [](Arguments a) {
    char target[4097];
    ssize_t const length = readlink(decode(a[0]).c_str(), target, sizeof target);
    return length < 0 ? failure() : ok(encode({target, static_cast<size_t>(length)}));
  };
  operations["churn"] = churn;
  operations["put"] = put;
  operations["get"] = [](Arguments a) { return ok(contents(decode(a[0]))); };
  operations["deep"] = [](Arguments a) {
    std::string path = decode(a[0]);
    for (int64_t level = 0; level < number(a[1]); ++level) {
      path += "/d";
      if (mkdir(path.c_str(), 0755) != 0) return failure() + " at " + std::to_string(level);
    }
    return ok();
  };
}

}  // namespace fsop

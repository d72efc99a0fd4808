// A tree of many small files, on one thread: directories of a thousand files each.
//   many-files create|list|walk|remove DIRECTORY COUNT BYTES     prints files found and seconds
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr long kFilesPerDirectory = 1000;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

std::string directory_name(long file) {
  return "d" + std::to_string(file / kFilesPerDirectory);
}
std::string file_name(long file) {
  return directory_name(file) + "/f" + std::to_string(file);
}

void create(long count, size_t bytes) {
  std::vector<char> const content(bytes, 'm');
  for (long file = 0; file < count; ++file) {
    if (file % kFilesPerDirectory == 0 && mkdir(directory_name(file).c_str(), 0755) != 0) fail("mkdir");
    int const fd = open(file_name(file).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail(file_name(file));
    if (write(fd, content.data(), bytes) != static_cast<ssize_t>(bytes)) fail(file_name(file));
    if (close(fd) != 0) fail(file_name(file));
  }
}

// Lists every directory; with `look` it also asks for each file's attributes, as find -size does.
long visit(long count, size_t bytes, bool look) {
  long found = 0;
  for (long file = 0; file < count; file += kFilesPerDirectory) {
    std::string const directory = directory_name(file);
    DIR* const stream = opendir(directory.c_str());
    if (stream == nullptr) fail(directory);
    while (dirent* const entry = readdir(stream)) {
      if (entry->d_name[0] == '.') continue;
      ++found;
      struct stat status;
      if (!look) continue;
      if (fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) fail(entry->d_name);
      if (static_cast<size_t>(status.st_size) != bytes) {
        std::fprintf(stderr, "%s/%s: size %ld\n", directory.c_str(), entry->d_name, status.st_size);
        std::exit(1);
      }
    }
    closedir(stream);
  }
  return found;
}

void remove_all(long count) {
  for (long file = 0; file < count; ++file) {
    if (unlink(file_name(file).c_str()) != 0) fail(file_name(file));
  }
  for (long file = 0; file < count; file += kFilesPerDirectory) {
    if (rmdir(directory_name(file).c_str()) != 0) fail(directory_name(file));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: many-files create|list|walk|remove DIRECTORY COUNT BYTES\n");
    return 2;
  }
  std::string const kind = argv[1];
  long const count = std::strtol(argv[3], nullptr, 10);
  size_t const bytes = std::strtoul(argv[4], nullptr, 10);
  if (chdir(argv[2]) != 0) fail(argv[2]);
  auto const start = std::chrono::steady_clock::now();
  long found = count;
  if (kind == "create") {
    create(count, bytes);
  } else if (kind == "remove") {
    remove_all(count);
  } else {
    found = visit(count, bytes, kind == "walk");
  }
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
  std::printf("%ld %.3f\n", found, seconds.count());
  return 0;
}

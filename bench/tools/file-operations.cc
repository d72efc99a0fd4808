// One kind of metadata operation on many files, timed on one thread without an interpreter in the way:
//   file-operations create|create-4k|stat|rename|unlink DIRECTORY COUNT     prints the seconds it took
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

using Clock = std::chrono::steady_clock;

bool create(const char* path, size_t bytes) {
  static const std::vector<char> block(4096, 'x');
  int const fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  bool const written = write(fd, block.data(), bytes) == static_cast<ssize_t>(bytes);
  return close(fd) == 0 && written;
}

bool perform(const std::string& kind, const char* path, const char* renamed) {
  struct stat status;
  if (kind == "create") return create(path, 0);
  if (kind == "create-4k") return create(path, 4096);
  if (kind == "stat") return stat(path, &status) == 0;
  if (kind == "rename") return rename(path, renamed) == 0;
  return unlink(path) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: file-operations create|create-4k|stat|rename|unlink DIRECTORY COUNT\n");
    return 2;
  }
  std::string const kind = argv[1];
  long const count = std::strtol(argv[3], nullptr, 10);
  // Relative names: the path to the mount is not what is measured.
  if (chdir(argv[2]) != 0) {
    std::perror(argv[2]);
    return 1;
  }
  std::vector<std::string> names;
  std::vector<std::string> renamed;
  for (long i = 0; i < count; ++i) {
    names.push_back("f" + std::to_string(i));
    renamed.push_back("r" + std::to_string(i));
  }
  auto const start = Clock::now();
  for (size_t i = 0; i < names.size(); ++i) {
    if (!perform(kind, names[i].c_str(), renamed[i].c_str())) {
      std::fprintf(stderr, "%s %s: %s\n", kind.c_str(), names[i].c_str(), std::strerror(errno));
      return 1;
    }
  }
  std::chrono::duration<double> const seconds = Clock::now() - start;
  std::printf("%.6f\n", seconds.count());
  return 0;
}

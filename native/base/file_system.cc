// FileSystem over the kernel's calls. EINTR is retried, everything else is reported with the path and the
// operation.
#include "native/base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>

#include "native/base/fd.h"

namespace penstock {
namespace {

template <typename Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

Error failure(const char* operation, const std::string& path) {
  const int code = errno;
  return Error::from_errno(code, std::string(operation) + " " + path);
}

// RWF_DONTCACHE, from <linux/fs.h> of Linux 6.14. Before 6.16 what was written anew while the kernel stored
// and forgot it could be forgotten with it.
constexpr int kDontCache = 0x80;

bool forgets_safely() {
  static const bool safely = [] {
    struct utsname name {};
    unsigned major = 0;
    unsigned minor = 0;
    if (::uname(&name) < 0 || std::sscanf(name.release, "%u.%u", &major, &minor) != 2) return false;
    return major > 6 || (major == 6 && minor >= 16);
  }();
  return safely;
}

class HostFile final : public File {
 public:
  HostFile(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Result<std::size_t> read(uint64_t offset, std::span<std::byte> out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t got = retry([&] {
        return ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      });
      if (got < 0) return failure("read", path_);
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  Result<void> write(uint64_t offset, std::span<const std::byte> data) override {
    return write_with(0, offset, data);
  }

  Result<void> write_uncached(uint64_t offset, std::span<const std::byte> data) override {
    return write_with(knows_uncached_.load(std::memory_order_relaxed) ? kDontCache : 0, offset, data);
  }

  Result<void> sync_data() override {
    // Not retried on EINTR or anything else: after a failed sync the kernel may have dropped the dirty pages.
    if (::fdatasync(fd_.get()) < 0) return failure("fdatasync", path_);
    return {};
  }

  Result<void> allocate(uint64_t offset, uint64_t length, bool grow) override {
    const int mode = grow ? 0 : FALLOC_FL_KEEP_SIZE;
    const int result = retry(
        [&] { return ::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(length)); });
    if (result == 0) return {};
    if (errno != EOPNOTSUPP) return failure("allocate space in", path_);
    if (!grow) return {};
    Result<uint64_t> current = size();
    if (!current) return current.error();
    return *current < offset + length ? truncate(offset + length) : Result<void>();
  }

  Result<void> truncate(uint64_t size) override {
    if (retry([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size)); }) < 0)
      return failure("truncate", path_);
    return {};
  }

  Result<void> punch(uint64_t offset, uint64_t length) override {
    Result<void> punched = punch_hole(offset, length);
    return !punched && punched.error().code == EOPNOTSUPP ? Result<void>() : punched;
  }

  Result<void> zero(uint64_t offset, uint64_t length) override {
    Result<void> punched = punch_hole(offset, length);
    if (punched || punched.error().code != EOPNOTSUPP) return punched;
    const Result<uint64_t> file_end = size();
    if (!file_end) return file_end.error();
    const uint64_t end = std::min(*file_end, offset + length);
    static constexpr std::array<std::byte, 65536> kZeros{};
    while (offset < end) {
      const auto piece = std::span(kZeros).first(std::min<uint64_t>(kZeros.size(), end - offset));
      if (auto written = write(offset, piece); !written) return written;
      offset += piece.size();
    }
    return {};
  }

  Result<uint64_t> size() override {
    struct stat status {};
    if (::fstat(fd_.get(), &status) < 0) return failure("stat", path_);
    return static_cast<uint64_t>(status.st_size);
  }

  int descriptor() const override { return fd_.get(); }

  Result<void> lock() override {
    if (retry([&] { return ::flock(fd_.get(), LOCK_EX | LOCK_NB); }) == 0) return {};
    if (errno == EWOULDBLOCK) return Error{EBUSY, path_ + " is locked by another process"};
    return failure("lock", path_);
  }

 private:
  // Beyond its end a file reads as zeros, and beyond what a file may have at all the kernel says EFBIG.
  Result<void> punch_hole(uint64_t offset, uint64_t length) {
    const Result<uint64_t> end = size();
    if (!end) return end.error();
    if (offset >= *end) return {};
    length = std::min(length, *end - offset);
    const int result = retry([&] {
      return ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                         static_cast<off_t>(length));
    });
    if (result < 0) return failure("punch a hole in", path_);
    return {};
  }

  Result<void> write_with(int flags, uint64_t offset, std::span<const std::byte> data) {
    std::size_t done = 0;
    while (done < data.size()) {
      // The kernel only reads from where an iovec points.
      const iovec rest{const_cast<std::byte*>(data.data()) + done, data.size() - done};
      const ssize_t put =
          retry([&] { return ::pwritev2(fd_.get(), &rest, 1, static_cast<off_t>(offset + done), flags); });
      if (put < 0 && errno == EOPNOTSUPP && flags != 0) {
        knows_uncached_.store(false, std::memory_order_relaxed);  // a file system that has not opted in
        flags = 0;
        continue;
      }
      if (put < 0) return failure("write", path_);
      done += static_cast<std::size_t>(put);
    }
    return {};
  }

  Fd fd_;
  std::string path_;
  std::atomic<bool> knows_uncached_ = forgets_safely();
};

class HostFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC | (mode == OpenMode::read ? O_RDONLY : O_RDWR);
    if (mode == OpenMode::create) flags |= O_CREAT;
    if (mode == OpenMode::create_new) flags |= O_CREAT | O_EXCL;
    Fd fd(retry([&] { return ::open(path.c_str(), flags, 0600); }));
    if (!fd.valid()) return failure("open", path);
    return std::unique_ptr<File>(std::make_unique<HostFile>(std::move(fd), path));
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) < 0) return failure("rename", from);
    return {};
  }

  Result<void> unlink(const std::string& path) override {
    if (::unlink(path.c_str()) < 0) return failure("unlink", path);
    return {};
  }

  Result<void> make_directories(const std::string& path) override {
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      const std::string prefix = path.substr(0, end);
      if (::mkdir(prefix.c_str(), 0700) < 0 && errno != EEXIST) {
        // A parent that exists may also answer EROFS or EACCES.
        struct stat status {};
        const int code = errno;
        if (::stat(prefix.c_str(), &status) < 0) return Error::from_errno(code, "make directory " + prefix);
      }
      if (end == std::string::npos) return {};
    }
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    struct Closer {
      void operator()(DIR* stream) const { ::closedir(stream); }
    };
    const std::unique_ptr<DIR, Closer> stream(::opendir(directory.c_str()));
    if (stream == nullptr) return failure("open directory", directory);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(stream.get())) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    if (errno != 0) return failure("list", directory);
    return names;
  }

  Result<void> sync_directory(const std::string& directory) override {
    const Fd fd(retry([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (!fd.valid()) return failure("open directory", directory);
    if (::fsync(fd.get()) < 0) return failure("fsync directory", directory);
    return {};
  }

  Result<SpaceOfHost> space(const std::string& directory) override {
    struct statvfs status {};
    if (retry([&] { return ::statvfs(directory.c_str(), &status); }) < 0)
      return failure("statvfs", directory);
    return SpaceOfHost{status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize};
  }

  // No call tells; a file without a name is asked how long it can be.
  uint64_t file_bytes_max(const std::string& directory) override {
    struct rlimit limit {};
    if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) return limit.rlim_cur;
    const Fd fd(retry([&] { return ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); }));
    if (!fd.valid()) return INT64_MAX;
    uint64_t bytes = 0;
    for (uint64_t more = uint64_t{1} << 62; more >= 4096; more >>= 1) {
      if (::ftruncate(fd.get(), static_cast<off_t>(bytes + more)) == 0) bytes += more;
    }
    return bytes;
  }
};

}  // namespace

FileSystem& host_file_system() {
  static HostFileSystem file_system;
  return file_system;
}

Result<void> write_or_zero(File& file, uint64_t offset, std::span<const std::byte> bytes) {
  const bool is_zero =
      std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
  return is_zero ? file.zero(offset, bytes.size()) : file.write(offset, bytes);
}

Result<std::vector<std::byte>> read_whole(FileSystem& file_system, const std::string& path,
                                          std::size_t bytes_max) {
  std::vector<std::byte> content;
  if (auto done = read_whole(file_system, path, bytes_max, content); !done) return done.error();
  return content;
}

Result<void> read_whole(FileSystem& file_system, const std::string& path, std::size_t bytes_max,
                        std::vector<std::byte>& content) {
  auto file = file_system.open(path, OpenMode::read);
  if (!file) return file.error();
  const Result<uint64_t> size = (*file)->size();
  if (!size) return size.error();
  if (size.value() > bytes_max) return Error{EFBIG, path + " is larger than expected"};
  content.resize(size.value());
  const Result<std::size_t> got = (*file)->read(0, content);
  if (!got) return got.error();
  content.resize(got.value());
  return {};
}

Result<void> replace_whole(FileSystem& file_system, const std::string& directory, const std::string& name,
                           std::span<const std::byte> content) {
  const std::string path = directory + "/" + name;
  const std::string temporary = path + ".tmp";
  {
    auto file = file_system.open(temporary, OpenMode::create);
    if (!file) return file.error();
    if (auto done = (*file)->truncate(0); !done) return done;
    if (auto done = (*file)->write(0, content); !done) return done;
    if (auto done = (*file)->sync_data(); !done) return done;
  }
  if (auto done = file_system.rename(temporary, path); !done) return done;
  return file_system.sync_directory(directory);
}

}  // namespace penstock

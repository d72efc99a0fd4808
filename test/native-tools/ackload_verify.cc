// Compares a directory with what the log says was acknowledged.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "ackload.h"

namespace ackload {
namespace {

// What a file may be: `before` the operation in doubt, `after` it, or, byte for byte, a mixture.
struct Expected {
  std::shared_ptr<File> before;
  std::shared_ptr<File> after;
};

std::string read_file(const std::string& path, File& file) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) return std::string("lstat: ") + std::strerror(errno);
  file.mode = status.st_mode & 07777;
  if (S_ISLNK(status.st_mode)) {
    char target[4096];
    ssize_t const length = readlink(path.c_str(), target, sizeof target);
    if (length < 0) return std::string("readlink: ") + std::strerror(errno);
    file.target.assign(target, static_cast<size_t>(length));
    return "";
  }
  int const fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::string("open: ") + std::strerror(errno);
  file.bytes.resize(static_cast<size_t>(status.st_size));
  size_t at = 0;
  std::string problem;
  while (at < file.bytes.size()) {
    ssize_t const count = read(fd, file.bytes.data() + at, file.bytes.size() - at);
    if (count <= 0) {
      problem = "read at " + std::to_string(at) + ": " + (count < 0 ? std::strerror(errno) : "early end");
      break;
    }
    at += static_cast<size_t>(count);
  }
  close(fd);
  return problem;
}

std::string compare(const File& actual, const Expected& expected) {
  const File& before = *expected.before;
  const File& after = *expected.after;
  if (actual.target != before.target) return "target " + actual.target + " instead of " + before.target;
  if (!actual.target.empty()) return "";
  if (actual.mode != before.mode && actual.mode != after.mode) return "mode " + std::to_string(actual.mode);
  size_t const low = std::min(before.bytes.size(), after.bytes.size());
  size_t const high = std::max(before.bytes.size(), after.bytes.size());
  if (actual.bytes.size() < low || actual.bytes.size() > high) {
    return "size " + std::to_string(actual.bytes.size()) + " instead of " +
           std::to_string(before.bytes.size()) +
           (low == high ? "" : " or " + std::to_string(after.bytes.size()));
  }
  auto const byte = [](const File& file, size_t at) {
    return at < file.bytes.size() ? file.bytes[at] : uint8_t{0};
  };
  for (size_t at = 0; at < actual.bytes.size(); ++at) {
    uint8_t const found = actual.bytes[at];
    if (found == byte(before, at) || found == byte(after, at)) continue;
    size_t wrong = 0;
    size_t zeros = 0;
    for (size_t i = at; i < actual.bytes.size(); ++i) {
      bool const differs = actual.bytes[i] != byte(before, i) && actual.bytes[i] != byte(after, i);
      wrong += differs;
      zeros += differs && actual.bytes[i] == 0;
    }
    return "wrong bytes from offset " + std::to_string(at) + ", " + std::to_string(wrong) + " in all, " +
           std::to_string(zeros) + " of them zero, size " + std::to_string(actual.bytes.size());
  }
  return "";
}

std::set<std::string> list(const std::string& root) {
  std::set<std::string> names;
  DIR* const directory = opendir(root.c_str());
  if (directory == nullptr) {
    std::printf("%s: %s\n", root.c_str(), std::strerror(errno));
    return names;
  }
  while (dirent* const entry = readdir(directory)) {
    std::string const name = entry->d_name;
    if (name != "." && name != "..") names.insert(name);
  }
  closedir(directory);
  return names;
}

std::set<std::string> names_of(const Model& model) {
  std::set<std::string> names;
  for (const auto& [name, file] : model.names) names.insert(name);
  return names;
}

std::string join(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += name + " ";
  return text;
}

}  // namespace

int verify(const std::string& root, const std::string& log) {
  Replay const history = replay(log);
  if (!history.refused.empty()) {
    std::printf("refused: %s\n", history.refused.c_str());
    return 1;
  }
  // The model after the operation in doubt, with files of its own: applying it must not change those before.
  Model after;
  std::map<std::shared_ptr<File>, std::shared_ptr<File>> copies;
  for (const auto& [name, file] : history.model.names) {
    auto const copy = copies.try_emplace(file, std::make_shared<File>(*file)).first;
    after.names[name] = copy->second;
  }
  if (history.in_doubt) after.apply(*history.in_doubt);

  std::set<std::string> const actual = list(root);
  bool const happened = actual != names_of(history.model);
  std::string const doubt = history.in_doubt ? history.in_doubt->line() : "none\n";
  if (happened && actual != names_of(after)) {
    std::printf("names: found %s\nexpected %s\nor %s\nin doubt: %s", join(actual).c_str(),
                join(names_of(history.model)).c_str(), join(names_of(after)).c_str(), doubt.c_str());
    return 1;
  }
  // A rename over another name leaves the same set of names only if nothing moved; then both models are
  // asked.
  bool const renames =
      history.in_doubt && (history.in_doubt->verb == "rename" || history.in_doubt->verb == "link");
  int wrong = 0;
  for (const std::string& name : actual) {
    File found;
    std::string problem = read_file(root + "/" + name, found);
    if (problem.empty()) {
      auto const late = after.find(name);
      auto const early = history.model.find(name);
      if (renames || !early || !late) {
        auto const only = happened ? late : early;
        problem = compare(found, {only, only});
      } else {
        problem = compare(found, {early, late});
      }
    }
    if (problem.empty()) continue;
    ++wrong;
    std::printf("%s/%s: %s\nin doubt: %s", root.c_str(), name.c_str(), problem.c_str(), doubt.c_str());
  }
  if (wrong > 0) return 1;
  std::printf("%lu acknowledged, %lu syncs, %zu names\n", static_cast<unsigned long>(history.acknowledged),
              static_cast<unsigned long>(history.synced), actual.size());
  return 0;
}

}  // namespace ackload

int main(int argc, char** argv) {
  std::string const mode = argc > 1 ? argv[1] : "";
  if (mode == "run" && argc == 5) return ackload::run(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10));
  if (mode == "verify" && argc == 4) return ackload::verify(argv[2], argv[3]);
  std::fprintf(stderr, "usage: ackload run DIRECTORY LOG SEED | verify DIRECTORY LOG\n");
  return 2;
}

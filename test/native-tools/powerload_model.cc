// What each operation does to names and bytes, and which older states of a page may come back.
#include <algorithm>
#include <cstring>
#include <sstream>

#include "powerload.h"
#include "workload.h"

namespace powerload {

std::string Operation::line() const {
  std::ostringstream text;
  text << "B " << number << ' ' << verb << ' ' << path << ' ' << other << ' ' << offset << ' ' << length
       << ' ' << seed << '\n';
  return text.str();
}

// Never zero, and different for every seed and place.
std::vector<uint8_t> File::page(uint64_t number) const {
  std::vector<uint8_t> content(kPageBytes);
  const uint64_t start = number * kPageBytes;
  if (start < bytes.size())
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(start),
                std::min(kPageBytes, bytes.size() - start), content.begin());
  return content;
}

void File::remember(uint64_t first_page, uint64_t end_page) {
  for (uint64_t number = first_page; number < end_page; ++number) older_[number].push_back(page(number));
}

void File::write(uint64_t offset, uint64_t length, uint64_t seed) {
  const uint64_t end = offset + length;
  any_size_between(bytes.size(), bytes.size());
  // The kernel may make several requests of one write, which part at pages.
  if (end > bytes.size()) size_ranges_.push_back({bytes.size(), end, false});
  remember(offset / kPageBytes, (end + kPageBytes - 1) / kPageBytes);
  if (bytes.size() < end) bytes.resize(end);
  workload::pattern(bytes.data() + offset, length, seed, offset);
}

void File::truncate(uint64_t size) {
  any_size_between(bytes.size(), bytes.size());
  if (size < bytes.size()) remember(size / kPageBytes, (bytes.size() + kPageBytes - 1) / kPageBytes);
  bytes.resize(size);
}

void File::punch(uint64_t offset, uint64_t length) {
  const uint64_t end = std::min<uint64_t>(bytes.size(), offset + length);
  if (offset >= end) return;
  remember(offset / kPageBytes, (end + kPageBytes - 1) / kPageBytes);
  std::memset(bytes.data() + offset, 0, end - offset);
}

void File::sync() {
  older_.clear();
  size_ranges_.clear();
}

std::string File::judge(const std::vector<uint8_t>& found) const {
  const bool size_known = found.size() == bytes.size() ||
                          std::any_of(size_ranges_.begin(), size_ranges_.end(), [&](const auto& range) {
                            return found.size() >= range.low && found.size() <= range.high &&
                                   (found.size() % kPageBytes == 0 || range.is_any);
                          });
  if (!size_known) {
    std::string text = "size " + std::to_string(found.size()) + ", never so since the last sync: last " +
                       std::to_string(bytes.size()) + ", before it";
    for (const auto& [low, high, is_any] : size_ranges_)
      text += " " + std::to_string(low) + ".." + std::to_string(high) + (is_any ? "" : " (pages)");
    return text;
  }
  for (uint64_t start = 0; start < found.size(); start += kPageBytes) {
    const std::size_t count = std::min<std::size_t>(kPageBytes, found.size() - start);
    const uint8_t* const have = found.data() + start;
    const auto same = [&](const std::vector<uint8_t>& version) {
      return std::memcmp(version.data(), have, count) == 0;
    };
    const uint64_t number = start / kPageBytes;
    if (same(page(number))) continue;
    const auto older = older_.find(number);
    if (older != older_.end() && std::any_of(older->second.begin(), older->second.end(), same)) continue;
    const auto zeros = std::count(have, have + count, 0);
    const std::vector<uint8_t> last = page(number);
    const auto last_zeros = std::count(last.begin(), last.begin() + static_cast<std::ptrdiff_t>(count), 0);
    return "page " + std::to_string(number) +
           " holds what it never held since the last sync: " + std::to_string(zeros) + " of " +
           std::to_string(count) + " bytes are zero, " + std::to_string(last_zeros) + " were; older states " +
           std::to_string(older == older_.end() ? 0 : older->second.size()) + ", size " +
           std::to_string(found.size());
  }
  return "";
}

void Model::apply(const Operation& operation, uint64_t inode) {
  const std::string& verb = operation.verb;
  const std::string& path = operation.path;
  if (verb == "create" || verb == "mkdir") {
    names[path] = inode;
    // A plain file system may give a number again.
    files[inode] = File();
    files[inode].is_directory = verb == "mkdir";
  } else if (verb == "unlink" || verb == "rmdir") {
    names.erase(path);
  } else if (verb == "rename") {
    std::map<std::string, uint64_t> moved;
    for (auto entry = names.begin(); entry != names.end();) {
      const bool below = entry->first == path || entry->first.starts_with(path + "/");
      if (below) moved[operation.other + entry->first.substr(path.size())] = entry->second;
      entry = below ? names.erase(entry) : std::next(entry);
    }
    for (const auto& [name, number] : moved) names[name] = number;
  } else if (verb == "write" || verb == "append") {
    file(path).write(operation.offset, operation.length, operation.seed);
  } else if (verb == "truncate") {
    file(path).truncate(operation.length);
  } else if (verb == "punch") {
    file(path).punch(operation.offset, operation.length);
  }
}

}  // namespace powerload

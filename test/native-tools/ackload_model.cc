// The model: what each operation does to names and bytes, and the replay of a log.
#include <algorithm>
#include <cstring>
#include <sstream>

#include "ackload.h"
#include "workload.h"

namespace ackload {

std::string Operation::line() const {
  std::ostringstream text;
  text << "B " << number << ' ' << verb << ' ' << name << ' ' << (other.empty() ? "-" : other) << ' '
       << offset << ' ' << length << ' ' << seed << '\n';
  return text.str();
}

std::shared_ptr<File> Model::find(const std::string& name) const {
  auto const found = names.find(name);
  return found == names.end() ? nullptr : found->second;
}

void Model::apply(const Operation& operation) {
  std::string const& verb = operation.verb;
  if (verb == "create") {
    names[operation.name] = std::make_shared<File>();
    return;
  }
  if (verb == "symlink") {
    auto const file = std::make_shared<File>();
    file->target = operation.other;
    names[operation.name] = file;
    return;
  }
  if (verb == "link") {
    names[operation.other] = names.at(operation.name);
    return;
  }
  if (verb == "rename") {
    auto const file = names.at(operation.name);
    // Renaming one link of a file over another does nothing.
    if (find(operation.other) == file) return;
    names[operation.other] = file;
    names.erase(operation.name);
    return;
  }
  if (verb == "unlink") {
    names.erase(operation.name);
    return;
  }
  std::vector<uint8_t>& bytes = names.at(operation.name)->bytes;
  size_t const offset = static_cast<size_t>(operation.offset);
  size_t const length = static_cast<size_t>(operation.length);
  if (verb == "write") {
    if (bytes.size() < offset + length) bytes.resize(offset + length);
    workload::pattern(bytes.data() + offset, length, operation.seed, offset);
  } else if (verb == "truncate") {
    bytes.resize(length);
  } else if (verb == "punch") {
    size_t const end = std::min(bytes.size(), offset + length);
    if (offset < end) std::memset(bytes.data() + offset, 0, end - offset);
  } else if (verb == "chmod") {
    names.at(operation.name)->mode = static_cast<uint32_t>(operation.length);
  }
}

Replay replay(const std::string& log) {
  Replay found;
  std::ifstream input(log);
  std::string text;
  while (std::getline(input, text)) {
    std::istringstream words(text);
    std::string kind;
    Operation operation;
    words >> kind >> operation.number;
    if (kind == "B") {
      words >> operation.verb >> operation.name >> operation.other >> operation.offset >> operation.length >>
          operation.seed;
      // The last line may be cut off where the workload itself was killed: it never reached its system call.
      if (words) found.in_doubt = operation;
    } else if (kind == "A" && found.in_doubt && found.in_doubt->number == operation.number) {
      found.model.apply(*found.in_doubt);
      if (found.in_doubt->verb == "fsync") ++found.synced;
      found.in_doubt.reset();
      ++found.acknowledged;
    } else if (kind == "F") {
      found.refused = text;
      if (found.in_doubt) found.refused += ": " + found.in_doubt->line();
    }
  }
  return found;
}

}  // namespace ackload

// A workload that knows what was acknowledged. `run` performs random operations and keeps a log outside the
// file system under test: a line before each system call, a mark after it returned. `verify` replays the log
// into a model and compares what a mount shows, after the daemon below it was killed, with everything that
// was acknowledged.
//
//   B <number> <verb> <name> <arguments>      begun
//   A <number>                                acknowledged
//   F <number> <errno>                        refused, though it should not be: the run has found something
//
// One system call is one operation, so at most one is begun and not acknowledged when the daemon dies: it may
// have happened, not happened, or (a write) have happened in part.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace ackload {

struct Operation {
  uint64_t number = 0;
  std::string verb;
  std::string name;
  std::string other;
  int64_t offset = 0;
  int64_t length = 0;
  uint64_t seed = 0;

  std::string line() const;
};

struct File {
  std::vector<uint8_t> bytes;
  uint32_t mode = 0644;
  std::string target;  // of a symbolic link
};

// Names to files; hard links share one. Copying a model copies names, `own` gives a file of its own before a
// change.
struct Model {
  std::map<std::string, std::shared_ptr<File>> names;

  void apply(const Operation& operation);
  std::shared_ptr<File> find(const std::string& name) const;
};

struct Replay {
  Model model;
  std::optional<Operation> in_doubt;
  uint64_t acknowledged = 0;
  uint64_t synced = 0;
  std::string refused;
};

Replay replay(const std::string& log);
int run(const std::string& root, const std::string& log, uint64_t seed);
int verify(const std::string& root, const std::string& log);

}  // namespace ackload

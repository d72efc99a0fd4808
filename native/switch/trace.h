// What happened to one packet, step by step, for people: `penstock switch trace`, and packets marked
// `traced`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::net {

struct TraceStep {
  std::string what;  // parse, decapsulate, network, anti-spoof, connection, rule, group, translate, forward,
                     // output, drop
  std::string detail;  // "rule 17 (priority 100): drop"
};

class Trace {
 public:
  void step(std::string what, std::string detail) { steps_.push_back({std::move(what), std::move(detail)}); }
  const std::vector<TraceStep>& steps() const { return steps_; }

 private:
  std::vector<TraceStep> steps_;
};

}  // namespace penstock::net

// What the forwarders share: how they give up, and how they tell drops.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "native/packet/drop_reason.h"

namespace penstock::net {

[[noreturn]] inline void fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(1);
}

// "drops":{reason: packets}, reasons that happened only. `of`: packets by the reason's index.
template <typename Of>
void print_drops(Of of) {
  std::printf("\"drops\":{");
  const char* separator = "";
  for (std::size_t reason = 1; reason < kDropReasons; ++reason) {
    const uint64_t drops = of(reason);
    if (drops == 0) continue;
    std::printf("%s\"%s\":%lu", separator, std::string(kDropReasonNames[reason]).c_str(), drops);
    separator = ",";
  }
  std::printf("}");
}

}  // namespace penstock::net

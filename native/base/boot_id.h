// Which run of the kernel this is: changes with every boot.
#pragma once

#include <fstream>
#include <string>

namespace penstock {

// Empty when /proc does not say. /proc tells no sizes, so it is read as a stream.
inline std::string boot_id() {
  std::ifstream stream("/proc/sys/kernel/random/boot_id");
  std::string id;
  stream >> id;
  return id;
}

}  // namespace penstock

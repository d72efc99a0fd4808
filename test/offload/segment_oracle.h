// Compares our segmentation with the kernel's, frame by frame.
//
//   ours     superframe -> Segmenter -> packets
//   kernel   superframe -> tap (24-byte vnet header) -> bridge -> veth, offloads off -> packet socket
//
// Everything lives in a network namespace of this process, so that nothing can be left behind.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "test/native/support/superframe.h"

namespace penstock::net::oracle {

// The kernel's way from a tap to a packet socket. Throws std::runtime_error with what is missing.
class KernelPath {
 public:
  KernelPath();
  ~KernelPath();
  KernelPath(const KernelPath&) = delete;
  KernelPath& operator=(const KernelPath&) = delete;

  // Why tunnel superframes cannot be written; empty when they can (Linux 6.17).
  const std::string& tunnels_missing() const { return tunnels_missing_; }
  void write(const test::Bytes& frame, const Offload& offload, bool outer_v6);
  // The next `count` frames, and any that come without having been asked for.
  std::vector<test::Bytes> read(std::size_t count);

 private:
  int tap_ = -1;
  int socket_ = -1;
  std::string tunnels_missing_;
};

}  // namespace penstock::net::oracle

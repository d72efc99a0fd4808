// Which flow the later fragments of a datagram belong to: their own headers name addresses and an
// identification only.
//
// One worker's, direct-mapped and small: fragments of a datagram follow each other, and all of them come to
// the same worker (flow keys of fragments have no ports). A later fragment that overtakes the first finds
// nothing and is judged without ports, which security groups refuse.
#pragma once

#include <array>
#include <cstdint>

#include "native/packet/flow_key.h"
#include "native/packet/wire.h"

namespace penstock::net {

class FragmentTable {
 public:
  static constexpr std::size_t kEntries = 256;
  static constexpr uint64_t kLifeNs = 30'000'000'000;  // RFC 791's reassembly time-out is in this region

  // `flow`: of the fragment, without ports; `identification`: from its IP or fragment header.
  void remember(const FlowKey& flow, uint32_t identification, uint16_t source_port, uint16_t destination_port,
                uint64_t now_ns) {
    Entry& entry = entries_[slot(flow, identification)];
    entry = Entry{flow, identification, source_port, destination_port, now_ns + kLifeNs};
  }

  // Fills in the ports when the first fragment was seen.
  bool complete(FlowKey& flow, uint32_t identification, uint64_t now_ns) const {
    const Entry& entry = entries_[slot(flow, identification)];
    if (entry.expires_ns < now_ns || entry.identification != identification || !(entry.flow == flow))
      return false;
    flow.source_port = entry.source_port;
    flow.destination_port = entry.destination_port;
    return true;
  }

 private:
  struct Entry {
    FlowKey flow;
    uint32_t identification = 0;
    uint16_t source_port = 0;
    uint16_t destination_port = 0;
    uint64_t expires_ns = 0;
  };

  static std::size_t slot(const FlowKey& flow, uint32_t identification) {
    return (directed_hash(flow, identification) >> 20) % kEntries;
  }

  std::array<Entry, kEntries> entries_;
};

}  // namespace penstock::net

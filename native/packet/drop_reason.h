// Why a packet was dropped. Every drop in the plane names one of these; each worker counts them per stage and
// per port, and `switch stats`, `trace` and captures show the names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::net {

// X(identifier, name shown to people, sentence)
#define PENSTOCK_DROP_REASONS(X)                                                                 \
  X(none, "none", "not dropped")                                                                 \
  X(truncated, "truncated", "shorter than the headers it announces")                             \
  X(malformed, "malformed", "a header contradicts itself")                                       \
  X(headers_too_long, "headers-too-long", "the headers do not fit the linear head")              \
  X(bad_checksum, "bad-checksum", "a checksum that was to be trusted is wrong")                  \
  X(no_buffer, "no-buffer", "the worker's buffer pool is empty")                                 \
  X(ring_full, "ring-full", "the ring to the next worker is full")                               \
  X(tx_full, "tx-full", "the egress port did not take it and its hold-back is full")             \
  X(tx_error, "tx-error", "the kernel refused it on the egress port")                            \
  X(port_down, "port-down", "the egress port is not up")                                         \
  X(port_blocked, "port-blocked", "the port is blocked until its peer resumes")                  \
  X(port_moved, "port-moved", "its port was handed over to another host")                        \
  X(forward_loop, "forward-loop", "it was passed on once and its port is not here either")       \
  X(hairpin, "hairpin", "it would leave by the port it came from")                               \
  X(no_route, "no-route", "no port or peer of its network takes it")                             \
  X(unknown_network, "unknown-network", "a tunnel packet of a network that is not configured")   \
  X(unknown_peer, "unknown-peer", "a tunnel packet from an address that is no peer")             \
  X(leaving_peer, "leaving-peer", "a broadcast of a gateway that is being left")                 \
  X(vlan_mismatch, "vlan-mismatch", "its VLAN is not allowed on the port")                       \
  X(spoofed_mac, "spoofed-mac", "source MAC is not the virtual function's")                      \
  X(spoofed_ip, "spoofed-ip", "source IP is not the virtual function's")                         \
  X(rule, "rule", "a rule says drop")                                                            \
  X(security_group, "security-group", "no security group admits it")                             \
  X(invalid_state, "invalid-state", "does not belong to any connection and cannot open one")     \
  X(connections_full, "connections-full", "the connection table is full")                        \
  X(meter, "meter", "over the rate of a meter or virtual function")                              \
  X(too_big, "too-big", "larger than the path takes, and the sender was told")                   \
  X(ttl_exceeded, "ttl-exceeded", "hop limit used up")                                           \
  X(ecn_invalid, "ecn-invalid", "congestion experienced outside, not capable inside (RFC 6040)") \
  X(tunnel_option, "tunnel-option", "a control packet, or a critical option nobody here knows")  \
  X(script, "script", "a script's verdict")                                                      \
  X(shutdown, "shutdown", "the plane is stopping")

enum class DropReason : uint8_t {
#define X(identifier, name, sentence) identifier,
  PENSTOCK_DROP_REASONS(X)
#undef X
};

inline constexpr std::string_view kDropReasonNames[] = {
#define X(identifier, name, sentence) name,
    PENSTOCK_DROP_REASONS(X)
#undef X
};

inline constexpr std::string_view kDropReasonSentences[] = {
#define X(identifier, name, sentence) sentence,
    PENSTOCK_DROP_REASONS(X)
#undef X
};

inline constexpr std::size_t kDropReasons = sizeof(kDropReasonNames) / sizeof(kDropReasonNames[0]);

constexpr std::string_view name_of(DropReason reason) {
  return kDropReasonNames[static_cast<std::size_t>(reason)];
}

}  // namespace penstock::net

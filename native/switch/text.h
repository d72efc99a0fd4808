// Addresses as people write them, for traces and messages.
#pragma once

#include <arpa/inet.h>

#include <cstdio>
#include <string>

#include "native/packet/flow_key.h"
#include "native/switch/config.h"
#include "native/switch/mac.h"

namespace penstock::net {

inline std::string to_text(Mac mac) {
  char text[18];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", static_cast<unsigned>(mac >> 40 & 0xff),
                static_cast<unsigned>(mac >> 32 & 0xff), static_cast<unsigned>(mac >> 24 & 0xff),
                static_cast<unsigned>(mac >> 16 & 0xff), static_cast<unsigned>(mac >> 8 & 0xff),
                static_cast<unsigned>(mac & 0xff));
  return text;
}

inline std::string to_text(const IpAddress& address, uint8_t ip_version) {
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(ip_version == 4 ? AF_INET : AF_INET6, address.data() + (ip_version == 4 ? 12 : 0), text,
              sizeof(text));
  return text;
}

// "tcp 10.0.0.1:40000 > 10.0.0.2:80"
inline std::string to_text(const FlowKey& flow) {
  if (flow.ip_version == 0) {
    char text[16];
    std::snprintf(text, sizeof(text), "ether 0x%04x", flow.ether_type);
    return text;
  }
  const auto end = [&](const IpAddress& address, uint16_t port) {
    std::string text = to_text(address, flow.ip_version);
    if (port == 0) return text;
    if (flow.ip_version == 6) text = "[" + text + "]";
    return text + ":" + std::to_string(port);
  };
  const char* protocol = flow.protocol == 6 ? "tcp" : flow.protocol == 17 ? "udp" : nullptr;
  const std::string name = protocol != nullptr ? protocol
                           : flow.protocol == 1 || flow.protocol == 58
                               ? "icmp"
                               : "proto " + std::to_string(flow.protocol);
  return name + " " + end(flow.source, flow.source_port) + " > " +
         end(flow.destination, flow.destination_port);
}

}  // namespace penstock::net

#include "native/packet/flow_key.h"

namespace penstock::net {

FlowKey flow_key(const std::byte* bytes, const Headers& headers, uint32_t vni) {
  return flow_words(bytes, headers, vni).key();
}

}  // namespace penstock::net

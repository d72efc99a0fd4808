#include "native/switch/coalesce_stage.h"

#include "native/packet/parse.h"

namespace penstock::net {

void CoalesceStage::process(Batch& batch, Outputs& outputs, uint64_t) {
  if (batch.count > 1) {
    if (!coalescer_) {
      const CoalesceOptions options{.udp = false, .tunnels = tunnels_, .bodies_left = kBatchPackets};
      coalescer_.emplace(outputs.pool(), options);
    }
    for (Packet* packet : batch.all())
      if (parse(*packet) != DropReason::none) packet->layout = Layout{};
    batch.count = coalescer_->coalesce(batch.all());
    const CoalesceCounters& did = coalescer_->counters();
    counters_.merged.set(did.merged);
    counters_.flushed.set(did.superframes);
    counters_.bad_checksum.set(did.bad_checksum);
  }
  for (Packet* packet : batch.all()) outputs.forward(0, packet);
}

}  // namespace penstock::net

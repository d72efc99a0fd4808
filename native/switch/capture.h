// Packets for an onlooker: copied by the workers where they come in, go out or are dropped, into rings that
// JavaScript reads. Traffic does not wait for it: a record that finds its ring full is counted and not
// written.
//
//   memory   0          64          256                   256 + region
//            +----------+-- ... --+---------------------+---------------------+
//            | asleep   |         | region of worker 0  | region of worker 1  | ...
//            +----------+-- ... --+---------------------+---------------------+
//   region   0     64     128         128 + ring
//            +------+------+-----------+
//            | tail | head | records   |      one producer, one consumer: native/base/record_ring.h
//            +------+------+-----------+
//
//   record   0        4      6           7        8       12         16     24     32     34        36
//            +--------+------+-----------+--------+-------+----------+------+------+------+---------+---+
//            | length | kind | direction | reason | frame | captured | time | rule | port | segment | 0 |
//            +--------+------+-----------+--------+-------+----------+------+------+------+---------+---+
//            40: captured bytes
//
// A superframe is one record with its whole length and the size of its segments. Checksums that are partial
// are finished in the copy, so that who reads it finds them right.
//
// Threads: seen, dropped, settle by the worker whose number is given; the rest by any. Captures (below) says
// when one may go.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "native/base/counter.h"
#include "native/base/record_ring.h"
#include "native/base/result.h"
#include "native/packet/drop_witness.h"
#include "native/pipeline/snapshot.h"
#include "native/pipeline/stage.h"
#include "native/switch/match.h"

namespace penstock::net {

enum class CaptureDirection : uint8_t { in, out, drop };

struct CaptureRecord {
  uint32_t length;
  uint16_t kind;
  CaptureDirection direction;
  uint8_t reason;        // a DropReason
  uint32_t frame_bytes;  // of the whole frame
  uint32_t captured;
  uint64_t time_ns;  // CLOCK_REALTIME
  uint64_t rule;     // that had matched a dropped packet, by its id; 0: none
  PortId port;       // it came from (in, drop) or goes to (out)
  uint16_t segment;  // payload bytes of each segment of a superframe, 0 of others
  uint32_t reserved;
};
static_assert(sizeof(CaptureRecord) == 40);

inline constexpr uint16_t kCapturePacket = 1;
inline constexpr std::size_t kCaptureHeaderBytes = 256;
inline constexpr std::size_t kCaptureHeadOffset = 64;
inline constexpr std::size_t kCaptureRecordsOffset = 128;

struct CaptureOptions {
  uint32_t ring_bytes = 1 << 22;  // of each worker: a power of two, 256 KiB to 256 MiB
  uint32_t snap = kFrameBytesMax;
  bool every_port = false;
  std::vector<PortId> ports;  // when not every one
  bool drops = false;         // of packets that came by these ports; of all when there are none
  // A packet is meant that any of these matches, by its own outermost headers; all when empty.
  std::vector<Match> matches;
};

class Capture {
 public:
  static std::size_t memory_bytes(const CaptureOptions& options, std::size_t workers) {
    return kCaptureHeaderBytes + workers * (kCaptureRecordsOffset + options.ring_bytes);
  }
  // `memory` outlives the capture and is aligned to 16. `wake` is called by a worker when the reader rested.
  // EINVAL for sizes that are not usable.
  static Result<std::unique_ptr<Capture>> open(CaptureOptions options, std::size_t workers,
                                               std::size_t ports_max, std::span<std::byte> memory,
                                               std::function<void()> wake);

  // The packet as it is now, at this port.
  void seen(std::size_t worker, const Packet& packet, PortId port, CaptureDirection direction);
  void dropped(std::size_t worker, const Packet& packet, DropReason reason, uint64_t rule);
  // Shows the reader what was written; once a batch.
  void settle(std::size_t worker);

  // Packets that were meant and found no room, by the port they would have been shown at.
  uint64_t lost(PortId port) const;

 private:
  struct Lane {
    Lane(std::byte* region, uint32_t ring_bytes, std::size_t ports_max);
    RecordRing ring;
    std::unique_ptr<Counter[]> lost;  // by port
  };

  Capture(CaptureOptions options, std::size_t workers, std::size_t ports_max, std::span<std::byte> memory,
          std::function<void()> wake);
  bool at_port(PortId port) const { return every_port_ || (port < chosen_.size() && chosen_[port]); }
  bool meant(const Packet& packet, const Layout& layout, DropReason parsed, PortId port) const;
  void write(std::size_t worker, const Packet& packet, CaptureRecord record);

  const CaptureOptions options_;
  const bool every_port_;
  const std::size_t ports_max_;
  std::vector<bool> chosen_;
  std::atomic<uint32_t>& asleep_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // by worker
  std::function<void()> wake_;
};

using CaptureSet = std::vector<std::shared_ptr<Capture>>;

// The captures in force. Workers read the set once a batch and are done with a capture when `remove` returns.
// Threads: add and remove by the control thread.
class Captures final : public DropWitness {
 public:
  explicit Captures(Quiescence& quiescence)
      : quiescence_(quiescence), set_(std::make_unique<const CaptureSet>()) {}

  // ETIMEDOUT: it is in force (or no longer), but a worker has not moved on.
  Result<void> add(std::shared_ptr<Capture> capture);
  Result<void> remove(const std::shared_ptr<Capture>& capture);
  // Workers, and the control thread.
  const CaptureSet& read() const { return set_.read(); }
  std::size_t size() const { return size_.load(std::memory_order_relaxed); }  // any thread

  void dropped(std::size_t worker, const Packet& packet, DropReason reason) override;

 private:
  Result<void> replace(std::unique_ptr<const CaptureSet> next);

  Quiescence& quiescence_;
  Snapshot<CaptureSet> set_;
  std::atomic<std::size_t> size_{0};
};

// What a stage puts before its outputs while somebody looks: packets that pass are seen, then passed on. Edge
// i is port i's.
class CaptureOutputs final : public Outputs {
 public:
  explicit CaptureOutputs(std::size_t worker) : worker_(worker) {}

  // Between them, everything goes to `outputs`. Whoever drops a packet that a rule matched says so before.
  void begin(Outputs& outputs, const CaptureSet& captures, const Batch& arrived);
  void blame(uint64_t rule) { rule_ = rule; }
  void end();

  void forward(std::size_t edge, Packet* packet) override;
  void drop(Packet* packet, DropReason reason) override;
  PacketPool& pool() override { return outputs_->pool(); }

 private:
  const std::size_t worker_;
  Outputs* outputs_ = nullptr;
  const CaptureSet* captures_ = nullptr;
  uint64_t rule_ = 0;
};

}  // namespace penstock::net

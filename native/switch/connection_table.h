// The connections of a switch: 256 shards by symmetric hash, bounded, surviving every change of
// configuration.
//
//   key --symmetric hash--> shard --hash--> bucket -> node -> connection
//
// Both directions of a plain connection lie in one shard; a translated one may lie in two, which are locked
// in the order of their numbers. Workers come here for the first packet of a flow in their cache and for
// packets that change a state; the rest of a flow touches the connection's own words without a lock (see
// connection.h).
//
// When a shard is full, a connection that never saw an answer makes room, of those that are looked at the one
// closest to its end; when there is none, the new one is refused. Not all are looked at (as in nf_conntrack's
// early drop), but some, and others the next time: who floods a full table must not make each packet cost a
// walk through it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "native/pipeline/quiescence.h"
#include "native/switch/connection.h"

namespace penstock::net {

struct ConnectionLimits {
  uint32_t connections_max = 262144;  // of all shards
};

// Seconds; the defaults are those of Linux's nf_conntrack.
struct ConnectionTimeouts {
  uint32_t tcp_syn_sent = 120, tcp_syn_received = 60, tcp_established = 432000, tcp_fin_wait = 120,
           tcp_last_ack = 30, tcp_time_wait = 120, tcp_closed = 10;
  uint32_t udp_single = 30, udp_stream = 120, icmp = 30, other = 600;
};

// What of a packet matters to a connection.
struct Segment {
  uint8_t tcp_flags = 0;
  uint32_t tcp_sequence = 0;
  uint32_t tcp_acknowledgement = 0;
  uint32_t bytes = 0;
};

// The link addresses of a connection's first packet, and those a translation puts in their place (0: none).
struct Stations {
  Mac source = 0;
  Mac destination = 0;
  Mac translated_source = 0;
  Mac translated_destination = 0;
};

class ConnectionTable {
 public:
  static constexpr std::size_t kShards = 256;

  // `seed`: random, since strangers choose what is hashed.
  ConnectionTable(ConnectionLimits limits, ConnectionTimeouts timeouts, uint64_t seed,
                  Quiescence& quiescence);

  struct Found {
    Connection* connection = nullptr;
    uint64_t id = 0;
    Direction direction = Direction::original;
    bool full = false;  // there is none for lack of room

    explicit operator bool() const { return connection != nullptr; }
  };

  // The live connection this key belongs to. Takes the shard's lock.
  Found find(const ConnectionKey& key, uint32_t now_s);

  // Makes a connection for its first packet, whose answers will carry `reply`. If another worker was faster,
  // its connection. Empty when the shard is `full` or, for a translated one, when `reply` is taken.
  Found create(const ConnectionKey& original, const ConnectionKey& reply, const Stations& stations,
               uint32_t now_s);

  // Takes over a connection of another switch, which ends no later than its state allows here. `kept`: the
  // same one was here already and has counted at least as many packets (it was taken over before, and has
  // gone on here); any other that has one of the tuples ends. `full`: there is no room.
  enum class Restored : uint8_t { added, kept, full };
  Restored restore(const ConnectionSnapshot& snapshot, uint32_t now_s);

  // Accounts a packet and moves the state; false: the packet cannot belong to the connection (counted as
  // invalid).
  bool advance(const Found& found, const Segment& segment, uint32_t now_s);

  // Adds packets that others have forwarded, and sets its end as they would have. What each side has
  // acknowledged is unknown from now on.
  void account(const Found& found, uint64_t packets, uint64_t bytes, uint32_t now_s);

  // Ends connections whose time has come, in `shards` shards from where the last call stopped; how many.
  std::size_t expire(uint32_t now_s, std::size_t shards = kShards);
  std::size_t remove_if(const std::function<bool(const Connection&)>& gone);
  // Calls with each live connection under its shard's lock.
  void for_each(const std::function<void(const Connection&)>& visit);

  std::size_t size() const { return size_.load(std::memory_order_relaxed); }
  uint64_t created() const { return created_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }
  uint64_t dropped_early() const { return dropped_early_.load(std::memory_order_relaxed); }
  uint64_t invalid() const { return invalid_.load(std::memory_order_relaxed); }
  const ConnectionTimeouts& timeouts() const { return timeouts_; }

 private:
  static constexpr std::size_t kChunk = 64;
  // So many are looked at for one that makes room.
  static constexpr std::size_t kChunksLookedAt = 4;

  struct alignas(64) Shard {
    std::mutex lock;
    std::vector<Connection::Node*> buckets;
    std::vector<std::unique_ptr<Connection[]>> chunks;
    std::deque<std::pair<Connection*, uint64_t>> ended;  // and the mark after which each is free
    uint32_t connections = 0;
    std::size_t looked_at = 0;  // the chunk that is looked at next for one that makes room
    uint32_t swept_s = 0;       // when room was last looked for among those that have expired
  };

  class Locks;

  Shard& shard_of(const ConnectionKey& key) { return shards_[symmetric_hash(key, seed_) >> 24]; }
  Connection::Node* locate(Shard& shard, const ConnectionKey& key, uint64_t hash, uint32_t now_s);
  Connection* allocate(Shard& shard, std::size_t index);
  Connection* victim(Shard& shard, uint32_t now_s);
  uint64_t place(Shard& home, Shard& other, Connection& connection, const ConnectionSnapshot& snapshot,
                 uint32_t expires_s);
  void end(const ConnectionKey& key, uint32_t now_s);
  bool end(Connection& connection, uint64_t id);
  void link(Shard& shard, Connection::Node& node);
  void unlink(Shard& shard, Connection::Node& node);
  void remove(Connection& connection);
  bool make_room(std::size_t shard_index, uint32_t now_s);
  std::size_t sweep(std::size_t shard_index, const std::function<bool(const Connection&)>& gone);
  bool advance_tcp(Connection& connection, Direction direction, const Segment& segment);
  uint32_t timeout_of(const Connection& connection) const;

  ConnectionTimeouts timeouts_;
  uint64_t seed_;
  Quiescence& quiescence_;
  uint32_t per_shard_max_;
  std::unique_ptr<std::array<Shard, kShards>> storage_;
  std::array<Shard, kShards>& shards_;
  std::atomic<std::size_t> sweep_next_{0};
  std::atomic<uint64_t> next_id_{1};
  std::atomic<std::size_t> size_{0};
  std::atomic<uint64_t> created_{0};
  std::atomic<uint64_t> refused_{0};
  std::atomic<uint64_t> dropped_early_{0};
  std::atomic<uint64_t> invalid_{0};
};

}  // namespace penstock::net

#include "native/switch/connection_table.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

TcpState state_of(const Connection& connection) {
  return static_cast<TcpState>(connection.tcp_state.load(std::memory_order_relaxed));
}

// RFC 1982 order of 32-bit sequence numbers.
bool before(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a - b) < 0;
}

// Counters are added to by the worker of the flow; two workers meeting here lose a count, never corrupt one.
void add(std::atomic<uint64_t>& counter, uint64_t amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

// Whether the connection has counted at least the packets of the snapshot, both ways.
bool has_seen(const Connection& connection, const ConnectionSnapshot& snapshot) {
  for (std::size_t i = 0; i < 2; ++i)
    if (connection.packets[i].load(std::memory_order_relaxed) < snapshot.packets[i]) return false;
  return true;
}

}  // namespace

// Locks one shard, or two in the order of their addresses.
class ConnectionTable::Locks {
 public:
  Locks(Shard& a, Shard& b) : first_(std::min(&a, &b)), second_(std::max(&a, &b)) {
    first_->lock.lock();
    if (second_ != first_) second_->lock.lock();
  }
  ~Locks() {
    if (second_ != first_) second_->lock.unlock();
    first_->lock.unlock();
  }
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;

 private:
  Shard* first_;
  Shard* second_;
};

ConnectionTable::ConnectionTable(ConnectionLimits limits, ConnectionTimeouts timeouts, uint64_t seed,
                                 Quiescence& quiescence)
    : timeouts_(timeouts),
      seed_(seed),
      quiescence_(quiescence),
      per_shard_max_(std::max<uint32_t>(1, limits.connections_max / kShards)),
      storage_(std::make_unique<std::array<Shard, kShards>>()),
      shards_(*storage_) {
  for (Shard& shard : shards_) shard.buckets.resize(std::bit_ceil(std::size_t{per_shard_max_} * 2), nullptr);
}

Connection::Node* ConnectionTable::locate(Shard& shard, const ConnectionKey& key, uint64_t hash,
                                          uint32_t now_s) {
  for (Connection::Node* node = shard.buckets[hash & (shard.buckets.size() - 1)]; node != nullptr;
       node = node->next) {
    if (node->hash != hash || !(node->connection->key(node->direction) == key)) continue;
    // One that has expired and was not swept yet is as good as gone.
    return before(node->connection->expires_s.load(std::memory_order_relaxed), now_s) ? nullptr : node;
  }
  return nullptr;
}

ConnectionTable::Found ConnectionTable::find(const ConnectionKey& key, uint32_t now_s) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.lock);
  const Connection::Node* node = locate(shard, key, directed_hash(key, seed_), now_s);
  if (node == nullptr) return {};
  return Found{node->connection, node->connection->id.load(std::memory_order_relaxed), node->direction};
}

void ConnectionTable::link(Shard& shard, Connection::Node& node) {
  Connection::Node*& head = shard.buckets[node.hash & (shard.buckets.size() - 1)];
  node.next = head;
  head = &node;
}

void ConnectionTable::unlink(Shard& shard, Connection::Node& node) {
  Connection::Node** at = &shard.buckets[node.hash & (shard.buckets.size() - 1)];
  while (*at != &node) {
    assert(*at != nullptr);
    at = &(*at)->next;
  }
  *at = node.next;
  node.next = nullptr;
}

// Both shards of the connection are locked by the caller.
void ConnectionTable::remove(Connection& connection) {
  connection.id.store(0, std::memory_order_release);
  unlink(shard_of(connection.original), connection.nodes[0]);
  unlink(shard_of(connection.reply), connection.nodes[1]);
  Shard& home = shards_[connection.home_shard];
  home.ended.emplace_back(&connection, quiescence_.retire());
  --home.connections;
  size_.fetch_sub(1, std::memory_order_relaxed);
}

// A free connection of the shard, which the caller has locked; null when the shard has its share. What has
// ended and may still be looked at is not counted: a burst of endings costs memory for a moment, not
// connections.
Connection* ConnectionTable::allocate(Shard& shard, std::size_t index) {
  if (shard.connections == per_shard_max_) return nullptr;
  if (shard.ended.empty() || !quiescence_.passed(shard.ended.front().second)) {
    shard.chunks.push_back(std::make_unique<Connection[]>(kChunk));
    for (std::size_t i = 0; i < kChunk; ++i) {
      Connection& connection = shard.chunks.back()[i];
      connection.home_shard = static_cast<uint16_t>(index);
      shard.ended.emplace_front(&connection, 0);
    }
  }
  Connection* connection = shard.ended.front().first;
  shard.ended.pop_front();
  ++shard.connections;
  return connection;
}

// The first chunk with one that may go decides. The shard is locked by the caller.
Connection* ConnectionTable::victim(Shard& shard, uint32_t now_s) {
  Connection* soonest = nullptr;
  const std::size_t chunks = std::min(kChunksLookedAt, shard.chunks.size());
  for (std::size_t looked = 0; looked < chunks && soonest == nullptr; ++looked) {
    const auto& chunk = shard.chunks[shard.looked_at++ % shard.chunks.size()];
    for (std::size_t i = 0; i < kChunk; ++i) {
      Connection& connection = chunk[i];
      if (connection.id.load(std::memory_order_relaxed) == 0) continue;
      const uint32_t expires_s = connection.expires_s.load(std::memory_order_relaxed);
      if (connection.replied.load(std::memory_order_relaxed) && !before(expires_s, now_s)) continue;
      if (soonest == nullptr || before(expires_s, soonest->expires_s.load(std::memory_order_relaxed)))
        soonest = &connection;
    }
  }
  return soonest;
}

// Ends what has expired in the shard, once a second, else one connection that never saw an answer. No lock is
// held by the caller, since the victim's other tuple may lie in any shard.
bool ConnectionTable::make_room(std::size_t shard_index, uint32_t now_s) {
  const auto expired = [now_s](const Connection& connection) {
    return before(connection.expires_s.load(std::memory_order_relaxed), now_s);
  };
  Shard& shard = shards_[shard_index];
  bool due = false;
  {
    const std::lock_guard lock(shard.lock);
    due = std::exchange(shard.swept_s, now_s) != now_s;
  }
  if (due && sweep(shard_index, expired) > 0) return true;
  Connection* chosen;
  uint64_t id;
  {
    const std::lock_guard lock(shard.lock);
    chosen = victim(shard, now_s);
    if (chosen == nullptr) return false;
    id = chosen->id.load(std::memory_order_relaxed);
  }
  if (!end(*chosen, id)) return false;
  dropped_early_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// Makes the free `connection` what the snapshot says; its id. Both shards are locked by the caller.
uint64_t ConnectionTable::place(Shard& home, Shard& other, Connection& connection,
                                const ConnectionSnapshot& snapshot, uint32_t expires_s) {
  const uint64_t id = next_id_.fetch_add(1, std::memory_order_relaxed);
  connection.original = snapshot.original;
  connection.reply = snapshot.reply;
  connection.translated = !(snapshot.reply == snapshot.original.reversed());
  connection.tcp_state.store(snapshot.tcp_state, std::memory_order_relaxed);
  connection.replied.store(snapshot.replied, std::memory_order_relaxed);
  connection.fin_seen.store(snapshot.fin_seen, std::memory_order_relaxed);
  for (std::size_t i = 0; i < 2; ++i) {
    connection.ack_max[i].store(snapshot.ack_max[i], std::memory_order_relaxed);
    connection.packets[i].store(snapshot.packets[i], std::memory_order_relaxed);
    connection.bytes[i].store(snapshot.bytes[i], std::memory_order_relaxed);
  }
  connection.admitted.store(0, std::memory_order_relaxed);
  connection.mark.store(snapshot.mark, std::memory_order_relaxed);
  connection.offloaded.store(false, std::memory_order_relaxed);
  connection.source_mac = snapshot.source_mac;
  connection.destination_mac = snapshot.destination_mac;
  connection.translated_source_mac = snapshot.translated_source_mac;
  connection.translated_destination_mac = snapshot.translated_destination_mac;
  connection.expires_s.store(expires_s, std::memory_order_relaxed);
  connection.nodes[0] =
      Connection::Node{&connection, nullptr, directed_hash(snapshot.original, seed_), Direction::original};
  connection.nodes[1] =
      Connection::Node{&connection, nullptr, directed_hash(snapshot.reply, seed_), Direction::reply};
  link(home, connection.nodes[0]);
  link(other, connection.nodes[1]);
  connection.id.store(id, std::memory_order_release);
  size_.fetch_add(1, std::memory_order_relaxed);
  return id;
}

ConnectionTable::Found ConnectionTable::create(const ConnectionKey& original, const ConnectionKey& reply,
                                               const Stations& stations, uint32_t now_s) {
  Shard& home = shard_of(original);
  Shard& other = shard_of(reply);
  const auto home_index = static_cast<std::size_t>(&home - shards_.data());
  const uint64_t original_hash = directed_hash(original, seed_);
  const uint64_t reply_hash = directed_hash(reply, seed_);
  const ConnectionSnapshot fresh{.original = original,
                                 .reply = reply,
                                 .source_mac = stations.source,
                                 .destination_mac = stations.destination,
                                 .translated_source_mac = stations.translated_source,
                                 .translated_destination_mac = stations.translated_destination};
  for (int attempt = 0; attempt < 2; ++attempt) {
    {
      const Locks locks(home, other);
      if (const Connection::Node* node = locate(home, original, original_hash, now_s))
        return Found{node->connection, node->connection->id.load(std::memory_order_relaxed), node->direction};
      if (locate(other, reply, reply_hash, now_s) != nullptr) return {};
      if (Connection* connection = allocate(home, home_index)) {
        const uint64_t id = place(home, other, *connection, fresh, now_s + timeouts_.tcp_syn_sent);
        created_.fetch_add(1, std::memory_order_relaxed);
        return Found{connection, id, Direction::original};
      }
    }
    if (attempt > 0 || !make_room(home_index, now_s)) break;
  }
  refused_.fetch_add(1, std::memory_order_relaxed);
  Found none;
  none.full = true;
  return none;
}

// Ends the connection that one of whose tuples is `key`, if there is one. No lock is held by the caller.
void ConnectionTable::end(const ConnectionKey& key, uint32_t now_s) {
  if (const Found found = find(key, now_s)) end(*found.connection, found.id);
}

// False: it has ended meanwhile. No lock is held by the caller.
bool ConnectionTable::end(Connection& connection, uint64_t id) {
  Shard& home = shards_[connection.home_shard];
  ConnectionKey reply;
  {
    // The key changes only under the lock of this shard, for one that then has another id.
    const std::lock_guard lock(home.lock);
    if (connection.id.load(std::memory_order_relaxed) != id) return false;
    reply = connection.reply;
  }
  const Locks locks(home, shard_of(reply));
  if (connection.id.load(std::memory_order_relaxed) != id) return false;
  remove(connection);
  return true;
}

ConnectionTable::Restored ConnectionTable::restore(const ConnectionSnapshot& snapshot, uint32_t now_s) {
  Shard& home = shard_of(snapshot.original);
  Shard& other = shard_of(snapshot.reply);
  const auto home_index = static_cast<std::size_t>(&home - shards_.data());
  bool full = false;
  // A worker may open one of its tuples again between the ending of the last and the next look.
  for (int attempt = 0; attempt < 4; ++attempt) {
    if (full && !make_room(home_index, now_s)) break;
    full = false;
    {
      const Locks locks(home, other);
      const Connection::Node* mine =
          locate(home, snapshot.original, directed_hash(snapshot.original, seed_), now_s);
      const Connection::Node* answers =
          locate(other, snapshot.reply, directed_hash(snapshot.reply, seed_), now_s);
      if (mine == nullptr && answers == nullptr) {
        Connection* connection = allocate(home, home_index);
        if (connection != nullptr) {
          place(home, other, *connection, snapshot, now_s);
          const uint32_t most = timeout_of(*connection);
          connection->expires_s.store(now_s + std::min(snapshot.expires_seconds, most),
                                      std::memory_order_relaxed);
          return Restored::added;
        }
        full = true;
      } else if (mine != nullptr && answers != nullptr && mine->connection == answers->connection &&
                 mine->direction == Direction::original && has_seen(*mine->connection, snapshot)) {
        return Restored::kept;
      }
    }
    if (full) continue;
    end(snapshot.original, now_s);
    end(snapshot.reply, now_s);
  }
  refused_.fetch_add(1, std::memory_order_relaxed);
  return Restored::full;
}

ConnectionSnapshot snapshot_of(const Connection& connection, uint32_t now_s) {
  const uint32_t expires_s = connection.expires_s.load(std::memory_order_relaxed);
  ConnectionSnapshot snapshot{.original = connection.original,
                              .reply = connection.reply,
                              .tcp_state = connection.tcp_state.load(std::memory_order_relaxed),
                              .replied = connection.replied.load(std::memory_order_relaxed),
                              .fin_seen = connection.fin_seen.load(std::memory_order_relaxed),
                              .expires_seconds = before(now_s, expires_s) ? expires_s - now_s : 0,
                              .mark = connection.mark.load(std::memory_order_relaxed),
                              .source_mac = connection.source_mac,
                              .destination_mac = connection.destination_mac,
                              .translated_source_mac = connection.translated_source_mac,
                              .translated_destination_mac = connection.translated_destination_mac};
  for (std::size_t i = 0; i < 2; ++i) {
    snapshot.ack_max[i] = connection.ack_max[i].load(std::memory_order_relaxed);
    snapshot.packets[i] = connection.packets[i].load(std::memory_order_relaxed);
    snapshot.bytes[i] = connection.bytes[i].load(std::memory_order_relaxed);
  }
  return snapshot;
}

uint32_t ConnectionTable::timeout_of(const Connection& connection) const {
  const bool replied = connection.replied.load(std::memory_order_relaxed);
  switch (connection.original.protocol) {
    case kIpUdp:
      return replied ? timeouts_.udp_stream : timeouts_.udp_single;
    case kIpIcmp:
    case kIpIcmp6:
      return timeouts_.icmp;
    case kIpTcp:
      break;
    default:
      return timeouts_.other;
  }
  switch (state_of(connection)) {
    case TcpState::none:
    case TcpState::syn_sent:
      return timeouts_.tcp_syn_sent;
    case TcpState::syn_received:
      return timeouts_.tcp_syn_received;
    case TcpState::established:
      return replied ? timeouts_.tcp_established : timeouts_.tcp_syn_sent;
    case TcpState::fin_wait:
      return timeouts_.tcp_fin_wait;
    case TcpState::last_ack:
      return timeouts_.tcp_last_ack;
    case TcpState::time_wait:
      return timeouts_.tcp_time_wait;
    case TcpState::closed:
      return timeouts_.tcp_closed;
  }
  return timeouts_.other;
}

bool ConnectionTable::advance(const Found& found, const Segment& segment, uint32_t now_s) {
  Connection& connection = *found.connection;
  const auto side = static_cast<std::size_t>(found.direction);
  if (connection.original.protocol == kIpTcp && !advance_tcp(connection, found.direction, segment)) {
    invalid_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  if (found.direction == Direction::reply && !connection.replied.load(std::memory_order_relaxed))
    connection.replied.store(true, std::memory_order_relaxed);
  add(connection.packets[side], 1);
  add(connection.bytes[side], segment.bytes);
  const uint32_t expires = now_s + timeout_of(connection);
  if (connection.expires_s.load(std::memory_order_relaxed) != expires)
    connection.expires_s.store(expires, std::memory_order_relaxed);
  return true;
}

void ConnectionTable::account(const Found& found, uint64_t packets, uint64_t bytes, uint32_t now_s) {
  Connection& connection = *found.connection;
  if (connection.id.load(std::memory_order_acquire) != found.id) return;
  const auto side = static_cast<std::size_t>(found.direction);
  add(connection.packets[side], packets);
  add(connection.bytes[side], bytes);
  for (auto& acknowledged : connection.ack_max) acknowledged.store(0, std::memory_order_relaxed);
  connection.expires_s.store(now_s + timeout_of(connection), std::memory_order_relaxed);
}

// The transitions follow nf_conntrack_proto_tcp.c's table as far as it does not need windows. A reset counts
// only at or after what the other side has acknowledged, so that a forged one from off the path is unlikely
// to end a connection.
bool ConnectionTable::advance_tcp(Connection& connection, Direction direction, const Segment& segment) {
  const auto side = static_cast<std::size_t>(direction);
  const uint8_t flags = segment.tcp_flags;
  const TcpState state = state_of(connection);
  if ((flags & kTcpAck) != 0 && (flags & kTcpRst) == 0) {
    const uint32_t known = connection.ack_max[side].load(std::memory_order_relaxed);
    if (known == 0 || before(known, segment.tcp_acknowledgement))
      connection.ack_max[side].store(segment.tcp_acknowledgement, std::memory_order_relaxed);
  }
  // The common packet of an open connection changes nothing.
  if (state == TcpState::established && (flags & (kTcpSyn | kTcpFin | kTcpRst)) == 0) return true;

  Shard& shard = shard_of(connection.original);
  const std::lock_guard lock(shard.lock);
  TcpState next = state_of(connection);
  uint8_t fins = connection.fin_seen.load(std::memory_order_relaxed);
  if ((flags & kTcpRst) != 0) {
    const uint32_t acknowledged = connection.ack_max[1 - side].load(std::memory_order_relaxed);
    if (acknowledged != 0 && before(segment.tcp_sequence, acknowledged)) return false;
    next = TcpState::closed;
  } else if ((flags & kTcpSyn) != 0) {
    const bool answer = (flags & kTcpAck) != 0;
    if (!answer && direction == Direction::original) {
      // A new connection may take the tuple of one that is over.
      const bool over = next == TcpState::time_wait || next == TcpState::closed || next == TcpState::last_ack;
      if (over) {
        fins = 0;
        connection.replied.store(false, std::memory_order_relaxed);
        for (auto& ack : connection.ack_max) ack.store(0, std::memory_order_relaxed);
      }
      if (over || next == TcpState::none) next = TcpState::syn_sent;
    } else if (answer && direction == Direction::reply && next == TcpState::syn_sent) {
      next = TcpState::syn_received;
    } else if (!answer && direction == Direction::reply && next == TcpState::syn_sent) {
      next = TcpState::syn_received;  // simultaneous open
    } else if (next == TcpState::none) {
      next = TcpState::syn_received;  // picked up at the answer
    }
  } else {
    if (next == TcpState::none) next = TcpState::established;  // picked up in the middle
    if (next == TcpState::syn_received && (flags & kTcpAck) != 0) next = TcpState::established;
    if (next == TcpState::syn_sent && direction == Direction::original && (flags & kTcpAck) != 0 &&
        connection.replied.load(std::memory_order_relaxed))
      next = TcpState::established;
    if (next == TcpState::last_ack && (flags & kTcpAck) != 0 && (flags & kTcpFin) == 0)
      next = TcpState::time_wait;
    if ((flags & kTcpFin) != 0) {
      fins = static_cast<uint8_t>(fins | 1u << side);
      if (next != TcpState::time_wait) next = fins == 3 ? TcpState::last_ack : TcpState::fin_wait;
    }
  }
  connection.fin_seen.store(fins, std::memory_order_relaxed);
  connection.tcp_state.store(static_cast<uint8_t>(next), std::memory_order_relaxed);
  return true;
}

std::size_t ConnectionTable::sweep(std::size_t shard_index,
                                   const std::function<bool(const Connection&)>& gone) {
  Shard& shard = shards_[shard_index];
  std::size_t removed = 0;
  std::size_t chunk = 0;
  // One chunk at a time: the lock is dropped between them, and for translated connections taken anew with its
  // partner.
  for (;; ++chunk) {
    std::vector<std::pair<Connection*, uint64_t>> elsewhere;
    {
      const std::lock_guard lock(shard.lock);
      if (chunk >= shard.chunks.size()) return removed;
      for (std::size_t i = 0; i < kChunk; ++i) {
        Connection& connection = shard.chunks[chunk][i];
        const uint64_t id = connection.id.load(std::memory_order_relaxed);
        if (id == 0 || !gone(connection)) continue;
        if (&shard_of(connection.reply) != &shard) {
          elsewhere.emplace_back(&connection, id);
          continue;
        }
        remove(connection);
        ++removed;
      }
    }
    for (const auto& [connection, id] : elsewhere) {
      // The keys can be read: they change only under the lock of this shard, by one that then has another id.
      ConnectionKey reply;
      {
        const std::lock_guard lock(shard.lock);
        if (connection->id.load(std::memory_order_relaxed) != id) continue;
        reply = connection->reply;
      }
      const Locks locks(shard, shard_of(reply));
      if (connection->id.load(std::memory_order_relaxed) != id || !gone(*connection)) continue;
      remove(*connection);
      ++removed;
    }
  }
}

std::size_t ConnectionTable::expire(uint32_t now_s, std::size_t shards) {
  std::size_t removed = 0;
  for (std::size_t i = 0; i < shards; ++i) {
    const std::size_t index = sweep_next_.fetch_add(1, std::memory_order_relaxed) % kShards;
    removed += sweep(index, [now_s](const Connection& connection) {
      return before(connection.expires_s.load(std::memory_order_relaxed), now_s);
    });
  }
  return removed;
}

std::size_t ConnectionTable::remove_if(const std::function<bool(const Connection&)>& gone) {
  std::size_t removed = 0;
  for (std::size_t i = 0; i < kShards; ++i) removed += sweep(i, gone);
  return removed;
}

void ConnectionTable::for_each(const std::function<void(const Connection&)>& visit) {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.lock);
    for (const auto& chunk : shard.chunks)
      for (std::size_t i = 0; i < kChunk; ++i)
        if (chunk[i].id.load(std::memory_order_relaxed) != 0) visit(chunk[i]);
  }
}

}  // namespace penstock::net

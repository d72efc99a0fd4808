// Where the next frame is read to: a packet's head, then body space, in one scatter list.
//
//   space():  | head 1792 B | rest of the current body | fresh body, 64 KiB, when that rest is too small |
//
// Frames that exceed their heads share bodies one after the other, so a batch of 9000-byte frames takes five
// bodies and not thirty-two. Lives as long as one receive; every body it fills it also references, so that a
// packet dropped on the way can't free the body under it.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <span>

#include "native/packet/packet_pool.h"

namespace penstock::net {

class Ingress {
 public:
  explicit Ingress(PacketPool& pool) : pool_(pool) {}
  ~Ingress() {
    let_go(current_);
    let_go(fresh_);
    if (packet_ != nullptr) PacketPool::release(packet_);
  }
  Ingress(const Ingress&) = delete;
  Ingress& operator=(const Ingress&) = delete;

  // Space for one more frame of up to kHeadCapacity + kBodyCapacity bytes; false: the pool is empty.
  bool prepare() {
    if (packet_ == nullptr) packet_ = pool_.take();
    if (packet_ == nullptr) return false;
    if (current_ == nullptr) current_ = hold_new();
    if (current_ == nullptr) return false;
    const std::size_t rest = kBodyCapacity - current_->used;
    if (rest < kBodyCapacity && fresh_ == nullptr) fresh_ = hold_new();
    if (rest < kBodyCapacity && fresh_ == nullptr) return false;
    pieces_ = 0;
    space_[pieces_++] = {packet_->storage + kHeadroom, kHeadCapacity};
    if (rest > 0) space_[pieces_++] = {current_->bytes + current_->used, rest};
    if (fresh_ != nullptr) space_[pieces_++] = {fresh_->bytes, kBodyCapacity};
    return true;
  }

  std::span<const iovec> space() const { return {space_.data(), pieces_}; }

  // The frame whose first `bytes` were written to space(); null when no slice could be had for its body.
  Packet* take(std::size_t bytes) {
    Packet* packet = std::exchange(packet_, nullptr);
    packet->head_length = static_cast<uint32_t>(std::min(bytes, kHeadCapacity));
    std::size_t left = bytes - packet->head_length;
    bool held = fill(*packet, current_, left);
    if (held && left > 0) {
      let_go(std::exchange(current_, std::exchange(fresh_, nullptr)));
      held = fill(*packet, current_, left);
    }
    if (held) return packet;
    PacketPool::release(packet);
    return nullptr;
  }

 private:
  BodyBuffer* hold_new() {
    BodyBuffer* body = pool_.take_body();
    if (body != nullptr) body->references = 1;
    return body;
  }

  void let_go(BodyBuffer* body) {
    if (body != nullptr && --body->references == 0) pool_.put_back(body);
  }

  bool fill(Packet& packet, BodyBuffer* body, std::size_t& left) {
    const std::size_t offset = body->used;
    const std::size_t length = std::min(left, kBodyCapacity - offset);
    if (length == 0) return true;
    body->used += static_cast<uint32_t>(length);
    left -= length;
    return pool_.append(packet, body, static_cast<uint32_t>(offset), static_cast<uint32_t>(length));
  }

  PacketPool& pool_;
  Packet* packet_ = nullptr;
  BodyBuffer* current_ = nullptr;
  BodyBuffer* fresh_ = nullptr;
  std::array<iovec, 3> space_{};
  std::size_t pieces_ = 0;
};

}  // namespace penstock::net

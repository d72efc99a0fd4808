#include "native/packet/packet_pool.h"

#include <algorithm>
#include <new>
#include <utility>

namespace penstock::net {
namespace {

// The address of a thread-local tells threads apart without a system call.
const void* this_thread() {
  thread_local const char mark = 0;
  return &mark;
}

constexpr std::size_t kPage = 4096;
constexpr std::size_t kTableBytes = kSlicesMax * sizeof(BodySlice);

}  // namespace

Result<std::unique_ptr<PacketPool>> PacketPool::create(PoolSizes sizes) {
  auto pool = std::unique_ptr<PacketPool>(new PacketPool(sizes));
  const std::size_t length =
      sizes.packets * sizeof(Packet) + sizes.bodies * sizeof(BodyBuffer) + sizes.slice_tables * kTableBytes;
  try {
    pool->memory_ = LargeMemory(length);
  } catch (const std::bad_alloc&) {
    return Error::from_errno(ENOMEM, "map memory for packet buffers");
  }
  std::byte* at = pool->memory_.data();
  for (std::size_t page = 0; page < length; page += kPage) *static_cast<volatile std::byte*>(at + page) = {};
  for (uint32_t i = 0; i < sizes.packets; ++i, at += sizeof(Packet)) {
    auto* packet = ::new (at) Packet;
    packet->home = pool.get();
    packet->next = pool->free_;
    pool->free_ = packet;
  }
  pool->free_packets_ = sizes.packets;
  for (uint32_t i = 0; i < sizes.bodies; ++i, at += sizeof(BodyBuffer)) {
    auto* body = reinterpret_cast<BodyBuffer*>(at);
    ::new (body) BodyBuffer;
    body->home = pool.get();
    body->next_free = pool->free_body_;
    pool->free_body_ = body;
  }
  pool->free_bodies_ = sizes.bodies;
  pool->free_tables_.reserve(sizes.slice_tables);
  for (uint32_t i = 0; i < sizes.slice_tables; ++i, at += kTableBytes)
    pool->free_tables_.push_back(reinterpret_cast<BodySlice*>(at));
  return pool;
}

void PacketPool::adopt() {
  owner_ = this_thread();
}

Packet* PacketPool::take() {
  assert(owner_ == this_thread());
  if (free_ == nullptr && collect() == 0) return nullptr;
  Packet* packet = free_;
  free_ = packet->next;
  --free_packets_;
  packet->next = nullptr;
  packet->head_offset = kHeadroom;
  packet->head_length = 0;
  packet->body_length = 0;
  packet->slice_count = 0;
  packet->ingress = kNoPort;
  packet->stream = 0;
  packet->vni = 0;
  packet->sequence = 0;
  packet->flow_hash = 0;
  packet->drop = DropReason::none;
  packet->traced = false;
  packet->mark = 0;
  packet->punted_from = kNoPort;
  packet->offload = Offload{};
  packet->layout = Layout{};
  return packet;
}

BodyBuffer* PacketPool::take_body() {
  assert(owner_ == this_thread());
  if (free_body_ == nullptr) collect();
  if (free_body_ == nullptr) return nullptr;
  BodyBuffer* body = free_body_;
  free_body_ = body->next_free;
  --free_bodies_;
  body->next_free = nullptr;
  assert(body->references == 0);
  body->used = 0;
  return body;
}

void PacketPool::put_back(BodyBuffer* body) {
  assert(body->home == this && body->references == 0);
  body->next_free = free_body_;
  free_body_ = body;
  ++free_bodies_;
}

bool PacketPool::append(Packet& packet, BodyBuffer* body, uint32_t offset, uint32_t length) {
  assert(owner_ == this_thread() && packet.home == this && body->home == this);
  assert(offset + length <= body->used);
  if (packet.slice_count > 0) {
    BodySlice& last = const_cast<BodySlice&>(packet.slices().back());  // the packet's own
    if (last.buffer == body && last.offset + last.length == offset) {
      last.length += length;
      packet.body_length += length;
      return true;
    }
  }
  if (packet.slice_count == kSlicesMax) return false;
  if (packet.slice_count == kSlicesInline) {
    if (free_tables_.empty()) return false;
    packet.slices_more = free_tables_.back();
    free_tables_.pop_back();
    std::memcpy(packet.slices_more, packet.slices_inline.data(), sizeof(packet.slices_inline));
  }
  BodySlice* slices = packet.slice_count < kSlicesInline ? packet.slices_inline.data() : packet.slices_more;
  slices[packet.slice_count++] = BodySlice{body, offset, length};
  packet.body_length += length;
  ++body->references;
  return true;
}

Packet* PacketPool::from_bytes(std::span<const std::byte> frame) {
  assert(frame.size() <= kHeadCapacity + kBodyCapacity);
  Packet* packet = take();
  if (packet == nullptr) return nullptr;
  const auto head = frame.first(std::min(frame.size(), kHeadCapacity));
  std::memcpy(packet->data(), head.data(), head.size());
  packet->head_length = static_cast<uint32_t>(head.size());
  const auto rest = frame.subspan(head.size());
  if (rest.empty()) return packet;
  BodyBuffer* body = take_body();
  if (body == nullptr) {
    release_home(packet);
    return nullptr;
  }
  std::memcpy(body->bytes, rest.data(), rest.size());
  body->used = static_cast<uint32_t>(rest.size());
  if (!append(*packet, body, 0, body->used)) assert(false);  // an empty packet takes a first slice
  return packet;
}

void PacketPool::copy_head(Packet& twin, const Packet& packet) {
  twin.head_offset = packet.head_offset;
  twin.head_length = packet.head_length;
  twin.inherit(packet);
  twin.offload = packet.offload;
  std::memcpy(twin.data(), packet.data(), packet.head_length);
}

Packet* PacketPool::share(const Packet& packet) {
  assert(packet.home == this);
  Packet* twin = take();
  if (twin == nullptr) return nullptr;
  for (const BodySlice& slice : packet.slices()) {
    if (append(*twin, slice.buffer, slice.offset, slice.length)) continue;
    release_home(twin);
    return nullptr;
  }
  copy_head(*twin, packet);
  return twin;
}

Packet* PacketPool::copy(const Packet& packet) {
  Packet* twin = take();
  if (twin == nullptr) return nullptr;
  if (packet.body_length > 0) {
    BodyBuffer* body = take_body();
    if (body == nullptr || packet.body_length > kBodyCapacity) {
      if (body != nullptr) put_back(body);
      release_home(twin);
      return nullptr;
    }
    for (const BodySlice& slice : packet.slices()) {
      std::memcpy(body->bytes + body->used, slice.bytes().data(), slice.length);
      body->used += slice.length;
    }
    if (!append(*twin, body, 0, body->used)) assert(false);  // an empty packet takes a first slice
  }
  copy_head(*twin, packet);
  return twin;
}

void PacketPool::release_body(BodyBuffer* body) {
  assert(body->references > 0);
  if (--body->references == 0) put_back(body);
}

void PacketPool::release_home(Packet* packet) {
  for (const BodySlice& slice : packet->slices()) release_body(slice.buffer);
  if (packet->slice_count > kSlicesInline) free_tables_.push_back(packet->slices_more);
  packet->slice_count = 0;
  packet->next = free_;
  free_ = packet;
  ++free_packets_;
}

void PacketPool::release(Packet* packet) {
  PacketPool* home = packet->home;
  if (home->owner_ == this_thread()) return home->release_home(packet);
  Packet* top = home->returned_.load(std::memory_order_relaxed);
  do packet->next = top;
  while (!home->returned_.compare_exchange_weak(top, packet, std::memory_order_release,
                                                std::memory_order_relaxed));
}

void PacketPool::release(BodyBuffer* body) {
  PacketPool* home = body->home;
  if (home->owner_ == this_thread()) return home->release_body(body);
  BodyBuffer* top = home->returned_bodies_.load(std::memory_order_relaxed);
  do body->next_free = top;
  while (!home->returned_bodies_.compare_exchange_weak(top, body, std::memory_order_release,
                                                       std::memory_order_relaxed));
}

std::size_t PacketPool::collect() {
  BodyBuffer* body = returned_bodies_.exchange(nullptr, std::memory_order_acquire);
  while (body != nullptr) {
    BodyBuffer* next = std::exchange(body->next_free, nullptr);
    release_body(body);
    body = next;
  }
  Packet* packet = returned_.exchange(nullptr, std::memory_order_acquire);
  std::size_t count = 0;
  for (; packet != nullptr; ++count) {
    Packet* next = packet->next;
    release_home(packet);
    packet = next;
  }
  return count;
}

}  // namespace penstock::net

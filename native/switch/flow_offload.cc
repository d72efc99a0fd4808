#include "native/switch/flow_offload.h"

#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <unordered_set>

#include "native/base/checksum.h"
#include "native/base/clock.h"
#include "native/bpf/system.h"
#include "native/packet/wire.h"
#include "native/port/link.h"
#include "native/port/netlink.h"
#include "native/port/underlay.h"
#include "native/switch/mac.h"

namespace penstock::net {
namespace {

constexpr int kSweepMs = 1000;
// Statistics that are asked for more often show what was read last.
constexpr uint64_t kFreshNs = 50'000'000;
constexpr uint32_t kReadAtOnce = 4096;
constexpr std::size_t kOffersAtOnce = 64;
constexpr int kLoopback = 1;  // its index in every namespace

uint32_t seconds_now() {
  return static_cast<uint32_t>(monotonic_ns() / 1'000'000'000);
}

// What of the outer IPv4 header is the same for every packet (offload_record.h).
uint32_t network_sum(uint32_t source, uint32_t destination) {
  struct {
    uint8_t start[12] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0};
    uint32_t source, destination;
  } header{.source = source, .destination = destination};
  static_assert(sizeof(header) == 20);
  return checksum_fold(checksum_sum(std::as_bytes(std::span(&header, 1))));
}

Mac mac_at(const bpf::OffloadKey& key, std::size_t at) {
  return load_mac(reinterpret_cast<const std::byte*>(&key.stations[at]));
}

bool is_tunnelled(const bpf::OffloadKey& key) {
  return key.tunnel_port != 0;
}

// Whether frames of the interface begin with an Ethernet header, as programs expect them to.
bool is_ethernet(Netlink& netlink, int link) {
  ifinfomsg facts{};
  facts.ifi_index = link;
  NetlinkMessage message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK);
  message.header(facts);
  unsigned type = ARPHRD_VOID;
  const auto done = netlink.dump(message, "interface towards a peer", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type == RTM_NEWLINK) type = static_cast<const ifinfomsg*>(NLMSG_DATA(&answer))->ifi_type;
  });
  return done && type == ARPHRD_ETHER;
}

// Whether the current namespace transforms what it sends or receives: programs would go past that, and send
// in the clear what a policy wants encrypted.
bool has_ipsec_policies() {
  auto netlink = Netlink::open(NETLINK_XFRM);
  if (!netlink) return netlink.error().code != EPROTONOSUPPORT;  // a kernel without IPsec
  NetlinkMessage message(XFRM_MSG_GETSPDINFO, NLM_F_REQUEST | NLM_F_ACK);
  message.header(uint32_t{0});
  bool none = false;
  const auto done = netlink->dump(message, "IPsec policies", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != XFRM_MSG_NEWSPDINFO) return;
    for (const NetlinkAttribute& attribute : netlink_attributes(answer, sizeof(uint32_t))) {
      xfrmu_spdinfo counts;
      if (attribute.type != XFRMA_SPD_INFO || attribute.value.size() < sizeof(counts)) continue;
      std::memcpy(&counts, attribute.value.data(), sizeof(counts));
      none = counts.incnt == 0 && counts.outcnt == 0;
    }
  });
  return !done || !none;
}

// The Ethernet interface that a packet to `remote` leaves by; 0 when there is none. In the current namespace.
int route_link(Netlink& netlink, uint32_t local, uint32_t remote) {
  rtmsg route{};
  route.rtm_family = AF_INET;
  route.rtm_dst_len = route.rtm_src_len = 32;
  NetlinkMessage message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK);
  message.header(route);
  message.attribute(RTA_DST, std::as_bytes(std::span(&remote, 1)));
  message.attribute(RTA_SRC, std::as_bytes(std::span(&local, 1)));
  int link = 0;
  const auto done = netlink.dump(message, "route to a peer", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != RTM_NEWROUTE) return;
    const auto* found = static_cast<const rtmsg*>(NLMSG_DATA(&answer));
    if (found->rtm_type != RTN_UNICAST) return;
    for (const NetlinkAttribute& attribute : netlink_attributes(answer, sizeof(rtmsg)))
      if (attribute.type == RTA_OIF) link = static_cast<int>(attribute.u32());
  });
  return done && link != 0 && is_ethernet(netlink, link) ? link : 0;
}

}  // namespace

std::size_t FlowOffload::KeyHash::operator()(const bpf::OffloadKey& key) const {
  uint64_t hash = key.ingress ^ uint64_t { key.vni } << 32;
  const auto* bytes = reinterpret_cast<const std::byte*>(&key);
  for (std::size_t at = 4; at < sizeof(key); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + at, std::min<std::size_t>(8, sizeof(key) - at));
    hash = flow_hash_detail::mix(hash ^ flow_hash_detail::kA, word ^ flow_hash_detail::kB);
  }
  return hash;
}

Result<std::unique_ptr<FlowOffload>> FlowOffload::start(SwitchState& state, std::size_t workers,
                                                        const FlowOffloadLimits& limits) {
  std::unique_ptr<FlowOffload> offload(new FlowOffload(state, limits));  // NOLINT: private constructor
  if (auto opened = offload->open(workers); !opened) {
    Error error = opened.error();
    if (error.code == EPERM) error.message += " (it needs CAP_BPF and CAP_NET_ADMIN)";
    if (error.code == EACCES) error.message += " (it needs CAP_PERFMON)";
    if (error.code == EINVAL) error.message += " (it needs tcx, kernel 6.6)";
    return error;
  }
  offload->thread_ = std::thread([raw = offload.get()] { raw->run(); });
  return offload;
}

// Everything is tried here, on the loopback interface, where a program without a decision changes nothing.
Result<void> FlowOffload::open(std::size_t workers) {
  using bpf::MapType;
  const auto make = [](Fd& into, const char* name, const bpf::MapShape& shape) -> Result<void> {
    auto map = bpf::create_map(name, shape);
    if (!map) return map.error();
    into = std::move(*map);
    return {};
  };
  const uint32_t page = static_cast<uint32_t>(::sysconf(_SC_PAGESIZE));
  for (const auto& done :
       {make(flows_map_, "penstock_flows",
             {MapType::hash, sizeof(bpf::OffloadKey), sizeof(bpf::OffloadEntry), limits_.flows_max}),
        make(control_map_, "penstock_epoch",
             {MapType::array, 4, sizeof(bpf::OffloadControl), 1, bpf::kMapMmapable}),
        make(slots_map_, "penstock_slots", {MapType::per_cpu_array, 4, sizeof(bpf::OffloadSlot), 1})})
    if (!done) return done;
  const auto packet = bpf::kernel_packet();
  if (!packet) return packet.error();
  maps_ = {flows_map_.get(), control_map_.get(), slots_map_.get(), *packet};
  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, control_map_.get(), 0);
  if (memory == MAP_FAILED) return Error::from_errno(errno, "mapping the epoch of the offload programs");
  control_memory_ = memory;
  epoch_ = static_cast<std::atomic<uint64_t>*>(memory);
  epoch_->store(1, std::memory_order_release);
  auto program = bpf::load_program(bpf::ProgramType::classifier, "penstock_slot", bpf::slot_program(maps_));
  if (!program) return program.error();
  // One that looks into the kernel's packet.
  if (auto looks = bpf::load_program(bpf::ProgramType::socket_filter, "penstock_filter",
                                     bpf::filter_program(maps_, 0));
      !looks)
    return looks.error();
  if (auto link = bpf::attach_tcx(program->get(), kLoopback, bpf::Hook::tcx_ingress); !link)
    return link.error();
  if (auto waited = bpf::wait_for_programs(); !waited) return waited;
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return Error::from_errno(errno, "eventfd");
  for (std::size_t worker = 0; worker < workers; ++worker)
    lanes_.push_back(std::make_unique<OfferLane>(*epoch_, woken_, wake_.get()));
  read_keys_.resize(kReadAtOnce);
  read_entries_.resize(kReadAtOnce);
  return {};
}

FlowOffload::~FlowOffload() {
  stopping_.store(true);
  if (wake_.valid()) ::eventfd_write(wake_.get(), 1);
  if (thread_.joinable()) thread_.join();
  for (auto& [id, place] : places_) detach(place);
  if (control_memory_ != nullptr)
    ::munmap(control_memory_, static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
}

void FlowOffload::wake() {
  if (!woken_.exchange(true)) ::eventfd_write(wake_.get(), 1);
}

void FlowOffload::run() {
  std::vector<pollfd> waiting;
  while (!stopping_.load(std::memory_order_relaxed)) {
    waiting.assign(1, {wake_.get(), POLLIN, 0});
    {
      const std::lock_guard lock(mutex_);
      for (const RouteWatch& watch : route_watches_)
        waiting.push_back({watch.netlink.descriptor(), POLLIN, 0});
    }
    // Without flows there is nothing to look after.
    const bool busy = size_.load(std::memory_order_relaxed) != 0;
    ::poll(waiting.data(), waiting.size(), busy ? kSweepMs : -1);
    eventfd_t times = 0;
    if ((waiting[0].revents & POLLIN) != 0) ::eventfd_read(wake_.get(), &times);
    woken_.store(false);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::unique_lock lock(mutex_);
    if (changed_.exchange(false)) attach_all();
    check_routes();
    drain();
    const bool due = monotonic_ns() - swept_ns_ >= uint64_t{kSweepMs} * 1'000'000;
    if (!records_.empty() && (due || swept_epoch_ != epoch_->load(std::memory_order_relaxed))) sweep();
    accept_all(lock);
  }
}

// Connections that ended end here; offers wait in offers_.
void FlowOffload::drain() {
  std::array<FlowOffer, kOffersAtOnce> read;
  for (const auto& lane : lanes_)
    while (const std::size_t count = lane->pop(read))
      for (std::size_t i = 0; i < count; ++i)
        if (read[i].ended) {
          end_connection(read[i].connection, read[i].connection_id);
        } else {
          offers_.push_back(read[i]);
        }
}

void FlowOffload::accept_all(std::unique_lock<std::mutex>& lock) {
  while (removed_ && !offers_.empty()) {
    removed_ = false;
    lock.unlock();
    const auto waited = bpf::wait_for_programs();
    lock.lock();
    if (waited) continue;
    removed_ = true;
    totals_.refused += offers_.size();
    offers_.clear();
  }
  for (const FlowOffer& offer : offers_) accept(offer);
  offers_.clear();
}

void FlowOffload::add_port(PortId id, Port& port, LinkListener* listener) {
  const std::lock_guard lock(mutex_);
  places_[id] = Place{.port = &port, .listener = listener};
  attach_all();
}

void FlowOffload::remove_port(PortId id) {
  const std::lock_guard lock(mutex_);
  shake_off();
  const auto place = places_.find(id);
  if (place == places_.end()) return;
  detach(place->second);
  places_.erase(place);
  std::erase_if(tunnel_links_, [&](const TunnelLink& link) { return link.underlay == id; });
  std::erase_if(route_watches_, [&](const RouteWatch& watch) { return watch.underlay == id; });
  std::erase_if(routes_, [&](const auto& route) { return route.first.underlay == id; });
  // The thread may wait for one of them.
  wake();
}

void FlowOffload::use(bool wanted) {
  const std::lock_guard lock(mutex_);
  if (wanted == wanted_) return;
  wanted_ = wanted;
  if (wanted) return attach_all();
  for (auto& [id, place] : places_) {
    detach(place);
    place.finding.clear();
  }
  tunnel_links_.clear();
  routes_.clear();
}

void FlowOffload::forget_rules(const std::vector<RuleConfig>& present) {
  std::unordered_set<uint64_t> known;
  for (const RuleConfig& rule : present) known.insert(rule.id);
  const std::lock_guard lock(mutex_);
  std::erase_if(rule_traffic_, [&](const auto& entry) { return !known.contains(entry.first); });
}

void FlowOffload::port_changed() {
  shake_off();
  changed_.store(true);
  wake();
}

// Programs stand where the interfaces are now.
void FlowOffload::attach_all() {
  if (!wanted_) return;
  for (auto& [id, place] : places_) {
    if (place.listener == nullptr) continue;
    const int link = place.listener->link_index();
    if (link == place.link) continue;
    detach(place);
    if (link == 0) continue;
    const auto attached = attach(id, place, link);
    place.finding = attached ? "" : attached.error().message;
  }
}

Result<void> FlowOffload::attach(PortId id, Place& place, int link) {
  const OffloadPlace kind = place.port->offload_place();
  if (kind == OffloadPlace::none) return {};
  const bool tap = kind == OffloadPlace::tap;
  auto program = bpf::load_program(bpf::ProgramType::classifier, "penstock_port",
                                   tap ? bpf::egress_program(maps_, id) : bpf::slot_program(maps_));
  if (!program) return program.error();
  Fd attached;
  auto done = place.listener->link_namespace().run([&]() -> Result<void> {
    auto made = bpf::attach_tcx(program->get(), link, tap ? bpf::Hook::tcx_egress : bpf::Hook::tcx_ingress);
    if (!made) return made.error();
    attached = std::move(*made);
    return {};
  });
  if (!done) return done;
  place.program = std::move(attached);
  place.link = link;
  if (tap) return {};
  // Only now: what the filter keeps from the sockets the program is there to forward.
  auto filter =
      bpf::load_program(bpf::ProgramType::socket_filter, "penstock_filter", bpf::filter_program(maps_, id));
  if (!filter) {
    detach(place);
    return filter.error();
  }
  for (std::size_t queue = 0; queue < place.port->queues(); ++queue)
    if (auto set = bpf::attach_filter(place.port->queue(queue).descriptor(), filter->get()); !set) {
      detach(place);
      return set;
    }
  return {};
}

void FlowOffload::detach(Place& place) {
  if (place.link != 0 && place.port->offload_place() == OffloadPlace::packet_socket)
    for (std::size_t queue = 0; queue < place.port->queues(); ++queue)
      static_cast<void>(bpf::detach_filter(place.port->queue(queue).descriptor()));
  place.program.reset();
  place.link = 0;
}

void FlowOffload::shake_off() {
  epoch_->fetch_add(1, std::memory_order_seq_cst);
  if (size_.load(std::memory_order_seq_cst) != 0) wake();
}

Result<void> FlowOffload::withdraw() {
  epoch_->fetch_add(1, std::memory_order_seq_cst);
  if (size_.load(std::memory_order_seq_cst) == 0) return {};
  auto waited = bpf::wait_for_programs();
  wake();
  return waited;
}

const NetworkNamespace* FlowOffload::space_of(PortId id) const {
  const auto place = places_.find(id);
  if (place == places_.end()) return nullptr;
  if (const UnderlayPort* underlay = place->second.port->as_underlay()) return underlay->space();
  return place->second.link == 0 ? nullptr : &place->second.listener->link_namespace();
}

// The interface towards a peer, looked at by our program: tunnels of the peer are expected to come by it.
int FlowOffload::link_to_peer(PortId underlay, uint32_t local, uint32_t remote) {
  const NetworkNamespace* space = space_of(underlay);
  if (space == nullptr) return 0;
  const RouteKey key{underlay, local, remote};
  auto route = routes_.find(key);
  if (route == routes_.end()) {
    watch_routes(underlay);
    route = routes_.emplace(key, ask_routes(underlay, {key})[0]).first;
  }
  const int link = route->second;
  return link != 0 && watch_tunnels(underlay, link, *space) ? link : 0;
}

// The interfaces by which these peers of one underlay are reached now; 0 where programs must not send.
std::vector<int> FlowOffload::ask_routes(PortId underlay, const std::vector<RouteKey>& routes) {
  std::vector<int> links(routes.size(), 0);
  const NetworkNamespace* space = space_of(underlay);
  if (space == nullptr) return links;
  bool transforms = false;
  const auto done = space->run([&]() -> Result<void> {
    transforms = has_ipsec_policies();
    auto netlink = Netlink::open(NETLINK_ROUTE);
    if (!netlink) return netlink.error();
    for (std::size_t i = 0; i < routes.size() && !transforms; ++i)
      links[i] = route_link(*netlink, routes[i].local, routes[i].remote);
    return {};
  });
  places_[underlay].finding = !done        ? done.error().message
                              : transforms ? "the host has IPsec policies, which programs go past"
                                           : "";
  return links;
}

void FlowOffload::watch_routes(PortId underlay) {
  for (const RouteWatch& watch : route_watches_)
    if (watch.underlay == underlay) return;
  static_cast<void>(space_of(underlay)->run([&]() -> Result<void> {
    // Without them routes and policies are looked at every second only.
    for (const auto& [protocol, groups] :
         {std::pair(NETLINK_ROUTE, RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_IFADDR | RTMGRP_LINK),
          std::pair(NETLINK_XFRM, XFRMGRP_POLICY)})
      if (auto netlink = Netlink::open(protocol, static_cast<uint32_t>(groups)))
        route_watches_.push_back({underlay, std::move(*netlink)});
    return {};
  }));
}

void FlowOffload::check_routes() {
  bool told = monotonic_ns() - swept_ns_ >= uint64_t{kSweepMs} * 1'000'000;
  for (RouteWatch& watch : route_watches_)
    if (!watch.netlink.drain([&](const nlmsghdr&) { told = true; })) told = true;
  if (!told) return;
  if (records_.empty()) return routes_.clear();
  // In the order of their underlays.
  for (auto first = routes_.begin(); first != routes_.end();) {
    const PortId underlay = first->first.underlay;
    std::vector<RouteKey> asked;
    auto last = first;
    for (; last != routes_.end() && last->first.underlay == underlay; ++last) asked.push_back(last->first);
    const std::vector<int> now = ask_routes(underlay, asked);
    for (std::size_t i = 0; first != last; ++first, ++i)
      if (std::exchange(first->second, now[i]) != now[i]) shake_off();
  }
}

bool FlowOffload::watch_tunnels(PortId underlay, int link, const NetworkNamespace& space) {
  for (const TunnelLink& known : tunnel_links_)
    if (known.underlay == underlay && known.link == link) return true;
  auto program = bpf::load_program(bpf::ProgramType::classifier, "penstock_tunnel",
                                   bpf::tunnel_program(maps_, underlay));
  if (!program) return false;
  TunnelLink made{.underlay = underlay, .link = link};
  const auto done = space.run([&]() -> Result<void> {
    auto attached = bpf::attach_tcx(program->get(), link, bpf::Hook::tcx_ingress);
    if (!attached) return attached.error();
    made.program = std::move(*attached);
    return {};
  });
  if (!done) {
    places_[underlay].finding = done.error().message;
    return false;
  }
  tunnel_links_.push_back(std::move(made));
  return true;
}

bool FlowOffload::action_for(const FlowOffer& offer, bpf::OffloadAction& action) {
  const auto set_kind = [&](bpf::OffloadKind kind) { action.kind = static_cast<uint32_t>(kind); };
  action.mtu = offer.mtu;
  const auto ingress = static_cast<PortId>(offer.key.ingress);
  const PortId egress = offer.target.kind == TargetKind::peer ? offer.underlay : offer.target.index;
  const NetworkNamespace* from = space_of(ingress);
  const NetworkNamespace* to = space_of(egress);
  // Programs reach interfaces of their own namespace.
  if (from == nullptr || to == nullptr || from->inode() != to->inode()) return false;
  if (is_tunnelled(offer.key) &&
      link_to_peer(ingress, offer.key.outer_destination, offer.key.outer_source) == 0)
    return false;
  if (offer.target.kind == TargetKind::peer) {
    const int link = link_to_peer(egress, offer.outer_source, offer.outer_destination);
    if (link == 0) return false;
    set_kind(bpf::OffloadKind::encapsulate);
    action.link = static_cast<uint32_t>(link);
    action.local = offer.outer_source;
    action.remote = offer.outer_destination;
    action.vni = offer.vni;
    // As native/offload/tunnel.cc does: the dynamic ports, by the flow.
    action.source_port = __builtin_bswap16(static_cast<uint16_t>(0xc000 | offer.flow_hash >> 18));
    action.destination_port = __builtin_bswap16(kVxlanPort);
    action.network_sum = network_sum(action.local, action.remote);
    return true;
  }
  const Place& place = places_.at(egress);
  if (place.link == 0) return false;
  action.link = static_cast<uint32_t>(place.link);
  switch (place.port->offload_place()) {
    case OffloadPlace::none:
      return false;
    case OffloadPlace::tap:
      set_kind(bpf::OffloadKind::in);
      return true;
    case OffloadPlace::packet_socket:
      break;
  }
  set_kind(bpf::OffloadKind::out);
  if (is_tunnelled(offer.key)) {
    const bool veth = [&] {
      std::string driver;
      static_cast<void>(to->run([&]() -> Result<void> {
        driver = link_driver(place.listener->link_name());
        return {};
      }));
      return driver == "veth";
    }();
    if (!veth) action.flags |= bpf::kNoSuperframes;
  }
  return true;
}

void FlowOffload::accept(const FlowOffer& offer) {
  ++totals_.offered;
  if (offer.epoch != epoch_->load(std::memory_order_acquire) || records_.contains(offer.key)) return;
  if (records_.size() >= limits_.flows_max) {
    ++totals_.full;
    return;
  }
  bpf::OffloadEntry entry{.epoch = offer.epoch};
  if (!action_for(offer, entry.action)) {
    ++totals_.refused;
    return;
  }
  Record record{.offer = offer, .used_s = seconds_now()};
  // Before it is looked at: whoever ends it meanwhile tells.
  if (offer.connection != nullptr) offer.connection->offloaded.store(true, std::memory_order_seq_cst);
  if (!still_right(record, record.used_s)) return;
  if (offer.connection != nullptr) {
    // From now on user space does not see how far the connection is.
    for (auto& acknowledged : offer.connection->ack_max) acknowledged.store(0, std::memory_order_relaxed);
    by_connection_.emplace(offer.connection, offer.key);
  }
  ++port_traffic_[static_cast<PortId>(offer.key.ingress)].flows;
  records_.emplace(offer.key, std::move(record));
  size_.store(records_.size(), std::memory_order_seq_cst);
  if (const int failure = bpf::map_update(maps_.flows, &offer.key, &entry); failure != 0) {
    failure == E2BIG ? ++totals_.full : ++totals_.refused;
    remove(offer.key);
    return;
  }
  ++totals_.taken;
}

// Adds what the kernel has counted since it was last looked at, and keeps alive what that shows alive.
void FlowOffload::settle(Record& record, uint64_t packets, uint64_t bytes, uint32_t now_s) {
  const FlowOffer& offer = record.offer;
  const Traffic fresh{packets - record.packets, bytes - record.bytes};
  record.packets = packets;
  record.bytes = bytes;
  if (fresh.packets == 0) return;
  record.used_s = now_s;
  const Traffic outer{fresh.packets, fresh.bytes + fresh.packets * bpf::kVxlanRoom};
  const bool from_tunnel = is_tunnelled(offer.key), to_tunnel = offer.target.kind == TargetKind::peer;
  port_traffic_[static_cast<PortId>(offer.key.ingress)].received += from_tunnel ? outer : fresh;
  port_traffic_[to_tunnel ? offer.underlay : offer.target.index].transmitted += to_tunnel ? outer : fresh;
  if (offer.rule != kNoRule) rule_traffic_[offer.rule] += fresh;
  if (from_tunnel) {
    peer_packets_[offer.source.index].received += fresh.packets;
    totals_.decapsulated += fresh.packets;
  }
  if (to_tunnel) {
    peer_packets_[offer.target.index].transmitted += fresh.packets;
    totals_.encapsulated += fresh.packets;
  }
  totals_.traffic += fresh;
  if (offer.connection != nullptr)
    state_.connections().account({offer.connection, offer.connection_id, offer.direction}, fresh.packets,
                                 fresh.bytes, now_s);
  // A flow of an earlier epoch says nothing about where a station is now.
  if (offer.epoch == epoch_->load(std::memory_order_acquire))
    state_.forwarding().refresh(offer.network, mac_at(offer.key, 6), offer.source, now_s);
}

// What can change without a new epoch.
bool FlowOffload::still_right(const Record& record, uint32_t now_s) {
  const FlowOffer& offer = record.offer;
  if (now_s - record.used_s > limits_.idle_seconds_max) return false;
  Target target;
  if (offer.by_address && !(state_.forwarding().find(offer.network, mac_at(offer.key, 0), now_s, target) &&
                            target == offer.target))
    return false;
  if (offer.connection == nullptr) return true;
  const Connection& connection = *offer.connection;
  if (connection.id.load(std::memory_order_acquire) != offer.connection_id) return false;
  return offer.key.protocol != wire::kIpTcp ||
         connection.tcp_state.load(std::memory_order_seq_cst) == static_cast<uint8_t>(TcpState::established);
}

void FlowOffload::sweep() {
  swept_ns_ = monotonic_ns();
  const uint64_t epoch = epoch_->load(std::memory_order_acquire);
  const uint32_t now_s = seconds_now();
  std::vector<bpf::OffloadKey> leaving;
  bpf::OffloadKey cursor;
  for (bool first = true;; first = false) {
    uint32_t count = kReadAtOnce;
    const int failure =
        bpf::map_read(maps_.flows, first, &cursor, read_keys_.data(), read_entries_.data(), count);
    for (uint32_t i = 0; i < count; ++i) {
      const auto found = records_.find(read_keys_[i]);
      if (found == records_.end()) continue;
      settle(found->second, read_entries_[i].packets, read_entries_[i].bytes, now_s);
      if (found->second.offer.epoch != epoch || !still_right(found->second, now_s))
        leaving.push_back(read_keys_[i]);
    }
    if (failure != 0 || count == 0) break;
  }
  for (const bpf::OffloadKey& key : leaving) remove(key);
  swept_epoch_ = epoch;
}

void FlowOffload::remove(const bpf::OffloadKey& key) {
  const auto found = records_.find(key);
  if (found == records_.end()) return;
  Record& record = found->second;
  bpf::OffloadEntry last;
  if (bpf::map_take(maps_.flows, &key, &last) == 0) {
    settle(record, last.packets, last.bytes, seconds_now());
    ++totals_.withdrawn;
    removed_ = true;
  }
  if (record.offer.connection != nullptr) {
    const auto [begin, end] = by_connection_.equal_range(record.offer.connection);
    const auto mine = std::find_if(begin, end, [&](const auto& one) { return one.second == key; });
    if (mine != end) by_connection_.erase(mine);
  }
  --port_traffic_[static_cast<PortId>(key.ingress)].flows;
  records_.erase(found);
  size_.store(records_.size(), std::memory_order_seq_cst);
}

void FlowOffload::end_connection(const Connection* connection, uint64_t id) {
  std::vector<bpf::OffloadKey> keys;
  const auto [begin, end] = by_connection_.equal_range(connection);
  for (auto one = begin; one != end; ++one)
    if (records_.at(one->second).offer.connection_id == id) keys.push_back(one->second);
  for (const bpf::OffloadKey& key : keys) remove(key);
}

Result<void> FlowOffload::settle_all() {
  if (auto withdrawn = withdraw(); !withdrawn) return withdrawn;
  const std::lock_guard lock(mutex_);
  if (!records_.empty()) sweep();
  return {};
}

void FlowOffload::refresh() {
  const std::lock_guard lock(mutex_);
  if (!records_.empty() && monotonic_ns() - swept_ns_ >= kFreshNs) sweep();
}

FlowOffload::PortTraffic FlowOffload::port_traffic(PortId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = port_traffic_.find(id);
  return found == port_traffic_.end() ? PortTraffic{} : found->second;
}

Traffic FlowOffload::rule_traffic(uint64_t rule) const {
  const std::lock_guard lock(mutex_);
  const auto found = rule_traffic_.find(rule);
  return found == rule_traffic_.end() ? Traffic{} : found->second;
}

FlowOffload::PeerPackets FlowOffload::peer_packets(uint16_t peer) const {
  const std::lock_guard lock(mutex_);
  const auto found = peer_packets_.find(peer);
  return found == peer_packets_.end() ? PeerPackets{} : found->second;
}

FlowOffload::Totals FlowOffload::totals() const {
  const std::lock_guard lock(mutex_);
  Totals totals = totals_;
  totals.flows = records_.size();
  for (const auto& lane : lanes_) totals.lost += lane->lost();
  return totals;
}

bool FlowOffload::find(const bpf::OffloadKey& key, uint64_t& packets) const {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(key);
  if (found == records_.end() || found->second.offer.epoch != epoch_->load(std::memory_order_acquire))
    return false;
  bpf::OffloadEntry entry;
  packets = bpf::map_lookup(maps_.flows, &key, &entry) == 0 ? entry.packets : found->second.packets;
  return true;
}

std::string FlowOffload::port_finding(PortId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find(id);
  return found == places_.end() ? "" : found->second.finding;
}

}  // namespace penstock::net

// The data plane for JavaScript. Whatever waits for workers or the kernel runs on the thread pool;
// src/network calls one of those at a time. Statistics are read at once.
#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "bindings/layout.h"
#include "bindings/module.h"
#include "bindings/on_pool.h"
#include "bindings/ring_port_handle.h"
#include "bindings/waker.h"
#include "native/port/packet_socket_port.h"
#include "native/port/tap_port.h"
#include "native/port/underlay.h"
#include "native/switch/data_plane.h"
#include "native/switch/rule_record.h"
#include "native/switch/text.h"

namespace penstock::bindings {

namespace {

using namespace net;

// --- JavaScript -> native ---

bool has(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return !value.IsUndefined() && !value.IsNull();
}

uint32_t number_at(const Napi::Object& object, const char* key, uint32_t otherwise = 0) {
  return has(object, key) ? object.Get(key).As<Napi::Number>().Uint32Value() : otherwise;
}

double double_at(const Napi::Object& object, const char* key, double otherwise = 0) {
  return has(object, key) ? object.Get(key).As<Napi::Number>().DoubleValue() : otherwise;
}

std::string text_at(const Napi::Object& object, const char* key) {
  return has(object, key) ? object.Get(key).As<Napi::String>().Utf8Value() : std::string();
}

bool flag_at(const Napi::Object& object, const char* key) {
  return has(object, key) && object.Get(key).As<Napi::Boolean>().Value();
}

uint64_t big_at(const Napi::Object& object, const char* key) {
  bool lossless = false;
  return has(object, key) ? object.Get(key).As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}

std::span<const std::byte> bytes_of(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const std::byte*>(array.Data()), array.ByteLength()};
}

template <typename Visit>
void for_each(const Napi::Object& object, const char* key, Visit visit) {
  const auto list = object.Get(key).As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) visit(list.Get(i).As<Napi::Object>());
}

// { version, bytes }
IpAddress address_of(const Napi::Object& address) {
  IpAddress ip{};
  const auto bytes = bytes_of(address.Get("bytes"));
  std::memcpy(ip.data(), bytes.data(), std::min(bytes.size(), ip.size()));
  return ip;
}

// As links want it: IPv4 in the first four bytes, a length for the whole address.
IpPrefix host_prefix(const Napi::Object& address) {
  IpPrefix prefix;
  prefix.version = static_cast<uint8_t>(number_at(address, "version"));
  const IpAddress ip = address_of(address);
  const std::size_t skip = prefix.version == 4 ? 12 : 0;
  std::memcpy(prefix.bytes.data(), ip.data() + skip, ip.size() - skip);
  prefix.length = prefix.version == 4 ? 32 : 128;
  return prefix;
}

MeterRate rate_of(const Napi::Object& object) {
  return {static_cast<uint64_t>(double_at(object, "bitsPerSecond")),
          static_cast<uint64_t>(double_at(object, "burstBytes"))};
}

TunnelKind tunnel_of(const std::string& name) {
  if (name == "vxlan") return TunnelKind::vxlan;
  if (name == "geneve") return TunnelKind::geneve;
  if (name == "nvgre") return TunnelKind::nvgre;
  return TunnelKind::none;
}

PortConfig port_of(const Napi::Object& object) {
  PortConfig port;
  port.id = static_cast<PortId>(number_at(object, "id"));
  port.name = text_at(object, "name");
  port.underlay = flag_at(object, "underlay");
  for_each(object, "attachments", [&](const Napi::Object& one) {
    port.attachments.push_back(
        {static_cast<uint16_t>(number_at(one, "network")), static_cast<uint16_t>(number_at(one, "vlan"))});
  });
  if (has(object, "coalesce")) port.coalesce = flag_at(object, "coalesce");
  port.anti_spoof = flag_at(object, "antiSpoof");
  if (has(object, "mac")) port.mac = big_at(object, "mac");
  for_each(object, "addresses", [&](const Napi::Object& one) {
    port.addresses.push_back({address_of(one), static_cast<uint8_t>(number_at(one, "bits"))});
  });
  if (has(object, "receive")) port.receive_rate = rate_of(object.Get("receive").As<Napi::Object>());
  if (has(object, "transmit")) port.transmit_rate = rate_of(object.Get("transmit").As<Napi::Object>());
  const auto groups = object.Get("groups").As<Napi::Array>();
  for (uint32_t i = 0; i < groups.Length(); ++i)
    port.groups.push_back(static_cast<uint16_t>(groups.Get(i).As<Napi::Number>().Uint32Value()));
  port.isolated = flag_at(object, "isolated");
  port.offload = flag_at(object, "offload");
  return port;
}

NetworkConfig network_of(const Napi::Object& object) {
  NetworkConfig network;
  network.index = static_cast<uint16_t>(number_at(object, "index"));
  network.name = text_at(object, "name");
  network.tunnel = tunnel_of(text_at(object, "tunnel"));
  network.vni = number_at(object, "vni");
  network.underlay = static_cast<PortId>(number_at(object, "underlay", kNoPort));
  if (has(object, "local")) {
    const auto local = object.Get("local").As<Napi::Object>();
    network.local = address_of(local);
    network.local_version = static_cast<uint8_t>(number_at(local, "version"));
  }
  for (const auto& [key, peers] :
       {std::pair("peers", &network.peers), std::pair("leaving", &network.leaving)})
    for_each(object, key, [&](const Napi::Object& one) {
      peers->push_back({address_of(one), static_cast<uint8_t>(number_at(one, "version"))});
    });
  network.learn_peers = flag_at(object, "learnPeers");
  network.outer_checksum = flag_at(object, "outerChecksum");
  network.tracking = flag_at(object, "tracking");
  network.flood_unknown = flag_at(object, "floodUnknown");
  network.vlan_transparent = flag_at(object, "vlanTransparent");
  for_each(object, "responders", [&](const Napi::Object& one) {
    const auto address = one.Get("address").As<Napi::Object>();
    network.responders.push_back(
        {address_of(address), static_cast<uint8_t>(number_at(address, "version")), big_at(one, "mac")});
  });
  return network;
}

// matches: records of groups, whose direction means nothing here.
Result<CaptureOptions> capture_options_of(const Napi::Object& object) {
  CaptureOptions options;
  options.ring_bytes = number_at(object, "ringBytes");
  options.snap = number_at(object, "snaplen");
  options.every_port = flag_at(object, "everyPort");
  options.drops = flag_at(object, "drops");
  const auto ports = object.Get("ports").As<Napi::Array>();
  for (uint32_t i = 0; i < ports.Length(); ++i)
    options.ports.push_back(static_cast<PortId>(ports.Get(i).As<Napi::Number>().Uint32Value()));
  auto matches = read_group(bytes_of(object.Get("matches")));
  if (!matches) return matches.error();
  for (const GroupRule& rule : *matches) options.matches.push_back(rule.match);
  return options;
}

Result<SwitchConfig> config_of(const Napi::Object& object) {
  SwitchConfig config;
  config.offload = flag_at(object, "offload");
  for_each(object, "ports", [&](const Napi::Object& one) { config.ports.push_back(port_of(one)); });
  for_each(object, "networks", [&](const Napi::Object& one) { config.networks.push_back(network_of(one)); });
  auto rules = read_rules(bytes_of(object.Get("rules")));
  if (!rules) return rules.error();
  config.rules = std::move(*rules);
  const auto groups = object.Get("groups").As<Napi::Array>();
  for (uint32_t i = 0; i < groups.Length(); ++i) {
    const auto one = groups.Get(i).As<Napi::Object>();
    auto group = read_group(bytes_of(one.Get("rules")));
    if (!group) return group.error();
    config.groups.push_back({text_at(one, "name"), std::move(*group)});
  }
  for_each(object, "meters", [&](const Napi::Object& one) {
    config.meters.push_back({big_at(one, "id"), rate_of(one)});
  });
  for_each(object, "mirrors", [&](const Napi::Object& one) {
    config.mirrors.push_back({static_cast<PortId>(number_at(one, "from", kNoPort)), flag_at(one, "received"),
                              flag_at(one, "transmitted"), static_cast<PortId>(number_at(one, "to"))});
  });
  return config;
}

DataPlaneSettings settings_of(const Napi::Object& object) {
  DataPlaneSettings settings;
  settings.pipeline.workers = number_at(object, "workers");
  const std::string idle = text_at(object, "idle");
  if (idle == "spin") settings.pipeline.idle.mode = IdleMode::spin;
  if (idle == "block") settings.pipeline.idle.mode = IdleMode::block;
  if (idle == "nap") settings.pipeline.idle.mode = IdleMode::nap;
  if (has(object, "spinShare")) settings.pipeline.idle.spin_share = double_at(object, "spinShare");
  settings.pipeline.pool.packets = number_at(object, "packets", settings.pipeline.pool.packets);
  settings.pipeline.pool.bodies = number_at(object, "bodies", settings.pipeline.pool.bodies);
  settings.limits.connections.connections_max =
      number_at(object, "connections", settings.limits.connections.connections_max);
  settings.limits.forwarding.age_seconds_max =
      number_at(object, "ageSeconds", settings.limits.forwarding.age_seconds_max);
  settings.limits.offload.flows_max = number_at(object, "offloadedFlows", settings.limits.offload.flows_max);
  settings.limits.offload.idle_seconds_max =
      number_at(object, "offloadIdleSeconds", settings.limits.offload.idle_seconds_max);
  settings.seed = big_at(object, "seed");
  if (has(object, "runtimeDirectory")) settings.runtime_directory = text_at(object, "runtimeDirectory");
  return settings;
}

// --- native -> JavaScript ---

Napi::Value count(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

Napi::Object traffic(Napi::Env env, const Traffic& traffic) {
  auto object = Napi::Object::New(env);
  object.Set("packets", count(env, traffic.packets));
  object.Set("bytes", count(env, traffic.bytes));
  return object;
}

template <std::size_t N>
Napi::Object drops(Napi::Env env, const std::array<uint64_t, N>& counts) {
  auto object = Napi::Object::New(env);
  for (std::size_t i = 0; i < N; ++i)
    if (counts[i] != 0) object.Set(std::string(kDropReasonNames[i]), count(env, counts[i]));
  return object;
}

template <std::size_t N>
Napi::Object reasons(Napi::Env env, const std::array<uint64_t, N>& counts, const ReasonText (&names)[N]) {
  auto object = Napi::Object::New(env);
  for (std::size_t i = 0; i < N; ++i) object.Set(std::string(names[i].name), count(env, counts[i]));
  return object;
}

Napi::Object explanation(Napi::Env env, const IdleExplanation& told) {
  auto object = Napi::Object::New(env);
  static constexpr const char* kModes[] = {"adaptive", "spin", "block", "nap"};
  object.Set("mode", kModes[static_cast<std::size_t>(told.mode)]);
  object.Set("text", told.text());
  object.Set("windowNs", count(env, told.window_ns));
  if (told.predicted_gap_ns != GapHistory::kLonger)
    object.Set("predictedGapNs", count(env, told.predicted_gap_ns));
  object.Set("wakeCostNs", count(env, told.wake_cost_ns));
  object.Set("tokensNs", count(env, told.tokens_ns));
  object.Set("spunNs", count(env, told.spun_ns));
  object.Set("sleptNs", count(env, told.slept_ns));
  object.Set("sleepsWithWorkUpstream", count(env, told.sleeps_with_work_upstream));
  object.Set("stays", reasons(env, told.stays, kStayReasons));
  object.Set("sleeps", reasons(env, told.sleeps, kSleepReasons));
  object.Set("wakes", reasons(env, told.wakes, kWakeReasons));
  return object;
}

const char* state_name(PortState state) {
  switch (state) {
    case PortState::up:
      return "up";
    case PortState::blocked:
      return "blocked";
    case PortState::forward_to_peer:
      return "forward-to-peer";
    case PortState::down:
      return "down";
  }
  return "down";
}

class DataPlaneWrap : public Napi::ObjectWrap<DataPlaneWrap> {
 public:
  static void initialize(Napi::Env env, Napi::Object exports) {
    exports.Set("DataPlane", DefineClass(env, "DataPlane",
                                         {StaticMethod<&DataPlaneWrap::start>("start"),
                                          InstanceMethod<&DataPlaneWrap::attach_tap>("attachTap"),
                                          InstanceMethod<&DataPlaneWrap::attach_interface>("attachInterface"),
                                          InstanceMethod<&DataPlaneWrap::attach_underlay>("attachUnderlay"),
                                          InstanceMethod<&DataPlaneWrap::attach_ring>("attachRing"),
                                          InstanceMethod<&DataPlaneWrap::detach>("detach"),
                                          InstanceMethod<&DataPlaneWrap::apply>("apply"),
                                          InstanceMethod<&DataPlaneWrap::set_port_state>("setPortState"),
                                          InstanceMethod<&DataPlaneWrap::forward_port>("forwardPort"),
                                          InstanceMethod<&DataPlaneWrap::export_port>("exportPort"),
                                          InstanceMethod<&DataPlaneWrap::import_port>("importPort"),
                                          InstanceMethod<&DataPlaneWrap::announce>("announce"),
                                          InstanceMethod<&DataPlaneWrap::tick>("tick"),
                                          InstanceMethod<&DataPlaneWrap::trace>("trace"),
                                          InstanceMethod<&DataPlaneWrap::port_facts>("port"),
                                          InstanceMethod<&DataPlaneWrap::rules>("rules"),
                                          InstanceMethod<&DataPlaneWrap::workers>("workers"),
                                          InstanceMethod<&DataPlaneWrap::counters>("counters"),
                                          InstanceMethod<&DataPlaneWrap::addresses>("addresses"),
                                          InstanceMethod<&DataPlaneWrap::connections>("connections"),
                                          InstanceMethod<&DataPlaneWrap::peers>("peers"),
                                          InstanceMethod<&DataPlaneWrap::set_path_mtu>("setPathMtu"),
                                          InstanceMethod<&DataPlaneWrap::begin_capture>("beginCapture"),
                                          InstanceMethod<&DataPlaneWrap::end_capture>("endCapture"),
                                          InstanceMethod<&DataPlaneWrap::offload>("offload"),
                                          InstanceMethod<&DataPlaneWrap::stop>("stop")}));
  }

  explicit DataPlaneWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DataPlaneWrap>(info) {
    if (info.Length() < 1 || !info[0].IsExternal()) {
      Napi::TypeError::New(info.Env(), "use DataPlane.start").ThrowAsJavaScriptException();
      return;
    }
    plane_ = std::move(*info[0].As<Napi::External<std::unique_ptr<DataPlane>>>().Data());
    napi_add_env_cleanup_hook(info.Env(), &DataPlaneWrap::on_environment_exit, this);
    hooked_ = true;
  }

  ~DataPlaneWrap() override {
    if (hooked_) napi_remove_env_cleanup_hook(Env(), &DataPlaneWrap::on_environment_exit, this);
  }

 private:
  static Napi::Value start(const Napi::CallbackInfo& info) {
    auto constructor =
        std::make_shared<Napi::FunctionReference>(Napi::Persistent(info.This().As<Napi::Function>()));
    return on_pool(
        info.This().As<Napi::Object>(),
        [settings = settings_of(info[0].As<Napi::Object>())]() mutable {
          return DataPlane::start(std::move(settings));
        },
        [constructor](Napi::Env env, std::unique_ptr<DataPlane>& started) -> Napi::Value {
          return constructor->New({Napi::External<std::unique_ptr<DataPlane>>::New(env, &started)});
        });
  }

  // The plane itself ends with this object, a little later.
  static void on_environment_exit(void* self) {
    auto* wrap = static_cast<DataPlaneWrap*>(self);
    wrap->hooked_ = false;
    for (auto& [number, onlooker] : wrap->captures_) onlooker.waker->close();
  }

  bool refuse_stopped() {
    if (plane_ != nullptr) return false;
    to_js_error(Env(), Error{EBADF, "the switch is stopped"}).ThrowAsJavaScriptException();
    return true;
  }

  static PortId port_at(const Napi::CallbackInfo& info, std::size_t index) {
    return static_cast<PortId>(info[index].As<Napi::Number>().Uint32Value());
  }

  static Napi::Value number_of(Napi::Env env, PortId id) { return Napi::Number::New(env, id); }

  template <typename Kind, typename Options>
  Napi::Value attach_following_link(Options options) {
    return on_pool(
        Value(),
        [plane = plane_, options = std::move(options)]() -> Result<PortId> {
          auto port = Kind::open(options);
          if (!port) return port.error();
          LinkListener* listener = port->get();
          return plane->attach(std::shared_ptr<Port>(std::move(*port)), listener);
        },
        number_of);
  }

  Napi::Value attach_tap(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto object = info[0].As<Napi::Object>();
    TapOptions options;
    options.name = text_at(object, "name");
    options.space = text_at(object, "namespace");
    options.queues = number_at(object, "queues", 1);
    options.mtu = number_at(object, "mtu", 1500);
    if (has(object, "mac")) {
      MacAddress mac;
      store_mac(reinterpret_cast<std::byte*>(mac.data()), big_at(object, "mac"));
      options.mac = mac;
    }
    if (has(object, "offloads")) options.offloads = flag_at(object, "offloads");
    return attach_following_link<TapPort>(std::move(options));
  }

  Napi::Value attach_interface(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto object = info[0].As<Napi::Object>();
    PacketSocketOptions options;
    options.link = text_at(object, "name");
    options.space = text_at(object, "namespace");
    options.queues = number_at(object, "queues", 1);
    if (has(object, "runtimeDirectory")) options.runtime_directory = text_at(object, "runtimeDirectory");
    return attach_following_link<PacketSocketPort>(std::move(options));
  }

  Napi::Value attach_underlay(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto object = info[0].As<Napi::Object>();
    UnderlayOptions options;
    options.name = text_at(object, "name");
    options.space = text_at(object, "namespace");
    options.queues = number_at(object, "queues", 1);
    options.mtu = number_at(object, "mtu", 1500);
    for_each(object, "addresses",
             [&](const Napi::Object& one) { options.addresses.push_back(host_prefix(one)); });
    options.ports.clear();
    const auto ports = object.Get("ports").As<Napi::Array>();
    for (uint32_t i = 0; i < ports.Length(); ++i)
      options.ports.push_back(static_cast<uint16_t>(ports.Get(i).As<Napi::Number>().Uint32Value()));
    options.nvgre = flag_at(object, "nvgre");
    const std::string kind = text_at(object, "kind");
    if (kind == "tap") options.kind = UnderlayKind::tap;
    if (kind == "udp") options.kind = UnderlayKind::udp;
    return on_pool(
        Value(),
        [plane = plane_, options]() -> Result<PortId> {
          auto port = UnderlayPort::open(options);
          if (!port) return port.error();
          return plane->attach(std::shared_ptr<Port>(std::move(*port)), nullptr);
        },
        number_of);
  }

  // attachRing(handle): of bindings/ring.ts.
  Napi::Value attach_ring(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    std::shared_ptr<RingPort> ring = import_ring_port(info[0]);
    if (ring == nullptr) {
      Napi::TypeError::New(Env(), "attachRing takes the handle of a ring").ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    return on_pool(
        Value(), [plane = plane_, ring]() -> Result<PortId> { return plane->attach(ring, nullptr); },
        number_of);
  }

  Napi::Value detach(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto id = static_cast<PortId>(info[0].As<Napi::Number>().Uint32Value());
    return on_pool(Value(), [plane = plane_, id] { return plane->detach(id); });
  }

  Napi::Value apply(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    auto config = config_of(info[0].As<Napi::Object>());
    if (!config) {
      to_js_error(Env(), config.error()).ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    return on_pool(Value(), [plane = plane_, wanted = std::move(*config)]() mutable {
      return plane->apply(std::move(wanted));
    });
  }

  Napi::Value set_port_state(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const std::string name = info[1].As<Napi::String>();
    const PortState state = name == "up" ? PortState::up : PortState::blocked;
    return on_pool(
        Value(), [plane = plane_, id = port_at(info, 0), state] { return plane->set_port_state(id, state); });
  }

  // forwardPort(port, address): what is for the port goes to that peer from now on.
  Napi::Value forward_port(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto address = info[1].As<Napi::Object>();
    const auto version = static_cast<uint8_t>(number_at(address, "version"));
    return on_pool(Value(), [plane = plane_, id = port_at(info, 0), ip = address_of(address), version] {
      return plane->forward_port(id, ip, version);
    });
  }

  // exportPort(port): its image, a buffer.
  Napi::Value export_port(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    return on_pool(
        Value(),
        [plane = plane_, id = port_at(info, 0)]() -> Result<std::vector<std::byte>> {
          // Connections are handed over with what the kernel counted, and come back to user space for it.
          if (FlowOffload* offload = plane->offload())
            if (auto settled = offload->settle_all(); !settled) return settled.error();
          return plane->forwarding().export_port(id, monotonic_ns());
        },
        [](Napi::Env env, const std::vector<std::byte>& image) -> Napi::Value {
          return Napi::Buffer<std::byte>::Copy(env, image.data(), image.size());
        });
  }

  // importPort(port, image): what became of it.
  Napi::Value import_port(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto bytes = bytes_of(info[1]);
    return on_pool(
        Value(),
        [plane = plane_, id = port_at(info, 0),
         image = std::vector<std::byte>(bytes.begin(), bytes.end())]() -> Result<PortRestored> {
          if (FlowOffload* offload = plane->offload())
            if (auto settled = offload->settle_all(); !settled) return settled.error();
          return plane->forwarding().import_port(id, image, monotonic_ns());
        },
        [](Napi::Env env, const PortRestored& restored) -> Napi::Value {
          auto object = Napi::Object::New(env);
          object.Set("connections", count(env, restored.connections));
          object.Set("kept", count(env, restored.connections_kept));
          object.Set("withoutRoom", count(env, restored.connections_full));
          auto addresses = Napi::Array::New(env, restored.addresses.size());
          for (uint32_t i = 0; i < restored.addresses.size(); ++i) {
            const PortRestored::Address& address = restored.addresses[i];
            auto one = Napi::Object::New(env);
            one.Set("mac", Napi::BigInt::New(env, address.mac));
            if (address.vlan != kUntagged) one.Set("vlan", Napi::Number::New(env, address.vlan));
            addresses.Set(i, one);
          }
          object.Set("addresses", addresses);
          return object;
        });
  }

  // announce(port, frame): as if the port had received it. False: no such port, or no room now.
  Napi::Value announce(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto frame = bytes_of(info[1]);
    if (frame.size() < 14 || frame.size() > Announcer::kFrameMax) {
      Napi::RangeError::New(Env(), "an announcement has 14 to 1514 bytes").ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    return Napi::Boolean::New(Env(), plane_->announce(port_at(info, 0), frame));
  }

  Napi::Value tick(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    return on_pool(Value(), [plane = plane_]() -> Result<void> {
      plane->tick();
      return {};
    });
  }

  Napi::Value trace(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto port = static_cast<PortId>(info[0].As<Napi::Number>().Uint32Value());
    const auto outcome = plane_->forwarding().trace(port, bytes_of(info[1]), monotonic_ns());
    if (!outcome) {
      to_js_error(Env(), outcome.error()).ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    auto object = Napi::Object::New(Env());
    auto steps = Napi::Array::New(Env());
    for (const TraceStep& step : outcome->steps) {
      auto one = Napi::Object::New(Env());
      one.Set("what", step.what);
      one.Set("detail", step.detail);
      steps.Set(steps.Length(), one);
    }
    auto outputs = Napi::Array::New(Env());
    for (const auto& egress : outcome->outputs) {
      auto one = Napi::Object::New(Env());
      one.Set("port", Napi::Number::New(Env(), egress.port));
      one.Set("frame", Napi::Buffer<std::byte>::Copy(Env(), egress.frame.data(), egress.frame.size()));
      outputs.Set(outputs.Length(), one);
    }
    object.Set("steps", steps);
    object.Set("outputs", outputs);
    if (outcome->dropped != DropReason::none) object.Set("dropped", std::string(name_of(outcome->dropped)));
    return object;
  }

  // What is known of one port; undefined for a number that is not attached.
  Napi::Value port_facts(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const auto id = static_cast<PortId>(info[0].As<Napi::Number>().Uint32Value());
    const std::shared_ptr<Port> port = plane_->port(id);
    if (port == nullptr) return Env().Undefined();
    auto object = Napi::Object::New(Env());
    object.Set("name", std::string(port->name()));
    object.Set("state", state_name(port->state()));
    object.Set("mtu", Napi::Number::New(Env(), port->mtu()));
    object.Set("queues", count(Env(), port->queues()));
    const PortOffloads offloads = port->offloads();
    auto can = Napi::Array::New(Env());
    const auto add = [&](bool it, const char* name) {
      if (it) can.Set(can.Length(), name);
    };
    add(offloads.checksum, "checksum");
    add(offloads.tso4, "tso4");
    add(offloads.tso6, "tso6");
    add(offloads.uso, "uso");
    add(offloads.udp_tunnel_gso, "udp-tunnel-gso");
    object.Set("offloads", can);
    if (FlowOffload* offload = plane_->offload()) offload->refresh();
    const PortTraffic seen = plane_->forwarding().port_traffic(id);
    object.Set("received", traffic(Env(), seen.received));
    object.Set("transmitted", traffic(Env(), seen.transmitted));
    std::array<uint64_t, kDropReasons> all = seen.drops;
    uint64_t lost = 0, blocked = 0;
    for (std::size_t queue = 0; queue < port->queues(); ++queue) {
      const QueueCounters& counters = port->counters(queue);
      lost += counters.receive.lost.get();
      blocked += counters.transmit.blocked.get();
      for (std::size_t i = 0; i < kDropReasons; ++i)
        all[i] += counters.receive.drops[i].get() + counters.transmit.drops[i].get();
    }
    const HeldBack held = plane_->pipeline().held_back(id);
    for (std::size_t i = 0; i < kDropReasons; ++i) all[i] += held.drops[i];
    object.Set("heldBytes", count(Env(), held.bytes));
    object.Set("drops", drops(Env(), all));
    object.Set("lost", count(Env(), lost));
    object.Set("blocked", count(Env(), blocked));
    const DataPlane::Coalesced coalesced = plane_->coalesced(id);
    auto merges = Napi::Object::New(Env());
    merges.Set("on", Napi::Boolean::New(Env(), coalesced.on));
    merges.Set("merged", count(Env(), coalesced.merged));
    merges.Set("flushed", count(Env(), coalesced.flushed));
    merges.Set("badChecksum", count(Env(), coalesced.bad_checksum));
    object.Set("coalesced", merges);
    if (const FlowOffload* offload = plane_->offload()) {
      const FlowOffload::PortTraffic forwarded = offload->port_traffic(id);
      auto kernel = Napi::Object::New(Env());
      kernel.Set("flows", count(Env(), forwarded.flows));
      kernel.Set("received", traffic(Env(), forwarded.received));
      kernel.Set("transmitted", traffic(Env(), forwarded.transmitted));
      if (const std::string finding = offload->port_finding(id); !finding.empty())
        kernel.Set("finding", finding);
      object.Set("offloaded", kernel);
    }
    if (const auto* underlay = port->as_underlay()) {
      object.Set("underlay", std::string(name_of(underlay->kind())));
      object.Set("finding", underlay->probe().tap_finding);
    }
    return object;
  }

  // [id, packets, bytes] of every native rule, as BigInts.
  Napi::Value rules(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    if (FlowOffload* offload = plane_->offload()) offload->refresh();
    const auto all = plane_->forwarding().rule_traffic();
    auto list = Napi::BigUint64Array::New(Env(), all.size() * 3);
    for (std::size_t i = 0; i < all.size(); ++i) {
      list[3 * i] = all[i].id;
      list[3 * i + 1] = all[i].traffic.packets;
      list[3 * i + 2] = all[i].traffic.bytes;
    }
    return list;
  }

  Napi::Value workers(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    const PipelineStatistics statistics = plane_->pipeline().statistics();
    auto list = Napi::Array::New(Env());
    for (const WorkerStatistics& worker : statistics.workers) {
      auto one = Napi::Object::New(Env());
      one.Set("asleep", Napi::Boolean::New(Env(), worker.asleep));
      one.Set("stalled", Napi::Boolean::New(Env(), worker.stalled));
      one.Set("rounds", count(Env(), worker.rounds));
      one.Set("cpuNs", count(Env(), worker.cpu_ns));
      one.Set("waiting", count(Env(), worker.waiting));
      one.Set("stalls", count(Env(), worker.stalls));
      one.Set("idle", explanation(Env(), worker.idle));
      list.Set(list.Length(), one);
    }
    return list;
  }

  Napi::Value counters(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    auto object = Napi::Object::New(Env());
    Switch& forwarding = plane_->forwarding();
    uint64_t hits = 0, misses = 0, opened = 0, flooded = 0, encapsulated = 0, decapsulated = 0, segmented = 0;
    for (std::size_t worker = 0; worker < plane_->pipeline().workers(); ++worker) {
      const SwitchCounters& counters = forwarding.stage(worker).counters();
      hits += counters.flow_hits.get();
      misses += counters.flow_misses.get();
      opened += counters.connections_opened.get();
      flooded += counters.flooded.get();
      encapsulated += counters.encapsulated.get();
      decapsulated += counters.decapsulated.get();
      segmented += counters.segmented.get();
    }
    SwitchState& state = forwarding.state();
    FlowOffload::Totals offloaded;
    if (FlowOffload* offload = plane_->offload()) {
      offload->refresh();
      offloaded = offload->totals();
    }
    encapsulated += offloaded.encapsulated;
    decapsulated += offloaded.decapsulated;
    const auto set = [&](const char* name, uint64_t value) { object.Set(name, count(Env(), value)); };
    set("flowHits", hits);
    set("flowMisses", misses);
    set("flooded", flooded);
    set("encapsulated", encapsulated);
    set("decapsulated", decapsulated);
    set("segmented", segmented);
    set("offloadedFlows", offloaded.flows);
    set("offloadedPackets", offloaded.traffic.packets);
    set("offloadedBytes", offloaded.traffic.bytes);
    set("offloadOffers", offloaded.offered);
    set("offloadTaken", offloaded.taken);
    set("offloadRefused", offloaded.refused);
    set("offloadFull", offloaded.full);
    set("offloadLost", offloaded.lost);
    set("connections", state.connections().size());
    set("connectionsOpened", opened);
    set("connectionsRefused", state.connections().refused());
    set("connectionsDroppedEarly", state.connections().dropped_early());
    set("invalidSegments", state.connections().invalid());
    set("addresses", state.forwarding().size());
    set("addressesLearned", state.forwarding().learned());
    set("addressesMoved", state.forwarding().moved());
    set("addressesRefused", state.forwarding().refused());
    set("captures", state.captures().size());
    set("generation", forwarding.generation());
    return object;
  }

  Napi::Value addresses(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    auto list = Napi::Array::New(Env());
    const auto now_s = static_cast<uint32_t>(monotonic_ns() / 1'000'000'000);
    for (const auto& entry : plane_->forwarding().state().forwarding().list(now_s)) {
      auto one = Napi::Object::New(Env());
      one.Set("network", Napi::Number::New(Env(), entry.network));
      one.Set("mac", to_text(entry.mac));
      one.Set(entry.target.kind == TargetKind::port ? "port" : "peer",
              Napi::Number::New(Env(), entry.target.index));
      one.Set("ageSeconds", Napi::Number::New(Env(), entry.age_seconds));
      one.Set("static", Napi::Boolean::New(Env(), entry.is_static));
      list.Set(list.Length(), one);
    }
    return list;
  }

  // connections(max): the first ones, as they lie in the table.
  Napi::Value connections(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const uint32_t most = info[0].As<Napi::Number>().Uint32Value();
    auto list = Napi::Array::New(Env());
    const auto now_s = static_cast<uint32_t>(monotonic_ns() / 1'000'000'000);
    plane_->forwarding().state().connections().for_each([&](const Connection& connection) {
      if (list.Length() >= most) return;
      auto one = Napi::Object::New(Env());
      one.Set("flow", to_text(connection.original));
      if (connection.translated) one.Set("translated", to_text(connection.outgoing(Direction::original)));
      one.Set("network", Napi::Number::New(Env(), connection.original.vni));
      one.Set("answered", Napi::Boolean::New(Env(), connection.replied.load(std::memory_order_relaxed)));
      const uint32_t expires = connection.expires_s.load(std::memory_order_relaxed);
      one.Set("expiresSeconds", Napi::Number::New(Env(), expires > now_s ? expires - now_s : 0));
      for (std::size_t side = 0; side < 2; ++side)
        one.Set(side == 0 ? "sent" : "answers",
                traffic(Env(), {connection.packets[side].load(std::memory_order_relaxed),
                                connection.bytes[side].load(std::memory_order_relaxed)}));
      list.Set(list.Length(), one);
    });
    return list;
  }

  Napi::Value peers(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    PeerTable& table = plane_->forwarding().state().peers();
    auto list = Napi::Array::New(Env());
    for (uint16_t i = 0; i < table.size(); ++i) {
      const PeerTable::Peer& peer = table.at(i);
      auto one = Napi::Object::New(Env());
      one.Set("address", to_text(peer.address, peer.ip_version));
      const PeerTraffic passed = plane_->forwarding().peer_traffic(i);
      one.Set("received", count(Env(), passed.received));
      one.Set("transmitted", count(Env(), passed.transmitted));
      list.Set(list.Length(), one);
    }
    return list;
  }

  // Whether programs in the kernel forward decided flows, and why not.
  Napi::Value offload(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    auto object = Napi::Object::New(Env());
    const bool wanted = plane_->forwarding().wants_offload();
    const bool here = plane_->offload() != nullptr;
    object.Set("state", !wanted ? "off" : here ? "on" : "unavailable");
    if (wanted && !here) object.Set("finding", plane_->offload_finding());
    return object;
  }

  // setPathMtu(peer, bytes): what a probe found; 0 takes it back. The peer is an index of `peers`.
  Napi::Value set_path_mtu(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    plane_->set_path_mtu(static_cast<uint16_t>(info[0].As<Napi::Number>().Uint32Value()),
                         info[1].As<Napi::Number>().Uint32Value());
    return Env().Undefined();
  }

  // Keeps what a capture uses: the reader's memory, and the way to wake it.
  struct Onlooker {
    std::shared_ptr<Capture> capture;
    std::shared_ptr<Waker> waker;
    Napi::Reference<Napi::Uint8Array> memory;
  };

  // beginCapture(memory, options, wake): the number of the capture.
  Napi::Value begin_capture(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    auto memory = info[0].As<Napi::Uint8Array>();
    auto options = capture_options_of(info[1].As<Napi::Object>());
    if (!options) {
      to_js_error(Env(), options.error()).ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    auto waker = std::make_shared<Waker>(Env(), info[2].As<Napi::Function>(), "penstock capture");
    auto opened = Capture::open(
        std::move(*options), plane_->pipeline().workers(), plane_->forwarding().state().limits().ports_max,
        {reinterpret_cast<std::byte*>(memory.Data()), memory.ByteLength()}, [waker] { waker->wake(); });
    if (!opened) {
      to_js_error(Env(), opened.error()).ThrowAsJavaScriptException();
      return Env().Undefined();
    }
    const uint32_t number = next_capture_++;
    std::shared_ptr<Capture> capture = std::move(*opened);
    captures_.emplace(number, Onlooker{capture, waker, Napi::Persistent(memory)});
    return on_pool(
        Value(),
        [plane = plane_, capture, number]() -> Result<uint32_t> {
          if (auto added = plane->begin_capture(capture); !added) return added.error();
          return number;
        },
        [](Napi::Env env, uint32_t added) -> Napi::Value { return Napi::Number::New(env, added); });
  }

  // endCapture(number): when it is settled no worker writes any more, and the memory is the reader's alone.
  // Answers the packets that were lost, by port.
  Napi::Value end_capture(const Napi::CallbackInfo& info) {
    if (refuse_stopped()) return Env().Undefined();
    const uint32_t number = info[0].As<Napi::Number>().Uint32Value();
    const auto found = captures_.find(number);
    if (found == captures_.end()) return Env().Undefined();
    return on_pool(
        Value(),
        [plane = plane_, capture = found->second.capture]() -> Result<std::vector<uint64_t>> {
          SwitchState& state = plane->forwarding().state();
          if (auto removed = state.captures().remove(capture); !removed) return removed.error();
          std::vector<uint64_t> lost(state.limits().ports_max);
          for (std::size_t port = 0; port < lost.size(); ++port)
            lost[port] = capture->lost(static_cast<PortId>(port));
          return lost;
        },
        [this, number](Napi::Env env, const std::vector<uint64_t>& lost) -> Napi::Value {
          captures_.erase(number);
          auto list = Napi::Array::New(env, lost.size());
          for (uint32_t port = 0; port < lost.size(); ++port) list.Set(port, count(env, lost[port]));
          return list;
        });
  }

  // Ends the workers and closes the ports; nothing else may be called from now on.
  Napi::Value stop(const Napi::CallbackInfo&) {
    if (refuse_stopped()) return Env().Undefined();
    return on_pool(Value(), [plane = std::exchange(plane_, nullptr)]() mutable -> Result<void> {
      plane.reset();
      return {};
    });
  }

  std::map<uint32_t, Onlooker> captures_;
  uint32_t next_capture_ = 1;
  bool hooked_ = false;
  // Shared with work under way on the thread pool. Goes before the memory that its captures write to.
  std::shared_ptr<DataPlane> plane_;
};

Napi::Object capture_layout(Napi::Env env) {
  using namespace net;  // NOLINT: the listed structures are named as there
  Layout layout(env);
#include "bindings/capture_layout.inc"
  layout.put("kCapturePacket", net::kCapturePacket);
  layout.put("kCaptureHeaderBytes", net::kCaptureHeaderBytes);
  layout.put("kCaptureHeadOffset", net::kCaptureHeadOffset);
  layout.put("kCaptureRecordsOffset", net::kCaptureRecordsOffset);
  return layout.object();
}

// The names of drop reasons and what they say, by number.
Napi::Array drop_reasons(Napi::Env env) {
  auto list = Napi::Array::New(env, kDropReasons);
  for (uint32_t i = 0; i < kDropReasons; ++i) {
    auto one = Napi::Object::New(env);
    one.Set("name", std::string(kDropReasonNames[i]));
    one.Set("sentence", std::string(kDropReasonSentences[i]));
    list.Set(i, one);
  }
  return list;
}

void export_data_plane(Napi::Env env, Napi::Object exports) {
  DataPlaneWrap::initialize(env, exports);
  exports.Set("captureLayout", capture_layout(env));
  exports.Set("dropReasons", drop_reasons(env));
}

}  // namespace

PENSTOCK_EXPORT(export_data_plane);

}  // namespace penstock::bindings

#include "native/switch/rule_record.h"

#include <cstring>
#include <string>

namespace penstock::net {
namespace {

constexpr std::size_t kValue = 8, kMask = 72, kPorts = 136, kPriority = 144, kVerdict = 148, kSegment = 149,
                      kNatKind = 150, kFlags = 151, kOutput = 152, kMeter = 154, kMirror = 156, kMark = 158,
                      kDscp = 160, kPeer = 164, kNatAddress = 168, kNatPorts = 184, kNatMac = 192;
constexpr uint8_t kHasMark = 1, kHasDscp = 2;
constexpr std::size_t kGroupValue = 0, kGroupMask = 64, kGroupPorts = 128, kGroupDirection = 136;

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

PortRange load_range(const std::byte* at) {
  return {load<uint16_t>(at), load<uint16_t>(at + 2)};
}

Match load_match(const std::byte* value, const std::byte* mask, const std::byte* ports) {
  Match match;
  std::memcpy(match.value.words.data(), value, sizeof(match.value.words));
  std::memcpy(match.mask.words.data(), mask, sizeof(match.mask.words));
  match.source_ports = load_range(ports);
  match.destination_ports = load_range(ports + 4);
  return match;
}

bool consistent(const Match& match) {
  for (std::size_t i = 0; i < match.value.words.size(); ++i)
    if ((match.value.words[i] & ~match.mask.words[i]) != 0) return false;
  return true;
}

Error bad(std::size_t index, const char* what) {
  return Error{EINVAL, "record " + std::to_string(index) + ": " + what};
}

}  // namespace

Result<std::vector<RuleConfig>> read_rules(std::span<const std::byte> buffer) {
  if (buffer.size() % kRuleRecordBytes != 0) return Error{EINVAL, "rules: no whole number of records"};
  std::vector<RuleConfig> rules(buffer.size() / kRuleRecordBytes);
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const std::byte* at = buffer.data() + i * kRuleRecordBytes;
    RuleConfig& rule = rules[i];
    rule.id = load<uint64_t>(at);
    rule.match = load_match(at + kValue, at + kMask, at + kPorts);
    rule.priority = load<uint32_t>(at + kPriority);
    const auto verdict = load<uint8_t>(at + kVerdict);
    const auto segment = load<uint8_t>(at + kSegment);
    const auto nat = load<uint8_t>(at + kNatKind);
    const auto flags = load<uint8_t>(at + kFlags);
    if (!consistent(rule.match)) return bad(i, "a value with bits outside its mask");
    if (verdict > static_cast<uint8_t>(Verdict::punt)) return bad(i, "an unknown verdict");
    if (segment > static_cast<uint8_t>(SegmentBy::engine)) return bad(i, "an unknown segmenter");
    if (nat > static_cast<uint8_t>(NatKind::destination)) return bad(i, "an unknown translation");
    Actions& actions = rule.actions;
    actions.verdict = static_cast<Verdict>(verdict);
    actions.segment = static_cast<SegmentBy>(segment);
    actions.output = load<uint16_t>(at + kOutput);
    actions.meter = load<uint16_t>(at + kMeter);
    actions.mirror = load<uint16_t>(at + kMirror);
    if ((flags & kHasMark) != 0) actions.mark = load<uint16_t>(at + kMark);
    if ((flags & kHasDscp) != 0) actions.dscp = load<uint8_t>(at + kDscp);
    actions.tunnel_peer = load<uint32_t>(at + kPeer);
    actions.nat.kind = static_cast<NatKind>(nat);
    std::memcpy(actions.nat.address.data(), at + kNatAddress, actions.nat.address.size());
    actions.nat.ports = load_range(at + kNatPorts);
    actions.nat.mac = load<uint64_t>(at + kNatMac);
  }
  return rules;
}

Result<std::vector<GroupRule>> read_group(std::span<const std::byte> buffer) {
  if (buffer.size() % kGroupRecordBytes != 0) return Error{EINVAL, "group: no whole number of records"};
  std::vector<GroupRule> rules(buffer.size() / kGroupRecordBytes);
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const std::byte* at = buffer.data() + i * kGroupRecordBytes;
    rules[i].match = load_match(at + kGroupValue, at + kGroupMask, at + kGroupPorts);
    rules[i].direction =
        load<uint8_t>(at + kGroupDirection) == 0 ? GroupDirection::to_port : GroupDirection::from_port;
    if (!consistent(rules[i].match)) return bad(i, "a value with bits outside its mask");
  }
  return rules;
}

}  // namespace penstock::net

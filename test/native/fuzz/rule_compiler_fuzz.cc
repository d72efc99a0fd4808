// The rule compiler: records of any bytes are refused with their number or become a table that answers as a
// walk over the rules in order of priority does. Keys are those of the rules, changed a little, and raw ones.
//
//   | flags | rules 8 | bytes of keys ... | records ... |
//
// Flags bit 0: raw records. Otherwise each record is made consistent, and drawn from few masks, so that rules
// share tuples and buckets. Bit 1: a group instead of rules.
#include <cstring>
#include <string>

#include "native/switch/rule_record.h"
#include "native/switch/rule_table.h"
#include "test/native/support/fuzz_frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

constexpr std::size_t kKeysMax = 24;
constexpr std::size_t kRuleValue = 8, kRuleMask = 72, kRulePorts = 136, kRuleVerdict = 148,
                      kRuleSegment = 149, kRuleNat = 150;
constexpr std::size_t kGroupMask = 64;

// Sixteen masks of a byte's choice: whole words, halves, prefixes.
uint64_t mask_word(unsigned kind, std::size_t word) {
  switch ((kind >> (word % 4)) & 3) {
    case 0:
      return 0;
    case 1:
      return ~0ULL;
    case 2:
      return ~0ULL << 16;
    default:
      return 0xffffULL;
  }
}

// Sets a mask and clears what the value has beside it, in the record at `at`.
void make_consistent(std::byte* value, std::byte* mask, unsigned kind) {
  for (std::size_t word = 0; word < 8; ++word) {
    const uint64_t bits = mask_word(kind, word);
    uint64_t held = 0;
    std::memcpy(&held, value + word * 8, 8);
    held &= bits & 0x0303030303030303ULL;  // few values: rules that differ only in priority or ports
    std::memcpy(mask + word * 8, &bits, 8);
    std::memcpy(value + word * 8, &held, 8);
  }
}

uint32_t first_in_order(std::span<const RuleTable::Entry> rules, const MatchWords& key) {
  uint32_t best = RuleTable::kNone;
  for (uint32_t i = 0; i < rules.size(); ++i) {
    if (!rules[i].match.matches(key)) continue;
    if (best == RuleTable::kNone || rules[i].priority > rules[best].priority) best = i;
  }
  return best;
}

void compare(std::span<const RuleTable::Entry> rules, const Bytes& key_bytes) {
  const RuleTable table(rules);
  expect(table.size() == rules.size());
  expect(table.tuples() <= rules.size());
  const auto check = [&](const MatchWords& key) {
    const uint32_t found = table.find(key);
    expect(found == first_in_order(rules, key));
    // What no rule looks at changes nothing.
    MatchWords other = key;
    for (std::size_t i = 0; i < other.words.size(); ++i) other.words[i] ^= ~table.used().words[i];
    expect(table.find(other) == found);
  };
  for (std::size_t i = 0; i < rules.size() && i < kKeysMax; ++i) {
    MatchWords key = rules[i].match.value;
    key.set_source_port(rules[i].match.source_ports.first);
    key.set_destination_port(rules[i].match.destination_ports.last);
    check(key);
    if (!key_bytes.empty()) {
      key.words[i % 8] ^= static_cast<uint64_t>(key_bytes[i % key_bytes.size()]) << (i % 57);
      check(key);
    }
  }
  for (std::size_t at = 0; at + sizeof(MatchWords) <= key_bytes.size(); at += sizeof(MatchWords)) {
    MatchWords key;
    std::memcpy(key.words.data(), key_bytes.data() + at, sizeof(key.words));
    check(key);
  }
}

// A refusal names a record that is there, or the whole buffer.
void expect_named(const penstock::Error& error, std::size_t records) {
  expect(error.code == EINVAL);
  const std::string& message = error.message;
  if (message.rfind("record ", 0) == 0) expect(std::stoul(message.substr(7)) < records);
}

void try_rules(Bytes records, bool raw, const Bytes& key_bytes) {
  for (std::size_t at = 0; !raw && at + kRuleRecordBytes <= records.size(); at += kRuleRecordBytes) {
    std::byte* record = records.data() + at;
    make_consistent(record + kRuleValue, record + kRuleMask, static_cast<unsigned>(record[kRuleMask]));
    record[kRuleVerdict] = record[kRuleVerdict] & std::byte{1};
    record[kRuleSegment] = record[kRuleNat] = std::byte{0};
    if ((record[kRulePorts] & std::byte{1}) == std::byte{0}) {  // half of them: any port
      constexpr uint16_t whole[4] = {0, 65535, 0, 65535};
      std::memcpy(record + kRulePorts, whole, sizeof(whole));
    }
  }
  const auto rules = read_rules(records);
  if (!rules) return expect_named(rules.error(), records.size() / kRuleRecordBytes);
  expect(rules->size() * kRuleRecordBytes == records.size());
  std::vector<RuleTable::Entry> entries;
  for (const RuleConfig& rule : *rules) entries.push_back({rule.match, rule.priority});
  compare(entries, key_bytes);
}

void try_group(Bytes records, bool raw, const Bytes& key_bytes) {
  for (std::size_t at = 0; !raw && at + kGroupRecordBytes <= records.size(); at += kGroupRecordBytes) {
    std::byte* record = records.data() + at;
    make_consistent(record, record + kGroupMask, static_cast<unsigned>(record[kGroupMask]));
  }
  const auto group = read_group(records);
  if (!group) return expect_named(group.error(), records.size() / kGroupRecordBytes);
  expect(group->size() * kGroupRecordBytes == records.size());
  std::vector<RuleTable::Entry> entries;
  for (const GroupRule& rule : *group) entries.push_back({rule.match, 0});
  compare(entries, key_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  const uint8_t flags = input.byte();
  Bytes key_bytes;
  for (std::size_t left = input.byte() % 65U; left > 0 && !input.empty(); --left)
    key_bytes.push_back(static_cast<std::byte>(input.byte()));
  const bool raw = (flags & 1) != 0;
  if ((flags & 2) != 0) {
    try_group(input.rest(), raw, key_bytes);
  } else {
    try_rules(input.rest(), raw, key_bytes);
  }
  return 0;
}

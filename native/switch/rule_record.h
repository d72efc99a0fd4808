// Rules on their way from JavaScript: records of fixed size in one buffer, host byte order, every field at
// its own offset.
//
//   RuleRecord, 208 bytes
//     0 id            8 value[8]       72 mask[8]        136 source ports   140 destination ports
//   144 priority    148 verdict 149 segment 150 nat kind 151 flags (1: mark, 2: dscp)
//   152 output      154 meter          156 mirror        158 mark          160 dscp
//   164 tunnel peer 168 nat address[16] 184 nat ports     192 nat mac       200 reserved
//
//   GroupRecord, 144 bytes: value[8], mask[8], source ports, destination ports, direction
//
// src/network/compile.ts writes them; a test compares what arrives with what was meant, field by field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "native/base/result.h"
#include "native/switch/config.h"

namespace penstock::net {

inline constexpr std::size_t kRuleRecordBytes = 208;
inline constexpr std::size_t kGroupRecordBytes = 144;

// EINVAL, with the record's number, for a buffer that is no whole number of records, an unknown verdict, or a
// value with bits outside its mask.
Result<std::vector<RuleConfig>> read_rules(std::span<const std::byte> buffer);
Result<std::vector<GroupRule>> read_group(std::span<const std::byte> buffer);

}  // namespace penstock::net

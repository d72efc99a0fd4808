// For small structures that one step of the packet path writes and the next one reads: as whole words.
#pragma once

#include <cstdint>

namespace penstock {

// Keeps a word in a general register. GCC otherwise gathers neighbouring words into vectors by way of the
// stack, and every such load waits for the narrower stores before it; or takes a word apart into its fields.
[[gnu::always_inline]] inline uint64_t in_register(uint64_t word) {
  asm("" : "+r"(word));
  return word;
}

}  // namespace penstock

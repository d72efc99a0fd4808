// Keeps small what glibc's allocator holds of memory that nobody uses: for a process that lives long and
// whose resident size counts. A library must not decide this for its host.
#pragma once

#include <cstddef>

namespace penstock {

// Best before threads start; what they have by then stays as it is. Without effect on other C libraries.
void bound_malloc();

// What is allocated and not freed, of all arenas and mapped pieces; what the allocator keeps of freed memory
// is not in it. 0 on C libraries that do not tell.
std::size_t malloc_bytes_in_use();

}  // namespace penstock

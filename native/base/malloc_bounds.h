// Keeps small what glibc's allocator holds of memory that nobody uses: for a process that lives long and
// whose resident size counts. A library must not decide this for its host.
#pragma once

namespace penstock {

// Best before threads start; what they have by then stays as it is. Without effect on other C libraries.
void bound_malloc();

}  // namespace penstock

// How long a thread could have run and did not, since another had the processor.
#pragma once

#include <cstdint>

namespace penstock {

// Of the calling thread, in nanoseconds since it began; a system call of less than a microsecond. The
// kernel's own account (run_delay, the second number of /proc/thread-self/schedstat): what a hypervisor takes
// away is not in it. A kernel without it (CONFIG_SCHED_INFO) answers wall clock minus processor time, whose
// differences say the same as long as the thread does not sleep, and what a hypervisor takes besides.
uint64_t thread_waited_ns();

}  // namespace penstock

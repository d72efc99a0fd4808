#include "native/base/processor_wait.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <system_error>

#include "native/base/clock.h"
#include "native/base/fd.h"

namespace penstock {

uint64_t thread_waited_ns() {
  // The file stays that of the thread that opened it.
  thread_local const Fd schedstat(::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC));
  char text[64];
  const ssize_t length = schedstat.valid() ? ::pread(schedstat.get(), text, sizeof(text), 0) : -1;
  if (length > 0) {
    const char* const end = text + length;
    const char* const ran_end =
        static_cast<const char*>(std::memchr(text, ' ', static_cast<std::size_t>(length)));
    uint64_t waited_ns = 0;
    if (ran_end != nullptr && std::from_chars(ran_end + 1, end, waited_ns).ec == std::errc())
      return waited_ns;
  }
  return monotonic_ns() - thread_cpu_ns();
}

}  // namespace penstock

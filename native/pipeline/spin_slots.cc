#include "native/pipeline/spin_slots.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace penstock::net {

Result<std::unique_ptr<SpinSlots>> SpinSlots::open(const std::string& directory, unsigned slots,
                                                   unsigned worker) {
  auto opened = std::make_unique<SpinSlots>();
  if (slots == 0) return opened;
  if (::mkdir(directory.c_str(), 0755) < 0 && errno != EEXIST)
    return Error::from_errno(errno, "make the directory of the spin slots, " + directory);
  const unsigned first = (static_cast<unsigned>(::getpid()) + worker) % slots;
  for (unsigned i = 0; i < std::min(slots, kSlotsTried); ++i) {
    const std::string path = directory + "/spin-" + std::to_string((first + i) % slots);
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!file.valid()) return Error::from_errno(errno, "open the spin slot " + path);
    opened->files_.push_back(std::move(file));
  }
  return opened;
}

unsigned SpinSlots::slots_of_host() {
  const long processors = ::sysconf(_SC_NPROCESSORS_ONLN);
  return processors > 1 ? static_cast<unsigned>(processors - 1) : 0;
}

bool SpinSlots::try_hold() {
  if (held_ != SIZE_MAX) return true;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (::flock(files_[i].get(), LOCK_EX | LOCK_NB) < 0) continue;  // held by somebody else
    held_ = i;
    return true;
  }
  return false;
}

void SpinSlots::release() {
  if (held_ == SIZE_MAX) return;
  ::flock(files_[held_].get(), LOCK_UN);
  held_ = SIZE_MAX;
}

}  // namespace penstock::net

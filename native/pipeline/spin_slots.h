// How many workers of the whole host may spin at once: one less than it has processors, so that one is always
// left for everybody else.
//
//   /run/penstock/spin-0, spin-1, ... spin-(CPUs - 2)      one file a slot; who spins holds its flock
//
// A lock belongs to an open file and dies with its process, however that ends: no slot is ever leaked, and
// there is nothing to clean up. The files stay; they are empty.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock::net {

// Permission to spin, held from the first spin until the next sleep. One worker's thread.
class SpinPermit {
 public:
  virtual ~SpinPermit() = default;
  virtual bool try_hold() = 0;
  virtual void release() = 0;
};

inline constexpr const char* kSpinDirectory = "/run/penstock";

class SpinSlots final : public SpinPermit {
 public:
  // A worker tries at most so many slots, from one that its number picks: a bound on descriptors and system
  // calls.
  static constexpr unsigned kSlotsTried = 8;

  // `slots` 0 never grants one. The directory is made when it is missing.
  static Result<std::unique_ptr<SpinSlots>> open(const std::string& directory, unsigned slots,
                                                 unsigned worker);
  // Processors this process may run on, less one.
  static unsigned slots_of_host();

  bool try_hold() override;
  void release() override;

 private:
  std::vector<Fd> files_;
  std::size_t held_ = SIZE_MAX;
};

}  // namespace penstock::net

// Which channel a mount gets. FUSE over io_uring must be asked for in INIT and cannot be given back, so
// whatever of it can fail is made before; after INIT the answer of the kernel decides.
//
//   prepare() ── rings, or why not ──> handshake(io_uring = rings) ──> open() ── rings and agreed:
//   UringChannel
//                                                                            '─ else: DeviceChannel
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "native/base/fd.h"
#include "native/base/result.h"
#include "native/fuse/channel.h"

namespace penstock::fuse {

class UringChannel;

enum class UringUse : uint8_t { off, if_possible, required };

struct ChannelChoice {
  UringUse io_uring = UringUse::off;
  uint32_t depth = 0;  // entries for each CPU; 0: chosen here
};

class ChannelMaker {
 public:
  // An error only where io_uring is required.
  static Result<ChannelMaker> prepare(const ChannelChoice& choice, uint32_t workers);
  ChannelMaker(ChannelMaker&&) noexcept;
  ~ChannelMaker();

  bool wants_uring() const { return rings_ != nullptr; }
  Result<std::unique_ptr<Channel>> open(Fd device, bool uring_agreed);
  // Why io_uring is not used though it was to be if possible.
  const std::string& refusal() const { return refusal_; }

 private:
  ChannelMaker(UringUse use, uint32_t workers);

  UringUse use_;
  uint32_t workers_;
  std::unique_ptr<UringChannel> rings_;
  std::string refusal_;
};

}  // namespace penstock::fuse

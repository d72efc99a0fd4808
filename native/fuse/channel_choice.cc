#include "native/fuse/channel_choice.h"

#include "native/fuse/device_channel.h"
#include "native/fuse/uring_channel.h"

namespace penstock::fuse {

namespace {

constexpr const char* kNotOffered =
    "the kernel does not offer FUSE over io_uring; it needs Linux 6.14 and "
    "\"echo Y > /sys/module/fuse/parameters/enable_uring\"";

}  // namespace

ChannelMaker::ChannelMaker(UringUse use, uint32_t workers) : use_(use), workers_(workers) {}
ChannelMaker::ChannelMaker(ChannelMaker&&) noexcept = default;
ChannelMaker::~ChannelMaker() = default;

Result<ChannelMaker> ChannelMaker::prepare(const ChannelChoice& choice, uint32_t workers) {
  ChannelMaker maker(choice.io_uring, workers);
  if (choice.io_uring == UringUse::off) return maker;
  auto rings = UringChannel::create(workers, choice.depth);
  if (rings) {
    maker.rings_ = std::move(*rings);
    return maker;
  }
  if (choice.io_uring == UringUse::required) return rings.error();
  maker.refusal_ = rings.error().message;
  return maker;
}

Result<std::unique_ptr<Channel>> ChannelMaker::open(Fd device, bool uring_agreed) {
  if (rings_ != nullptr && uring_agreed) {
    if (auto opened = rings_->open(std::move(device)); !opened) return opened.error();
    return std::unique_ptr<Channel>(std::move(rings_));
  }
  if (use_ == UringUse::required) return Error{EOPNOTSUPP, kNotOffered};
  if (rings_ != nullptr) refusal_ = kNotOffered;
  rings_.reset();
  auto opened = DeviceChannel::open(std::move(device), workers_);
  if (!opened) return opened.error();
  return std::unique_ptr<Channel>(std::move(*opened));
}

}  // namespace penstock::fuse

#include "native/port/link_watch.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>

namespace penstock::net {

// One namespace: its event socket and who listens there.
struct LinkWatch::Place {
  NetworkNamespace space;
  Netlink netlink;
  std::vector<LinkListener*> listeners;
  std::vector<LinkListener*> fresh;  // still to be told the present facts
};

namespace {

struct LinkReport {
  std::string name;
  LinkEvent event;
};

LinkReport report_of(const nlmsghdr& message) {
  const auto* header = static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
  LinkReport report;
  report.event.present = message.nlmsg_type == RTM_NEWLINK;
  report.event.index = header->ifi_index;
  report.event.up = (header->ifi_flags & IFF_UP) != 0;
  for (const NetlinkAttribute& attribute : netlink_attributes(message, sizeof(ifinfomsg))) {
    if (attribute.type == IFLA_IFNAME) report.name = attribute.text();
    if (attribute.type == IFLA_MTU) report.event.mtu = attribute.u32();
  }
  return report;
}

Result<std::vector<LinkReport>> list_links() {
  auto netlink = Netlink::open(NETLINK_ROUTE);
  if (!netlink) return netlink.error();
  NetlinkMessage message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
  message.header(ifinfomsg{});
  std::vector<LinkReport> reports;
  auto done = netlink->dump(message, "listing links", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type == RTM_NEWLINK) reports.push_back(report_of(answer));
  });
  if (!done) return done.error();
  return reports;
}

void kick(int fd) {
  const uint64_t one = 1;
  // Can only fail with EAGAIN, when the event is set already.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof(one));
}

}  // namespace

Result<std::unique_ptr<LinkWatch>> LinkWatch::start() {
  std::unique_ptr<LinkWatch> watch(new LinkWatch());  // NOLINT: private constructor
  watch->wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!watch->wake_.valid()) return Error::from_errno(errno, "eventfd");
  watch->thread_ = std::thread([self = watch.get()] { self->run(); });
  return watch;
}

LinkWatch::~LinkWatch() {
  stopping_.store(true, std::memory_order_relaxed);
  kick(wake_.get());
  if (thread_.joinable()) thread_.join();
}

Result<void> LinkWatch::add(LinkListener& listener) {
  const NetworkNamespace& space = listener.link_namespace();
  const std::lock_guard lock(mutex_);
  auto place = std::find_if(places_.begin(), places_.end(),
                            [&](const auto& one) { return one->space.inode() == space.inode(); });
  if (place == places_.end()) {
    std::unique_ptr<Place> fresh;
    auto done = space.run([&]() -> Result<void> {
      auto netlink = Netlink::open(NETLINK_ROUTE, RTMGRP_LINK);
      if (!netlink) return netlink.error();
      fresh = std::make_unique<Place>(Place{space, std::move(*netlink), {}, {}});
      return {};
    });
    if (!done) return done;
    places_.push_back(std::move(fresh));
    place = places_.end() - 1;
  }
  (*place)->listeners.push_back(&listener);
  (*place)->fresh.push_back(&listener);
  kick(wake_.get());
  return {};
}

void LinkWatch::remove(LinkListener& listener) {
  const std::lock_guard lock(mutex_);
  for (const auto& place : places_) {
    std::erase(place->listeners, &listener);
    std::erase(place->fresh, &listener);
  }
  std::erase_if(places_, [](const auto& place) { return place->listeners.empty(); });
  kick(wake_.get());
}

void LinkWatch::run() {
  while (!stopping_.load(std::memory_order_relaxed)) {
    std::vector<pollfd> waiting{{wake_.get(), POLLIN, 0}};
    {
      const std::lock_guard lock(mutex_);
      for (const auto& place : places_) {
        hear(*place);
        waiting.push_back({place->netlink.descriptor(), POLLIN, 0});
      }
    }
    // A place removed meanwhile leaves a number here that may be closed (POLLNVAL) or another file's; either
    // way the list is made anew, and `remove` set the event.
    ::poll(waiting.data(), waiting.size(), -1);
    uint64_t events = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &events, sizeof(events));
  }
}

void LinkWatch::hear(Place& place) {
  std::vector<LinkReport> reports;
  const bool whole = place.netlink.drain([&](const nlmsghdr& message) {
    // Bridges announce their ports with a family of their own; only the plain message speaks of the link.
    if (message.nlmsg_type != RTM_NEWLINK && message.nlmsg_type != RTM_DELLINK) return;
    if (static_cast<const ifinfomsg*>(NLMSG_DATA(&message))->ifi_family == AF_UNSPEC)
      reports.push_back(report_of(message));
  });
  if (!whole) place.fresh = place.listeners;
  if (reports.empty() && place.fresh.empty()) return;
  auto done = place.space.run([&]() -> Result<void> {
    for (const LinkReport& report : reports) {
      for (LinkListener* listener : place.listeners) {
        const bool same = listener->link_name() == report.name;
        const bool renamed = !same && report.event.present && listener->link_index() == report.event.index;
        if (same || renamed) listener->on_link(same ? report.event : LinkEvent{});
      }
    }
    refresh(place);
    return {};
  });
  // The namespace can't be entered any more (we lost the privilege): its interfaces count as gone.
  if (!done) {
    for (LinkListener* listener : place.listeners) listener->on_link({});
  }
}

void LinkWatch::refresh(Place& place) {
  if (place.fresh.empty()) return;
  const auto reports = list_links();
  if (!reports) return kick(wake_.get());  // ENOBUFS under load: once more
  for (LinkListener* listener : std::exchange(place.fresh, {})) {
    const auto mine = std::find_if(reports->begin(), reports->end(), [&](const LinkReport& report) {
      return report.name == listener->link_name();
    });
    listener->on_link(mine == reports->end() ? LinkEvent{} : mine->event);
  }
}

}  // namespace penstock::net

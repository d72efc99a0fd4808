// Tells ports what happens to their interfaces: rtnetlink events of any number of network namespaces, read by
// one thread of its own.
//
// Events can be lost when they come faster than they are read (ENOBUFS). Then every listener of the namespace
// is told the present facts, as it is when it is added: what counts is the state, not the history.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "native/port/netlink.h"
#include "native/port/network_namespace.h"

namespace penstock::net {

struct LinkEvent {
  bool present = false;  // false: the interface was deleted, renamed or moved away
  int index = 0;
  bool up = false;  // administratively
  uint32_t mtu = 0;
};

class LinkListener {
 public:
  virtual ~LinkListener() = default;
  virtual std::string link_name() const = 0;
  // Its index now; 0 when it is gone.
  virtual int link_index() const = 0;
  virtual const NetworkNamespace& link_namespace() const = 0;
  // Called by the watching thread, inside the namespace.
  virtual void on_link(const LinkEvent& event) = 0;
};

class LinkWatch {
 public:
  static Result<std::unique_ptr<LinkWatch>> start();
  ~LinkWatch();

  // The listener must stay until removed; it is told the present facts soon.
  Result<void> add(LinkListener& listener);
  // After this returns the listener is not called any more. Not from inside on_link.
  void remove(LinkListener& listener);

 private:
  struct Place;
  LinkWatch() = default;
  void run();
  void hear(Place& place);
  void refresh(Place& place);

  std::mutex mutex_;  // guards places_ and what they hold
  std::vector<std::unique_ptr<Place>> places_;
  Fd wake_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace penstock::net

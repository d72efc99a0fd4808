// An interface taken over by the switch, and how it is given back as it was, also after kill -9.
//
// What changes                              how it is undone
//   kernel ingress dropped (nftables)         owner flag: gone with the process
//   promiscuity                               packet membership: gone with the socket
//   net.ipv6.conf.LINK.disable_ipv6 = 1       journal
//   set up, if it was down                    journal
// An interface that carries addresses is refused: taking them would take routes with them.
//
// Journal: DIRECTORY/takeover-NAMESPACE-INDEX.journal, written before the first change, locked by its owner
// as long as that lives, removed after the last undo. Whoever finds one unlocked undoes it.
//
//   penstock takeover 1 \n boot ID \n namespace INODE PATH \n link INDEX NAME \n
//   [sysctl ipv6/conf/NAME/disable_ipv6 VALUE \n] [down \n] end \n
// Without its last line nothing had been changed yet; of another boot there is nothing left to undo.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "native/base/fd.h"
#include "native/port/ingress_guard.h"
#include "native/port/link.h"
#include "native/port/network_namespace.h"

namespace penstock::net {

class Takeover {
 public:
  // Runs inside the namespace. EBUSY: another process holds it; EADDRINUSE: it carries addresses.
  static Result<std::unique_ptr<Takeover>> begin(const NetworkNamespace& space, const std::string& link,
                                                 const std::string& directory);
  // Gives the interface back.
  ~Takeover();
  Takeover(const Takeover&) = delete;
  Takeover& operator=(const Takeover&) = delete;

  // Undoes what processes that are gone left behind; how many interfaces. Called at start and at stop.
  static Result<std::size_t> restore_stale(const std::string& directory);

 private:
  struct Journal {
    std::string boot;
    uint64_t space_inode = 0;
    std::string space_path;
    int index = 0;
    std::string link;
    std::string disable_ipv6;  // value before; empty: not changed
    bool was_down = false;
  };

  Takeover() = default;
  Result<void> record(const std::string& directory);
  static std::string write_journal(const Journal& journal);
  static bool parse_journal(const std::string& text, Journal& journal);
  static Result<void> undo(const Journal& journal);

  Journal journal_;
  std::unique_ptr<NetworkNamespace> space_;
  std::unique_ptr<IngressGuard> guard_;
  std::string path_;
  Fd lock_;
};

}  // namespace penstock::net

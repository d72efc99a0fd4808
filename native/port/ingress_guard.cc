#include "native/port/ingress_guard.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <array>

namespace penstock::net {
namespace {

// Before every other chain of the hook.
constexpr int32_t kPriority = -1000;

constexpr uint16_t type_of(uint16_t message) {
  return static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message);
}

NetlinkMessage batch(uint16_t type) {
  NetlinkMessage message(type, NLM_F_REQUEST);
  return message.header(nfgenmsg{AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)});
}

NetlinkMessage change(uint16_t message_type) {
  NetlinkMessage message(type_of(message_type), NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  return message.header(nfgenmsg{NFPROTO_NETDEV, NFNETLINK_V0, 0});
}

}  // namespace

Result<IngressGuard> IngressGuard::raise(const std::string& link) {
  auto netlink = Netlink::open(NETLINK_NETFILTER);
  if (!netlink) return netlink.error();
  const std::string table = "penstock-" + link;

  NetlinkMessage new_table = change(NFT_MSG_NEWTABLE);
  new_table.text(NFTA_TABLE_NAME, table).be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
  NetlinkMessage new_chain = change(NFT_MSG_NEWCHAIN);
  new_chain.text(NFTA_CHAIN_TABLE, table).text(NFTA_CHAIN_NAME, "ingress");
  new_chain.begin(NFTA_CHAIN_HOOK)
      .be32(NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS)
      .be32(NFTA_HOOK_PRIORITY, static_cast<uint32_t>(kPriority))
      .text(NFTA_HOOK_DEV, link)
      .end();
  new_chain.be32(NFTA_CHAIN_POLICY, NF_DROP).text(NFTA_CHAIN_TYPE, "filter");

  std::array messages{batch(NFNL_MSG_BATCH_BEGIN), std::move(new_table), std::move(new_chain),
                      batch(NFNL_MSG_BATCH_END)};
  const std::string what = "nftables table " + table;
  if (auto done = netlink->transaction(messages, 2, what.c_str()); !done) return done.error();
  return IngressGuard(std::move(*netlink));
}

}  // namespace penstock::net

#include "native/fuse/handshake.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "native/fuse/channel.h"
#include "native/fuse/protocol.h"

namespace penstock::fuse {

namespace {

// What we take when offered.
//   atomic_o_trunc: open(O_TRUNC) is one request instead of OPEN and SETATTR, and nobody sees the file open
//   with its
//     old bytes; we truncate, with the times and suid rules of truncation, before the open is answered.
//   handle_killpriv_v2: writes carry a bit saying that suid, sgid and capabilities must go; clearing is ours.
//   no auto_inval_data: an exclusive holder tells the kernel what changed; a changed mtime means our own
//   write. no writeback_cache: it turns passthrough off, and acknowledged writes would die with the kernel's
//   page cache. no splice is asked for: a device takes answers by splice(2) all the same
//   (reply_pipe.h), and WRITE payload is copied once, from the request buffer to the cache.
constexpr uint64_t kWanted = init_flag::async_read | init_flag::posix_locks | init_flag::flock_locks |
                             init_flag::atomic_o_trunc | init_flag::big_writes | init_flag::dont_mask |
                             init_flag::do_readdirplus | init_flag::readdirplus_auto | init_flag::async_dio |
                             init_flag::parallel_dirops | init_flag::posix_acl | init_flag::max_pages |
                             init_flag::cache_symlinks | init_flag::handle_killpriv_v2 |
                             init_flag::setxattr_ext | init_flag::init_ext | init_flag::create_supp_group |
                             init_flag::direct_io_allow_mmap | init_flag::no_export_support;

}  // namespace

Result<Negotiated> handshake(int device, const HandshakeOptions& options, int timeout_ms) {
  pollfd ready{device, POLLIN, 0};
  if (::poll(&ready, 1, timeout_ms) != 1)
    return Error{ETIMEDOUT, "the kernel sent no FUSE INIT within " + std::to_string(timeout_ms) + " ms"};
  std::vector<std::byte> buffer(kRequestBuffer);
  const ssize_t got = ::read(device, buffer.data(), buffer.size());
  if (got < 0) return Error::from_errno(errno, "cannot read FUSE INIT");

  InHeader header{};
  InitIn in{};
  if (static_cast<std::size_t>(got) < sizeof(header) + kInitInSizeOld)
    return Error{EPROTO, "FUSE INIT is too short"};
  std::memcpy(&header, buffer.data(), sizeof(header));
  std::memcpy(&in, buffer.data() + sizeof(header),
              std::min(sizeof(in), static_cast<std::size_t>(got) - sizeof(header)));
  if (header.opcode != static_cast<uint32_t>(Opcode::init))
    return Error{EPROTO, "the first FUSE request is not INIT"};
  if (in.major != kProtocolMajor || in.minor < kProtocolMinorOldest) {
    return Error{EPROTO, "the kernel speaks FUSE " + std::to_string(in.major) + "." +
                             std::to_string(in.minor) + "; 7." + std::to_string(kProtocolMinorOldest) +
                             " (Linux 5.4) or later is needed"};
  }

  const uint64_t offered = in.flags | ((in.flags & init_flag::init_ext) != 0 ? uint64_t{in.flags2} << 32 : 0);
  const uint64_t wanted = kWanted | (options.passthrough ? init_flag::passthrough : 0) |
                          (options.io_uring ? init_flag::over_io_uring : 0);
  Negotiated negotiated{in.minor, offered & wanted};

  struct {
    OutHeader header;
    InitOut init;
  } out{};
  out.header = {sizeof(out), 0, header.unique};
  out.init.major = kProtocolMajor;
  out.init.minor = std::min(in.minor, kProtocolMinor);
  out.init.max_readahead = in.max_readahead;
  out.init.flags = static_cast<uint32_t>(negotiated.flags);
  out.init.flags2 = static_cast<uint32_t>(negotiated.flags >> 32);
  out.init.max_background = options.max_background;
  out.init.congestion_threshold = static_cast<uint16_t>(options.max_background * 3 / 4);
  out.init.max_write = kMaxTransfer;
  out.init.time_gran = 1;
  out.init.max_pages = kMaxTransfer / 4096;
  // The depth of file systems under ours that a passthrough file may sit on; 0 would refuse it.
  out.init.max_stack_depth = negotiated.has(init_flag::passthrough) ? 1 : 0;
  if (::write(device, &out, sizeof(out)) != static_cast<ssize_t>(sizeof(out)))
    return Error::from_errno(errno, "cannot answer FUSE INIT");
  return negotiated;
}

}  // namespace penstock::fuse

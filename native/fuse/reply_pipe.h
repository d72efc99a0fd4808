// An answer to READ whose bytes go from the page cache of a file into the request, by splice(2):
//
//   header ──write──┐
//                   ├──> pipe ──splice──> /dev/fuse, where the kernel copies them into the reader's pages
//   file ──splice───┘
//
// The pipe holds references to the pages of the file, not their bytes. So whoever calls sees to it that they
// stay as they are until the call returns; then the kernel has copied them (it is not told SPLICE_F_MOVE,
// which would take them out of the file's page cache).
#pragma once

#include <cstddef>
#include <cstdint>

#include "native/base/fd.h"

namespace penstock::fuse {

// Thread: one at a time.
class ReplyPipe {
 public:
  // Without a pipe, or with a smaller one, when the kernel allows no more.
  ReplyPipe() { open(); }

  // False: nothing was answered, and what got into the pipe is thrown away.
  bool reply(int device, uint64_t unique, int descriptor, uint64_t offset, std::size_t length);

 private:
  void open();
  bool fill(const void* header, std::size_t header_length, int descriptor, uint64_t offset,
            std::size_t length) const;

  Fd in_;
  Fd out_;
  std::size_t room_ = 0;  // bytes of a file that fit, wherever in a page they begin
};

}  // namespace penstock::fuse

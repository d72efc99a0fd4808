// Arbitrary bytes as a journal segment: replay must end in a state whose invariants hold, or in a clear
// error, and never touch memory that is not its own. The first byte says whether the input is a raw file, or
// payloads to be framed correctly, so that the fuzzer gets past the checksums:  [mode] [length u16,
// payload]...
#include <cstdlib>
#include <cstring>

#include "native/extent/recovery.h"

namespace {

using namespace penstock;
using namespace penstock::extent;

constexpr uint64_t kStoreId = 7;

class MemoryFile final : public File {
 public:
  std::vector<std::byte> content;

  Result<std::size_t> read(uint64_t offset, std::span<std::byte> out) override {
    if (offset >= content.size()) return std::size_t{0};
    const std::size_t there = std::min<std::size_t>(out.size(), content.size() - offset);
    std::memcpy(out.data(), content.data() + offset, there);
    return there;
  }
  Result<void> write(uint64_t, std::span<const std::byte>) override { return Error{EROFS, "read only"}; }
  Result<void> sync_data() override { return {}; }
  Result<void> allocate(uint64_t, uint64_t, bool) override { return Error{EROFS, "read only"}; }
  Result<void> truncate(uint64_t) override { return Error{EROFS, "read only"}; }
  Result<void> punch(uint64_t, uint64_t) override { return Error{EROFS, "read only"}; }
  Result<uint64_t> size() override { return uint64_t{content.size()}; }
  Result<void> lock() override { return {}; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  auto bytes = std::as_bytes(std::span{data, size}).subspan(1);
  MemoryFile file;
  if (data[0] % 2 == 0) {
    file.content.assign(bytes.begin(), bytes.end());
  } else {
    const FileHeader header{1, FileHeader::kJournal, kStoreId, 1, 1};
    append_frame(FrameKind::header, 0, std::as_bytes(std::span{&header, 1}), file.content);
    for (uint64_t number = 1; bytes.size() >= 2; number++) {
      uint16_t length = 0;
      std::memcpy(&length, bytes.data(), sizeof(length));
      bytes = bytes.subspan(2);
      const auto payload = bytes.first(std::min<std::size_t>(length, bytes.size()));
      append_frame(FrameKind::changes, number, payload, file.content);
      bytes = bytes.subspan(payload.size());
    }
  }
  Extents extents;
  extents.push_back(std::make_unique<Extent>(0, std::make_unique<MemoryFile>(), 512));
  StripeMap map(extents);
  MapReplayer replayer(map);
  const auto replayed = replay_segment(file, "segment", kStoreId, 1, 0, true, replayer);
  if (!replayed) {
    if (replayed.error().code != EBADMSG || replayed.error().message.empty()) std::abort();
    return 0;
  }
  extents[0]->finish_recovery();
  for (const std::string& broken : map.check_invariants(10)) {
    // A journal may well give one page to two stripes; what the map counts must agree all the same.
    if (broken.find("two owners") == std::string::npos) std::abort();
  }
  return 0;
}

#include "native/extent/change.h"

#include <bit>
#include <cstring>

namespace penstock::extent {
namespace {

static_assert(std::endian::native == std::endian::little, "store files are little-endian");

constexpr uint32_t kStage = 1;
constexpr uint32_t kDrop = 2;

template <typename T>
void put(std::vector<std::byte>& out, const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

template <typename T>
void put_all(std::vector<std::byte>& out, std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool at_end() const { return bytes_.empty(); }

  template <typename T>
  bool get(T& value) {
    if (bytes_.size() < sizeof(T)) return false;
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return true;
  }

  template <typename T>
  bool get_all(std::size_t count, std::vector<T>& values) {
    if (bytes_.size() / sizeof(T) < count) return false;
    values.resize(count);
    if (count > 0) std::memcpy(values.data(), bytes_.data(), count * sizeof(T));
    bytes_ = bytes_.subspan(count * sizeof(T));
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
};

bool decode_block(Reader& reader, PackedBlock& block) {
  uint16_t runs = 0;
  if (!reader.get(block.index) || !reader.get(block.extent) || !reader.get(runs)) return false;
  if (runs > kPagesPerBlock || !reader.get_all(runs, block.runs)) return false;
  if (runs == 0) {
    block.crcs.clear();
    return true;
  }
  const BlockRun& last = block.runs.back();
  if (last.last < last.first) return false;
  return reader.get_all(last.crc_index + last.count(), block.crcs) && is_well_formed(block.view());
}

bool decode_stage(Reader& reader, StageChange& change) {
  uint32_t blocks = 0;
  if (!reader.get(change.staged_at) || !reader.get(change.stripe) || !reader.get(change.base)) return false;
  if (!reader.get(change.version) || !reader.get(change.block_limit) || !reader.get(blocks)) return false;
  if (change.version == 0 || change.block_limit > kBlocksPerStripeMax || blocks > kBlocksPerStripeMax)
    return false;
  // The blocks of the change before keep their memory. One after the other: a damaged count ends in time.
  if (change.blocks.size() > blocks) change.blocks.resize(blocks);
  for (uint32_t i = 0; i < blocks; i++) {
    if (i == change.blocks.size()) change.blocks.emplace_back();
    PackedBlock& block = change.blocks[i];
    if (!decode_block(reader, block) || block.index >= kBlocksPerStripeMax) return false;
    if (i > 0 && change.blocks[i - 1].index >= block.index) return false;
  }
  return true;
}

}  // namespace

void encode_stage_header(const StageChange& change, uint32_t blocks, std::vector<std::byte>& out) {
  put(out, kStage);
  put(out, change.staged_at);
  put(out, change.stripe);
  put(out, change.base);
  put(out, change.version);
  put(out, change.block_limit);
  put(out, blocks);
}

void encode_block(uint32_t index, BlockView view, std::vector<std::byte>& out) {
  put(out, index);
  put(out, view.extent);
  put(out, static_cast<uint16_t>(view.runs.size()));
  put_all(out, view.runs);
  put_all(out, view.crcs);
}

void encode(const StageChange& change, std::vector<std::byte>& out) {
  encode_stage_header(change, static_cast<uint32_t>(change.blocks.size()), out);
  for (const PackedBlock& block : change.blocks) encode_block(block.index, block.view(), out);
}

void encode(const DropChange& change, std::vector<std::byte>& out) {
  put(out, kDrop);
  put(out, uint32_t{0});
  put(out, change.stripe);
  put(out, change.version);
}

Result<void> decode(std::span<const std::byte> bytes, ChangeVisitor& visitor) {
  Reader reader(bytes);
  StageChange stage;
  while (!reader.at_end()) {
    uint32_t kind = 0;
    if (!reader.get(kind)) return Error{EBADMSG, "a change is cut short"};
    if (kind == kStage) {
      if (!decode_stage(reader, stage)) return Error{EBADMSG, "a staged version is malformed"};
      if (auto done = visitor.stage(stage); !done) return done;
    } else if (kind == kDrop) {
      uint32_t reserved = 0;
      DropChange drop;
      if (!reader.get(reserved) || reserved != 0 || !reader.get(drop.stripe) || !reader.get(drop.version)) {
        return Error{EBADMSG, "a dropped version is malformed"};
      }
      if (auto done = visitor.drop(drop); !done) return done;
    } else {
      return Error{EBADMSG, "a change of unknown kind " + std::to_string(kind)};
    }
  }
  return {};
}

}  // namespace penstock::extent

#include "native/fuse/request.h"

namespace penstock::fuse {

namespace {

struct Shape {
  std::size_t fixed = 0;  // bytes before the names
  std::size_t names = 0;
};

Shape shape_of(Opcode opcode) {
  switch (opcode) {
    case Opcode::lookup:
    case Opcode::unlink:
    case Opcode::rmdir:
    case Opcode::removexattr:
      return {0, 1};
    case Opcode::symlink:
      return {0, 2};
    case Opcode::forget:
      return {sizeof(ForgetIn), 0};
    case Opcode::batch_forget:
      return {sizeof(BatchForgetIn), 0};
    case Opcode::getattr:
      return {sizeof(GetattrIn), 0};
    case Opcode::setattr:
      return {sizeof(SetattrIn), 0};
    case Opcode::mknod:
      return {sizeof(MknodIn), 1};
    case Opcode::mkdir:
      return {sizeof(MkdirIn), 1};
    case Opcode::rename:
      return {sizeof(RenameIn), 2};
    case Opcode::rename2:
      return {sizeof(Rename2In), 2};
    case Opcode::link:
      return {sizeof(LinkIn), 1};
    case Opcode::open:
    case Opcode::opendir:
      return {sizeof(OpenIn), 0};
    case Opcode::create:
    case Opcode::tmpfile:
      return {sizeof(CreateIn), opcode == Opcode::create ? std::size_t{1} : std::size_t{0}};
    case Opcode::read:
    case Opcode::readdir:
    case Opcode::readdirplus:
      return {sizeof(ReadIn), 0};
    case Opcode::write:
      return {sizeof(WriteIn), 0};
    case Opcode::release:
    case Opcode::releasedir:
      return {sizeof(ReleaseIn), 0};
    case Opcode::flush:
      return {sizeof(FlushIn), 0};
    case Opcode::fsync:
    case Opcode::fsyncdir:
      return {sizeof(FsyncIn), 0};
    case Opcode::setxattr:
      return {sizeof(SetxattrIn), 1};
    case Opcode::getxattr:
      return {sizeof(GetxattrIn), 1};
    case Opcode::listxattr:
      return {sizeof(GetxattrIn), 0};
    case Opcode::getlk:
    case Opcode::setlk:
    case Opcode::setlkw:
      return {sizeof(LkIn), 0};
    case Opcode::interrupt:
      return {sizeof(InterruptIn), 0};
    case Opcode::fallocate:
      return {sizeof(FallocateIn), 0};
    case Opcode::lseek:
      return {sizeof(LseekIn), 0};
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
      return {sizeof(CopyFileRangeIn), 0};
    default:
      return {};
  }
}

// Extensions are a list of (size, type) records at the very end; false when one overruns.
bool parse_extensions(std::span<const std::byte> list, Request& request) {
  while (list.size() >= sizeof(ExtHeader)) {
    ExtHeader ext;
    std::memcpy(&ext, list.data(), sizeof(ext));
    if (ext.size < sizeof(ext) || ext.size > list.size() || ext.size % 8 != 0) return false;
    if (ext.type == kExtGroups && ext.size >= sizeof(ext) + 2 * sizeof(uint32_t)) {
      uint32_t count = 0;
      std::memcpy(&count, list.data() + sizeof(ext), sizeof(count));
      if (count >= 1)
        std::memcpy(&request.group, list.data() + sizeof(ext) + sizeof(count), sizeof(uint32_t));
    }
    list = list.subspan(ext.size);
  }
  return list.empty();
}

// Takes `count` NUL-terminated names off the front of `bytes`.
bool parse_names(std::span<const std::byte> bytes, std::size_t count, Request& request) {
  for (std::size_t index = 0; index < count; ++index) {
    const void* end = bytes.empty() ? nullptr : std::memchr(bytes.data(), 0, bytes.size());
    if (end == nullptr) return false;
    const auto length = static_cast<std::size_t>(static_cast<const std::byte*>(end) - bytes.data());
    request.names[index] = {reinterpret_cast<const char*>(bytes.data()), length};
    bytes = bytes.subspan(length + 1);
  }
  return true;
}

// Lengths that the arguments themselves state.
bool check_stated_lengths(const Request& request) {
  switch (request.opcode()) {
    case Opcode::write:
      return request.arguments<WriteIn>().size == request.body.size() - sizeof(WriteIn);
    case Opcode::setxattr: {
      const std::size_t name_end = sizeof(SetxattrIn) + request.names[0].size() + 1;
      return request.arguments<SetxattrIn>().size == request.body.size() - name_end;
    }
    case Opcode::batch_forget:
      return (request.body.size() - sizeof(BatchForgetIn)) / sizeof(ForgetOne) >=
             request.arguments<BatchForgetIn>().count;
    default:
      return true;
  }
}

}  // namespace

std::vector<std::byte> widened_setxattr(std::span<const std::byte> bytes) {
  std::vector<std::byte> wide(bytes.begin(), bytes.end());
  constexpr std::size_t kEndOld = sizeof(InHeader) + kSetxattrInSizeOld;
  if (wide.size() < kEndOld) return wide;
  constexpr std::size_t kMissing = sizeof(SetxattrIn) - kSetxattrInSizeOld;
  wide.insert(wide.begin() + kEndOld, kMissing, std::byte{0});
  InHeader header;
  std::memcpy(&header, wide.data(), sizeof(header));
  header.len += kMissing;
  std::memcpy(wide.data(), &header, sizeof(header));
  return wide;
}

std::optional<Request> parse_request(std::span<const std::byte> bytes) {
  Request request;
  if (bytes.size() < sizeof(InHeader)) return std::nullopt;
  std::memcpy(&request.header, bytes.data(), sizeof(InHeader));
  if (request.header.len != bytes.size()) return std::nullopt;
  request.body = bytes.subspan(sizeof(InHeader));
  const std::size_t extensions = std::size_t{request.header.total_extlen} * 8;
  if (extensions > request.body.size()) return std::nullopt;
  if (!parse_extensions(request.body.last(extensions), request)) return std::nullopt;
  request.body = request.body.first(request.body.size() - extensions);
  const Shape shape = shape_of(request.opcode());
  if (request.body.size() < shape.fixed) return std::nullopt;
  if (!parse_names(request.tail(shape.fixed), shape.names, request)) return std::nullopt;
  if (!check_stated_lengths(request)) return std::nullopt;
  return request;
}

}  // namespace penstock::fuse

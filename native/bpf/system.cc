#include "native/bpf/system.h"

#include <linux/membarrier.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace penstock::bpf {
namespace {

// enum bpf_cmd
constexpr int kMapCreate = 0, kMapLookup = 1, kMapUpdate = 2, kMapDelete = 3, kProgramLoad = 5, kMapTake = 21,
              kMapLookupBatch = 24, kLinkCreate = 28;
constexpr uint64_t kUpdateFreshOnly = 1;
constexpr std::size_t kLogBytes = 64 * 1024;
// How much of the verifier's log an error tells.
constexpr std::size_t kLogTold = 600;
constexpr std::size_t kNameBytes = 16;

// The beginnings of union bpf_attr, as far as they are used here; what follows is zero to the kernel.
struct MapCreate {
  uint32_t type, key_bytes, value_bytes, entries_max, flags, inner_fd, numa_node;
  char name[kNameBytes];
};
struct MapElement {
  uint32_t map;
  uint32_t pad = 0;
  uint64_t key, value, flags;
};
struct MapBatch {
  uint64_t in_batch, out_batch, keys, values;
  uint32_t count, map;
  uint64_t element_flags, flags;
};
struct ProgramLoad {
  uint32_t type, instructions;
  uint64_t code, license;
  uint32_t log_level, log_bytes;
  uint64_t log;
  uint32_t kernel_version, flags;
  char name[kNameBytes];
};
struct LinkCreate {
  uint32_t program, target, attach_type, flags;
  uint64_t relative, expected_revision;
};

uint64_t address(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

template <typename Attributes>
int call(int command, Attributes& attributes) {
  return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
}

template <std::size_t N>
void put_name(char (&to)[N], const char* name) {
  std::strncpy(to, name, N - 1);
}

int element(int command, int map, const void* key, const void* value, uint64_t flags) {
  MapElement attributes{
      .map = static_cast<uint32_t>(map), .key = address(key), .value = address(value), .flags = flags};
  return call(command, attributes) < 0 ? errno : 0;
}

}  // namespace

Result<Fd> create_map(const char* name, const MapShape& shape) {
  MapCreate attributes{};
  attributes.type = static_cast<uint32_t>(shape.type);
  attributes.key_bytes = shape.key_bytes;
  attributes.value_bytes = shape.value_bytes;
  attributes.entries_max = shape.entries_max;
  attributes.flags = shape.flags;
  put_name(attributes.name, name);
  Fd map(call(kMapCreate, attributes));
  if (map.valid()) return map;
  return Error::from_errno(errno, std::string("BPF map ") + name);
}

Result<Fd> load_program(ProgramType type, const char* name, std::span<const Instruction> code) {
  ProgramLoad attributes{};
  attributes.type = static_cast<uint32_t>(type);
  attributes.instructions = static_cast<uint32_t>(code.size());
  attributes.code = address(code.data());
  // Helpers that forward packets are for programs that say so.
  attributes.license = address("GPL");
  put_name(attributes.name, name);
  Fd program(call(kProgramLoad, attributes));
  if (program.valid()) return program;
  const int failure = errno;
  // Once more for the reason.
  std::vector<char> log(kLogBytes);
  attributes.log_level = 1;
  attributes.log_bytes = static_cast<uint32_t>(log.size());
  attributes.log = address(log.data());
  program.reset(call(kProgramLoad, attributes));
  if (program.valid()) return program;
  const std::size_t length = ::strnlen(log.data(), log.size());
  std::string told(log.data() + length - std::min(length, kLogTold), std::min(length, kLogTold));
  std::replace(told.begin(), told.end(), '\n', ' ');
  return Error::from_errno(failure, std::string("BPF program ") + name + (told.empty() ? "" : ": " + told));
}

Result<Fd> attach_tcx(int program, int link_index, Hook hook) {
  LinkCreate attributes{};
  attributes.program = static_cast<uint32_t>(program);
  attributes.target = static_cast<uint32_t>(link_index);
  attributes.attach_type = static_cast<uint32_t>(hook);
  Fd link(call(kLinkCreate, attributes));
  if (link.valid()) return link;
  return Error::from_errno(errno, "tcx program of interface " + std::to_string(link_index));
}

Result<void> attach_filter(int socket, int program) {
  if (::setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)) == 0) return {};
  return Error::from_errno(errno, "filter of a packet socket");
}

Result<void> detach_filter(int socket) {
  const int nothing = 0;
  if (::setsockopt(socket, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(nothing)) == 0 || errno == ENOENT)
    return {};
  return Error::from_errno(errno, "filter of a packet socket");
}

int map_update(int map, const void* key, const void* value, bool fresh_only) {
  return element(kMapUpdate, map, key, value, fresh_only ? kUpdateFreshOnly : 0);
}

int map_lookup(int map, const void* key, void* value) {
  return element(kMapLookup, map, key, value, 0);
}

int map_remove(int map, const void* key) {
  return element(kMapDelete, map, key, nullptr, 0);
}

int map_take(int map, const void* key, void* value) {
  return element(kMapTake, map, key, value, 0);
}

int map_read(int map, bool first, void* cursor, void* keys, void* values, uint32_t& count) {
  MapBatch attributes{};
  attributes.in_batch = first ? 0 : address(cursor);
  attributes.out_batch = address(cursor);
  attributes.keys = address(keys);
  attributes.values = address(values);
  attributes.count = count;
  attributes.map = static_cast<uint32_t>(map);
  const int failure = call(kMapLookupBatch, attributes) < 0 ? errno : 0;
  count = failure == 0 || failure == ENOENT ? attributes.count : 0;
  return failure;
}

Result<void> wait_for_programs() {
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return {};
  return Error::from_errno(errno, "membarrier");
}

}  // namespace penstock::bpf

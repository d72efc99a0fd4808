// The bpf(2) calls that flow offload needs: maps, programs, and their attachment to interfaces.
//
// Everything is a descriptor: what is attached is detached when its descriptor goes, however the process
// ends. Needs CAP_BPF and CAP_NET_ADMIN, programs that look into the kernel's packet CAP_PERFMON as well; or
// CAP_SYS_ADMIN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/base/fd.h"
#include "native/base/result.h"
#include "native/bpf/assembler.h"

namespace penstock::bpf {

enum class MapType : uint32_t { hash = 1, array = 2, per_cpu_array = 6 };
enum class ProgramType : uint32_t { socket_filter = 1, classifier = 3 };
// Where a classifier looks at an interface's frames: as they come in, before the stack; as they go out.
enum class Hook : uint32_t { tcx_ingress = 46, tcx_egress = 47 };

inline constexpr uint32_t kMapMmapable = 1U << 10;

struct MapShape {
  MapType type;
  uint32_t key_bytes;
  uint32_t value_bytes;
  uint32_t entries_max;
  uint32_t flags = 0;
};

// EPERM without the capability; ENOMEM, also when RLIMIT_MEMLOCK of kernels before 5.11 is too small.
Result<Fd> create_map(const char* name, const MapShape& shape);

// The verifier's last words stand in the error's message.
Result<Fd> load_program(ProgramType type, const char* name, std::span<const Instruction> code);

// Of the calling thread's network namespace. EINVAL where the kernel has no tcx (before 6.6).
Result<Fd> attach_tcx(int program, int link_index, Hook hook);

// What a packet socket keeps of the frames it is shown: those for which the program does not answer 0.
Result<void> attach_filter(int socket, int program);
Result<void> detach_filter(int socket);

// 0, or an errno: ENOENT, EEXIST (with `fresh_only`), E2BIG when the map is full.
int map_update(int map, const void* key, const void* value, bool fresh_only = false);
int map_lookup(int map, const void* key, void* value);
int map_remove(int map, const void* key);
// Also what the entry's value was; ENOENT.
int map_take(int map, const void* key, void* value);

// Up to `count` entries into `keys` and `values`, one after the other, beginning where `cursor` (of key_bytes
// bytes at least; meaningless when `first`) says; it is moved. ENOENT with the last ones.
int map_read(int map, bool first, void* cursor, void* keys, void* values, uint32_t& count);

// Returns when every program that was running has ended: synchronize_rcu(), tens of milliseconds. EINVAL on a
// kernel with nohz_full processors.
Result<void> wait_for_programs();

}  // namespace penstock::bpf

// What every operation of the system-call server uses: slots, encodings, patterns and digests.
#include "fsop.h"

#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace fsop {

std::array<Slot, kSlots> slots;
bool closed_lately = false;

Slot& slot_of(const std::string& text) {
  return slots[static_cast<size_t>(number(text)) % kSlots];
}

int64_t number(const std::string& text) {
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string encode(std::string_view bytes) {
  if (bytes.empty()) return "%";
  std::string text;
  for (char const c : bytes) {
    bool const plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == '-' || c == '/';
    if (plain) {
      text += c;
    } else {
      char escaped[4];
      std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned char>(c));
      text += escaped;
    }
  }
  return text;
}

std::string decode(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      bytes += static_cast<char>(std::strtoul(std::string(text.substr(i + 1, 2)).c_str(), nullptr, 16));
      i += 2;
    } else {
      bytes += text[i];
    }
  }
  return bytes;
}

std::string ok(const std::string& value) {
  return value.empty() ? "ok" : "ok " + value;
}

std::string failure(int error) {
  const char* const name = strerrorname_np(error);
  return std::string("err ") + (name != nullptr ? name : std::to_string(error).c_str());
}

std::string result(int64_t value) {
  return value < 0 ? failure() : ok(value == 0 ? "" : std::to_string(value));
}

std::string describe(const struct stat& status) {
  char text[200];
  bool const directory = S_ISDIR(status.st_mode);
  bool const device = S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode);
  std::snprintf(text, sizeof text, "%o,%lu,%u,%u,%ld", status.st_mode,
                static_cast<unsigned long>(status.st_nlink), status.st_uid, status.st_gid,
                directory ? 0 : static_cast<long>(status.st_size));
  std::string line = text;
  if (device)
    line += ",rdev=" + std::to_string(major(status.st_rdev)) + ":" + std::to_string(minor(status.st_rdev));
  if (status.st_mtim.tv_sec < kExplicitTimeLimit) {
    line += ",m=" + std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
  }
  return line;
}

std::string digest(std::span<const uint8_t> bytes) {
  static constexpr uint8_t kZeros[4096] = {};
  std::string text = std::to_string(bytes.size());
  uint64_t previous = 0;
  size_t run = 0;
  auto const flush = [&] {
    if (run == 0) return;
    char piece[48];
    std::snprintf(piece, sizeof piece, run > 1 ? ",%lx*%zu" : ",%lx", static_cast<unsigned long>(previous),
                  run);
    text += piece;
    run = 0;
  };
  for (size_t at = 0; at < bytes.size(); at += 4096) {
    size_t const length = std::min<size_t>(4096, bytes.size() - at);
    uint64_t hash = 0;
    if (std::memcmp(bytes.data() + at, kZeros, length) != 0) {
      hash = 0xcbf29ce484222325;
      size_t i = 0;
      for (; i + 8 <= length; i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, bytes.data() + at + i, 8);
        hash = (hash ^ word) * 0x100000001b3;
        hash ^= hash >> 29;
      }
      for (; i < length; ++i) hash = (hash ^ bytes[at + i]) * 0x100000001b3;
      hash >>= 32;
    }
    if (run > 0 && hash != previous) flush();
    previous = hash;
    ++run;
  }
  flush();
  return text;
}

void fill(std::span<uint8_t> bytes, uint64_t seed, uint64_t offset) {
  for (size_t i = 0; i < bytes.size();) {
    uint64_t const position = offset + i;
    uint64_t word = (position / 8 + 1) * 0x9e3779b97f4a7c15 + seed * 0xd1342543de82ef95;
    word ^= word >> 32;
    word *= 0xd6e8feb86659fd93;
    word ^= word >> 29;
    // Never zero, so that a lost byte differs from a hole.
    word |= 0x0101010101010101;
    for (uint64_t in = position % 8; in < 8 && i < bytes.size(); ++in, ++i) {
      bytes[i] = static_cast<uint8_t>(word >> (8 * in));
    }
  }
}

uint8_t* scratch(size_t size) {
  static std::unique_ptr<uint8_t, decltype(&std::free)> space(nullptr, &std::free);
  static size_t capacity = 0;
  size_t const wanted = (size + 8191) & ~size_t{4095};
  if (wanted > capacity) {
    space.reset(static_cast<uint8_t*>(std::aligned_alloc(4096, wanted)));
    if (!space) std::abort();
    capacity = wanted;
  }
  return space.get();
}

void close_all() {
  for (Slot& slot : slots) {
    if (slot.mapping != nullptr) {
      msync(slot.mapping, slot.mapping_length, MS_SYNC);
      munmap(slot.mapping, slot.mapping_length);
    }
    if (slot.fd >= 0 && close(slot.fd) == 0) closed_lately = true;
    slot = Slot{};
  }
}

}  // namespace fsop

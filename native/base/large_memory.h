// Memory that is walked at random: tables of flows, pools of packets. On pages of 4 KiB a walk through 16 MiB
// misses the TLB at nearly every step, in a virtual machine twice (its page tables and the host's); so large
// pieces ask for transparent pages of 2 MiB. That is advice: a kernel that has none gives small ones, nothing
// has to be configured.
//
// Zeroed, and the kernel's until it is touched, by 2 MiB at a time.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace penstock {

class LargeMemory {
 public:
  static constexpr std::size_t kPage = std::size_t{2} << 20;

  LargeMemory() = default;
  // Throws std::bad_alloc when the address space can't be had.
  explicit LargeMemory(std::size_t bytes) {
    // What is smaller than a large page has no use for one.
    const bool large = bytes >= kPage;
    // The end too: what is left over beyond the last whole page would stand on small ones.
    if (large) bytes = (bytes + kPage - 1) / kPage * kPage;
    length_ = large ? bytes + kPage : bytes;
    void* mapped = ::mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    mapped_ = mapped;
    data_ = static_cast<std::byte*>(mapped);
    if (!large) return;
    data_ += (kPage - reinterpret_cast<uintptr_t>(mapped) % kPage) % kPage;
    (void)::madvise(data_, bytes, MADV_HUGEPAGE);
  }
  ~LargeMemory() {
    if (mapped_ != nullptr) ::munmap(mapped_, length_);
  }
  LargeMemory(LargeMemory&& other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)),
        length_(std::exchange(other.length_, 0)),
        data_(std::exchange(other.data_, nullptr)) {}
  LargeMemory& operator=(LargeMemory&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(length_, other.length_);
    std::swap(data_, other.data_);
    return *this;
  }

  // Aligned to 2 MiB, a smaller piece to a page.
  std::byte* data() const { return data_; }

 private:
  void* mapped_ = nullptr;
  std::size_t length_ = 0;
  std::byte* data_ = nullptr;
};

}  // namespace penstock

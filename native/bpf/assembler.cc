#include "native/bpf/assembler.h"

#include <cassert>
#include <limits>
#include <utility>

namespace penstock::bpf {
namespace {

// Instruction classes and parts (RFC 9669, 3).
constexpr uint8_t kLoadImmediate = 0x18;  // 64 bits, in two instructions
constexpr uint8_t kLoad = 0x61, kStoreImmediate = 0x62, kStore = 0x63;
constexpr uint8_t kAtomicQuad = 0xdb;
constexpr uint8_t kArithmetic = 0x07, kJump = 0x05, kFromRegister = 0x08;
constexpr uint8_t kMove = 0xb0, kSwap = 0xdc, kCall = 0x85, kExit = 0x95;
// What the source register of a 64-bit immediate says about it.
constexpr uint8_t kMapByFd = 1, kMapValueByFd = 2;
// And that of a call.
constexpr uint8_t kKernelFunction = 2;

constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

}  // namespace

void Assembler::emit(uint8_t code, Register to, Register from, int16_t offset, int32_t immediate) {
  code_.push_back({code, static_cast<uint8_t>(to | from << 4), offset, immediate});
}

Assembler::Label Assembler::label() {
  labels_.push_back(kNowhere);
  return Label(labels_.size() - 1);
}

void Assembler::place(Label label) {
  assert(labels_[label.number_] == kNowhere);
  labels_[label.number_] = code_.size();
}

void Assembler::move(Register to, Register from) {
  emit(kArithmetic | kMove | kFromRegister, to, from, 0, 0);
}

void Assembler::move(Register to, int32_t value) {
  emit(kArithmetic | kMove, to, r0, 0, value);
}

void Assembler::move_quad(Register to, uint64_t value) {
  emit(kLoadImmediate, to, r0, 0, static_cast<int32_t>(value));
  emit(0, r0, r0, 0, static_cast<int32_t>(value >> 32));
}

void Assembler::map(Register to, int map_fd) {
  emit(kLoadImmediate, to, static_cast<Register>(kMapByFd), 0, map_fd);
  emit(0, r0, r0, 0, 0);
}

void Assembler::map_value(Register to, int map_fd, uint32_t offset) {
  emit(kLoadImmediate, to, static_cast<Register>(kMapValueByFd), 0, map_fd);
  emit(0, r0, r0, 0, static_cast<int32_t>(offset));
}

void Assembler::load(Register to, Register base, int16_t offset, Width width) {
  emit(kLoad | static_cast<uint8_t>(width), to, base, offset, 0);
}

void Assembler::store(Register base, int16_t offset, Register from, Width width) {
  emit(kStore | static_cast<uint8_t>(width), base, from, offset, 0);
}

void Assembler::store(Register base, int16_t offset, int32_t value, Width width) {
  emit(kStoreImmediate | static_cast<uint8_t>(width), base, r0, offset, value);
}

void Assembler::atomic_add(Register base, int16_t offset, Register from) {
  emit(kAtomicQuad, base, from, offset, 0);
}

void Assembler::apply(Operation operation, Register to, Register from) {
  emit(kArithmetic | static_cast<uint8_t>(operation) | kFromRegister, to, from, 0, 0);
}

void Assembler::apply(Operation operation, Register to, int32_t value) {
  emit(kArithmetic | static_cast<uint8_t>(operation), to, r0, 0, value);
}

void Assembler::swap_bytes(Register to, int bits) {
  emit(kSwap, to, r0, 0, bits);
}

void Assembler::jump_to(Label label) {
  jumps_.emplace_back(code_.size() - 1, label.number_);
}

void Assembler::jump(Label to) {
  emit(kJump, r0, r0, 0, 0);
  jump_to(to);
}

void Assembler::jump_if(Register left, Compare compare, int32_t right, Label to) {
  emit(kJump | static_cast<uint8_t>(compare), left, r0, 0, right);
  jump_to(to);
}

void Assembler::jump_if(Register left, Compare compare, Register right, Label to) {
  emit(kJump | static_cast<uint8_t>(compare) | kFromRegister, left, right, 0, 0);
  jump_to(to);
}

void Assembler::call(int32_t helper) {
  emit(kCall, r0, r0, 0, helper);
}

void Assembler::call_kernel(int32_t function) {
  emit(kCall, r0, static_cast<Register>(kKernelFunction), 0, function);
}

void Assembler::exit() {
  emit(kExit, r0, r0, 0, 0);
}

std::vector<Instruction> Assembler::finish() && {
  for (const auto& [at, label] : jumps_) {
    assert(labels_[label] != kNowhere);
    const auto distance = static_cast<std::ptrdiff_t>(labels_[label]) - static_cast<std::ptrdiff_t>(at) - 1;
    assert(distance >= std::numeric_limits<int16_t>::min() &&
           distance <= std::numeric_limits<int16_t>::max());
    code_[at].offset = static_cast<int16_t>(distance);
  }
  return std::move(code_);
}

}  // namespace penstock::bpf

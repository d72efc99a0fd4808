// Programs for the kernel's eBPF machine, written in C++ one instruction a line: no compiler and no library
// is needed where the product runs.
//
//   Assembler a;
//   a.move(r6, r1);                         r6 = the packet
//   a.load(r2, r6, skb::kLength, word);     r2 = *(u32*)(r6 + 0)
//   a.jump_if(r2, below, 60, pass);         to a label that is placed later
//   ...
//   a.place(pass); a.move(r0, kTcxNext); a.exit();
//   a.finish()                              instructions with their jumps resolved
//
// Instruction format: Documentation/bpf/standardization/instruction-set.rst (RFC 9669). Registers: r0 result,
// r1..r5 arguments that a call destroys, r6..r9 kept by calls, r10 the end of 512 bytes of stack.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock::bpf {

enum Register : uint8_t { r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10 };

// How many bytes a load or store moves.
enum class Width : uint8_t { word = 0x00, half = 0x08, byte = 0x10, quad = 0x18 };

enum class Compare : uint8_t {
  equal = 0x10,
  above = 0x20,
  at_least = 0x30,
  any_bit = 0x40,
  unequal = 0x50,
  below = 0xa0,
  at_most = 0xb0,
};

enum class Operation : uint8_t {
  add = 0x00,
  subtract = 0x10,
  bit_or = 0x40,
  bit_and = 0x50,
  shift_left = 0x60,
  shift_right = 0x70,
  exclusive_or = 0xa0,
};

// The kernel's struct bpf_insn.
struct Instruction {
  uint8_t code = 0;
  uint8_t registers = 0;  // destination in the low four bits, source in the high ones
  int16_t offset = 0;
  int32_t immediate = 0;

  bool operator==(const Instruction&) const = default;
};
static_assert(sizeof(Instruction) == 8);

class Assembler {
 public:
  // A place that jumps lead to. Made before or after them, placed once.
  class Label {
    friend class Assembler;
    explicit Label(std::size_t number) : number_(number) {}
    std::size_t number_;
  };
  Label label();
  void place(Label label);

  void move(Register to, Register from);
  void move(Register to, int32_t value);
  void move_quad(Register to, uint64_t value);
  // A map itself, as calls want it, and the address of an array map's first value.
  void map(Register to, int map_fd);
  void map_value(Register to, int map_fd, uint32_t offset = 0);

  void load(Register to, Register base, int16_t offset, Width width);
  void store(Register base, int16_t offset, Register from, Width width);
  void store(Register base, int16_t offset, int32_t value, Width width);
  // *(u64*)(base + offset) += from, indivisible.
  void atomic_add(Register base, int16_t offset, Register from);

  // Of 64 bits.
  void apply(Operation operation, Register to, Register from);
  void apply(Operation operation, Register to, int32_t value);
  // From or to network order: the low `bits` (16, 32), the rest becomes zero.
  void swap_bytes(Register to, int bits);

  void jump(Label to);
  void jump_if(Register left, Compare compare, int32_t right, Label to);
  void jump_if(Register left, Compare compare, Register right, Label to);
  void call(int32_t helper);
  // A function of the kernel's own, by the number of its type (kernel_types.h).
  void call_kernel(int32_t function);
  void exit();

  // Every label that a jump leads to has been placed.
  std::vector<Instruction> finish() &&;

 private:
  void emit(uint8_t code, Register to, Register from, int16_t offset, int32_t immediate);
  void jump_to(Label label);

  std::vector<Instruction> code_;
  std::vector<std::size_t> labels_;                         // where each is, kNowhere before
  std::vector<std::pair<std::size_t, std::size_t>> jumps_;  // instruction, label
};

}  // namespace penstock::bpf

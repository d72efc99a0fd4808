// One's complement addition does not mind the byte order (RFC 1071, 2(B)): words are added as this machine
// loads them, and the folded sum is swapped once.
//
// The vector form: a 16-bit word w is loaded as the signed w - 32768 (its top bit flipped), neighbours are
// added in pairs into 32-bit lanes by one multiply-add with ones, and the bias is paid back at the end:
//
//   sum of words = sum of lanes + 32768 * words
//
// A lane moves by at most 65536 a step, so 32767 steps cannot overflow it.
#include "native/base/checksum.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "sums are swapped on the way out");

namespace penstock {
namespace {

constexpr std::size_t kStepsMax = 32767;

// Longer pieces are worth the vectors' beginning and end.
constexpr std::size_t kShort = 256;

// a + b with the carry added in at the end: one's complement of 64 bits.
inline uint64_t add_around(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  const bool carry = __builtin_add_overflow(a, b, &sum);
  return sum + (carry ? 1 : 0);
}

// Takes the next bytes, as many as Word has, in the machine's order.
template <bool kCopy, typename Word>
[[gnu::always_inline]] inline uint64_t take_word(std::byte*& to, const std::byte*& from) {
  Word word = 0;
  std::memcpy(&word, from, sizeof(Word));
  from += sizeof(Word);
  if constexpr (kCopy) {
    std::memcpy(to, &word, sizeof(Word));
    to += sizeof(Word);
  }
  return word;
}

// The last bytes, fewer than any kernel's step, or the whole of a short piece: one's complement of 64 bits,
// which folds into that of 16 (RFC 1071, 2(C)).
template <bool kCopy>
uint64_t sum_words(std::byte* to, const std::byte* from, std::size_t length) {
  uint64_t sum = 0;
  for (; length >= 16; length -= 16) {
    sum = add_around(sum, take_word<kCopy, uint64_t>(to, from));
    sum = add_around(sum, take_word<kCopy, uint64_t>(to, from));
  }
  if ((length & 8) != 0) sum = add_around(sum, take_word<kCopy, uint64_t>(to, from));
  uint64_t rest = 0;
  if ((length & 4) != 0) rest += take_word<kCopy, uint32_t>(to, from);
  if ((length & 2) != 0) rest += take_word<kCopy, uint16_t>(to, from);
  if ((length & 1) != 0) rest += take_word<kCopy, uint8_t>(to, from);
  return (sum & 0xffffffff) + (sum >> 32) + rest;
}

#if defined(__x86_64__)
template <bool kCopy>
uint64_t sum_sse2(std::byte* to, const std::byte* from, std::size_t length) {
  uint64_t sum = 0;
  const __m128i flip = _mm_set1_epi16(static_cast<int16_t>(0x8000));
  const __m128i ones = _mm_set1_epi16(1);
  while (length >= 32) {
    std::size_t steps = length / 32;
    if (steps > kStepsMax) steps = kStepsMax;
    __m128i a = _mm_setzero_si128();
    __m128i b = _mm_setzero_si128();
    for (std::size_t i = 0; i < steps; ++i, from += 32) {
      const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
      const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16));
      if constexpr (kCopy) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16), y);
        to += 32;
      }
      a = _mm_add_epi32(a, _mm_madd_epi16(_mm_xor_si128(x, flip), ones));
      b = _mm_add_epi32(b, _mm_madd_epi16(_mm_xor_si128(y, flip), ones));
    }
    alignas(16) int32_t lanes[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes), a);
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes + 4), b);
    int64_t total = static_cast<int64_t>(steps) * 16 * 32768;
    for (const int32_t lane : lanes) total += lane;
    sum += static_cast<uint64_t>(total);
    length -= steps * 32;
  }
  return sum + sum_words<kCopy>(to, from, length);
}

template <bool kCopy>
__attribute__((target("avx2"))) uint64_t sum_avx2(std::byte* to, const std::byte* from, std::size_t length) {
  uint64_t sum = 0;
  const __m256i flip = _mm256_set1_epi16(static_cast<int16_t>(0x8000));
  const __m256i ones = _mm256_set1_epi16(1);
  while (length >= 64) {
    std::size_t steps = length / 64;
    if (steps > kStepsMax) steps = kStepsMax;
    __m256i a = _mm256_setzero_si256();
    __m256i b = _mm256_setzero_si256();
    for (std::size_t i = 0; i < steps; ++i, from += 64) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32));
      if constexpr (kCopy) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32), y);
        to += 64;
      }
      a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_xor_si256(x, flip), ones));
      b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_xor_si256(y, flip), ones));
    }
    alignas(32) int32_t lanes[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), a);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 8), b);
    int64_t total = static_cast<int64_t>(steps) * 32 * 32768;
    for (const int32_t lane : lanes) total += lane;
    sum += static_cast<uint64_t>(total);
    length -= steps * 64;
  }
  return sum + sum_words<kCopy>(to, from, length);
}
#endif

using Kernel = uint64_t (*)(std::byte*, const std::byte*, std::size_t);

template <bool kCopy>
Kernel kernel_of(ChecksumKernel kernel) {
#if defined(__x86_64__)
  if (kernel == ChecksumKernel::avx2) return sum_avx2<kCopy>;
  if (kernel == ChecksumKernel::sse2) return sum_sse2<kCopy>;
#endif
  (void)kernel;
  return sum_words<kCopy>;
}

ChecksumKernel best_kernel() {
  for (const ChecksumKernel kernel : {ChecksumKernel::avx2, ChecksumKernel::sse2}) {
    if (checksum_has(kernel)) return kernel;
  }
  return ChecksumKernel::portable;
}

// Chosen before main; nothing sums earlier.
const Kernel kSum = kernel_of<false>(best_kernel());
const Kernel kCopy = kernel_of<true>(best_kernel());

uint16_t to_host(uint64_t sum) {
  return __builtin_bswap16(checksum_fold(sum));
}

}  // namespace

bool checksum_has(ChecksumKernel kernel) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (kernel == ChecksumKernel::avx2) return __builtin_cpu_supports("avx2") != 0;
  return true;
#else
  return kernel == ChecksumKernel::portable;
#endif
}

uint16_t checksum_sum(std::span<const std::byte> data) {
  if (data.size() < kShort) return to_host(sum_words<false>(nullptr, data.data(), data.size()));
  return to_host(kSum(nullptr, data.data(), data.size()));
}

uint16_t checksum_copy(std::byte* to, std::span<const std::byte> data) {
  return to_host(kCopy(to, data.data(), data.size()));
}

uint16_t checksum_sum_with(ChecksumKernel kernel, std::span<const std::byte> data) {
  return to_host(kernel_of<false>(kernel)(nullptr, data.data(), data.size()));
}

uint16_t checksum_copy_with(ChecksumKernel kernel, std::byte* to, std::span<const std::byte> data) {
  return to_host(kernel_of<true>(kernel)(to, data.data(), data.size()));
}

uint16_t checksum_pseudo_ipv4(const std::byte* source, const std::byte* destination, uint8_t protocol,
                              uint32_t length) {
  const uint64_t addresses = sum_words<false>(nullptr, source, 4) + sum_words<false>(nullptr, destination, 4);
  return checksum_fold(uint64_t{to_host(addresses)} + protocol + length);
}

uint16_t checksum_pseudo_ipv6(const std::byte* source, const std::byte* destination, uint8_t protocol,
                              uint32_t length) {
  const uint64_t addresses =
      sum_words<false>(nullptr, source, 16) + sum_words<false>(nullptr, destination, 16);
  return checksum_fold(uint64_t{to_host(addresses)} + protocol + length);
}

}  // namespace penstock

// The 256-element super-block types as the SIMD matmul kernels see them, over S, the tier's vector
// operations (gemm_k_avx2.h, gemm_k_avx512.h). S::Int is 64 bytes: 4 neighbouring elements (a group) of each
// of 16 rows, or 16 int32 lanes, one per row. Panel layout: quant/pack_k.cpp.
//
// Each format says how a super-block's body unpacks. Its 256 elements are kSubs sub-blocks of equal size,
// each with its integer scale. Unpacking goes in kChunks x kSteps calls of load(), each giving kParts vectors
// of unsigned weights; part n of step i of chunk c is the group of elements k(c, i, n) .. +3. A chunk covers
// kParts / kShare whole sub-blocks. A weight is (unsigned weight - kZero). scales() gives int8 [kSubs][16],
// in `to` (256 bytes) or in place; mins() writes uint8 [kSubs][16]. kTail: d lies behind the
// bodies.
#pragma once

#include <stdint.h>

namespace mete {
namespace {  // every tier file its own copy

/// Chunks of 64 elements as two runs of 32: Q4_K and Q5_K.
struct RunsOf32 {
  static constexpr int kSubs = 8, kChunks = 4, kSteps = 8, kParts = 2, kShare = 1;
  static constexpr int sub(int c, int n) { return 2 * c + n; }
  static constexpr int k(int c, int i, int n) { return 64 * c + 32 * n + 4 * i; }
};

/// Chunk (half h, part u): the u-th 16 elements of each of the half's 4 runs of 32: Q2_K, Q3_K and Q6_K.
struct RunsOf16 {
  static constexpr int kSubs = 16, kChunks = 4, kSteps = 4, kParts = 4, kShare = 1;
  static constexpr int sub(int c, int n) { return 8 * (c >> 1) + 2 * n + (c & 1); }
  static constexpr int k(int c, int i, int n) { return 128 * (c >> 1) + 32 * n + 16 * (c & 1) + 4 * i; }
};

/// The 6-bit scales and minima of Q4_K and Q5_K at byte 64 of the body: 12 x 16 bytes.
template <typename S>
struct SixBitScales {
  using Int = typename S::Int;
  static const uint8_t* scales(const uint8_t* body, uint8_t* to) {
    const Int a = S::load(body + 64), c = S::load(body + 192);
    S::store(to, S::and_(a, S::set(0x3f3f3f3f)));
    S::store(to + 64,
             S::or_(S::and_(c, S::set(0x0f0f0f0f)), S::and_(S::template srl16<2>(a), S::set(0x30303030))));
    return to;
  }
  static void mins(const uint8_t* body, uint8_t* to) {
    const Int b = S::load(body + 128), c = S::load(body + 192);
    S::store(to, S::and_(b, S::set(0x3f3f3f3f)));
    S::store(to + 64, S::or_(S::and_(S::template srl16<4>(c), S::set(0x0f0f0f0f)),
                             S::and_(S::template srl16<2>(b), S::set(0x30303030))));
  }
};

template <typename S>
struct FormatQ4K : RunsOf32, SixBitScales<S> {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kBody = 2304, kZero = 0, kMax = 15;
  static constexpr bool kMin = true, kFold = false, kTail = false;
  static void load(const uint8_t* body, int c, int i, Int w[2]) {
    const Int q = S::load(body + 256 + 64 * (8 * c + i)), low = S::set(0x0f0f0f0f);
    w[0] = S::and_(q, low);
    w[1] = S::and_(S::template srl16<4>(q), low);
  }
  static Float d(const uint8_t* body, const uint8_t*) { return S::load_half(body); }
  static Float dmin(const uint8_t* body) { return S::load_half(body + 32); }
};

template <typename S>
struct FormatQ5K : RunsOf32, SixBitScales<S> {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kBody = 2816, kZero = 0, kMax = 31;
  static constexpr bool kMin = true, kFold = false, kTail = false;
  static void load(const uint8_t* body, int c, int i, Int w[2]) {
    const Int q = S::load(body + 768 + 64 * (8 * c + i)), low = S::set(0x0f0f0f0f), bit4 = S::set(0x10101010);
    const Int high = S::srl16_by(S::load(body + 256 + 64 * i), 2 * c);  // bits 0, 1: elements 64c.., 64c+32..
    w[0] = S::or_(S::and_(q, low), S::and_(S::template sll16<4>(high), bit4));
    w[1] = S::or_(S::and_(S::template srl16<4>(q), low), S::and_(S::template sll16<3>(high), bit4));
  }
  static Float d(const uint8_t* body, const uint8_t*) { return S::load_half(body); }
  static Float dmin(const uint8_t* body) { return S::load_half(body + 32); }
};

template <typename S>
struct FormatQ6K : RunsOf16 {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kBody = 3328, kZero = 32, kMax = 63;
  static constexpr bool kMin = false, kFold = false, kTail = true;
  static void load(const uint8_t* body, int c, int i, Int w[4]) {
    const uint8_t* chunk = body + 256 + 768 * c + 64 * i;
    const Int l0 = S::load(chunk), l1 = S::load(chunk + 256), h = S::load(chunk + 512);
    const Int low = S::set(0x0f0f0f0f), high = S::set(0x30303030);
    w[0] = S::or_(S::and_(l0, low), S::and_(S::template sll16<4>(h), high));
    w[1] = S::or_(S::and_(l1, low), S::and_(S::template sll16<2>(h), high));
    w[2] = S::or_(S::and_(S::template srl16<4>(l0), low), S::and_(h, high));
    w[3] = S::or_(S::and_(S::template srl16<4>(l1), low), S::and_(S::template srl16<2>(h), high));
  }
  static const uint8_t* scales(const uint8_t* body, uint8_t*) { return body; }
  static Float d(const uint8_t*, const uint8_t* tail) { return S::load_half(tail); }
};

template <typename S>
struct FormatQ3K : RunsOf16 {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kBody = 1728, kZero = 4, kMax = 7;
  static constexpr bool kMin = false, kFold = S::kVnni, kTail = true;
  static void load(const uint8_t* body, int c, int i, Int w[4]) {
    const Int q = S::load(body + 704 + 64 * (4 * c + i)), low = S::set(0x03030303), bit2 = S::set(0x04040404);
    const Int h = S::srl16_by(S::load(body + 192 + 64 * (4 * (c & 1) + i)), 4 * (c >> 1));  // bits 0..3
    w[0] = S::or_(S::and_(q, low), S::and_(S::template sll16<2>(h), bit2));
    w[1] = S::or_(S::and_(S::template srl16<2>(q), low), S::and_(S::template sll16<1>(h), bit2));
    w[2] = S::or_(S::and_(S::template srl16<4>(q), low), S::and_(h, bit2));
    w[3] = S::or_(S::and_(S::template srl16<6>(q), low), S::and_(S::template srl16<1>(h), bit2));
  }
  static const uint8_t* scales(const uint8_t* body, uint8_t* to) {
    const Int l0 = S::load(body), l1 = S::load(body + 64), h = S::load(body + 128);
    const Int low = S::set(0x0f0f0f0f), two = S::set(0x30303030);
    const Int minus32 = S::set(static_cast<int32_t>(0xe0e0e0e0u));
    S::store(to, S::add8(minus32, S::or_(S::and_(l0, low), S::and_(S::template sll16<4>(h), two))));
    S::store(to + 64, S::add8(minus32, S::or_(S::and_(l1, low), S::and_(S::template sll16<2>(h), two))));
    S::store(to + 128, S::add8(minus32, S::or_(S::and_(S::template srl16<4>(l0), low), S::and_(h, two))));
    S::store(to + 192, S::add8(minus32, S::or_(S::and_(S::template srl16<4>(l1), low),
                                               S::and_(S::template srl16<2>(h), two))));
    return to;
  }
  /// Folded: u = 128 - (q - 4) * s = q * -s + (4 * s + 128), in 4..252 for s in -32..31, so all in bytes
  /// modulo 256. dot = 128 * sum(a) - sum(u * a).
  static constexpr int kFoldedZero = 128;
  static constexpr bool kFoldedNegated = true;
  static Int fold(Int q, Int s) {
    const Int minus = S::sub(S::zero(), s);
    const Int pair = S::or_(S::and_(minus, S::set(0xffff)), S::template sll32<16>(minus));
    const Int even = S::and_(S::mul16(S::and_(q, S::set(0x00ff00ff)), pair), S::set(0x00ff00ff));
    const Int odd = S::mul16(S::and_(q, S::set(static_cast<int32_t>(0xff00ff00u))), pair);
    const Int add = S::and_(S::add(S::template sll32<2>(s), S::set(128)), S::set(0xff));
    return S::add8(S::or_(even, odd), S::mul(add, S::set(0x01010101)));
  }
  static Float d(const uint8_t*, const uint8_t* tail) { return S::load_half(tail); }
};

template <typename S>
struct FormatQ2K : RunsOf16 {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kBody = 1344, kZero = 0, kMax = 3;
  static constexpr bool kMin = true, kFold = S::kVnni, kTail = false;
  static void load(const uint8_t* body, int c, int i, Int w[4]) {
    const Int q = S::load(body + 320 + 64 * (4 * c + i)), low = S::set(0x03030303);
    w[0] = S::and_(q, low);
    w[1] = S::and_(S::template srl16<2>(q), low);
    w[2] = S::and_(S::template srl16<4>(q), low);
    w[3] = S::and_(S::template srl16<6>(q), low);
  }
  static const uint8_t* scales(const uint8_t* body, uint8_t* to) {
    for (int i = 0; i < 256; i += 64) S::store(to + i, S::and_(S::load(body + i), S::set(0x0f0f0f0f)));
    return to;
  }
  static void mins(const uint8_t* body, uint8_t* to) {
    for (int i = 0; i < 256; i += 64)
      S::store(to + i, S::and_(S::template srl16<4>(S::load(body + i)), S::set(0x0f0f0f0f)));
  }
  /// Folded: u = q * s <= 45: no carry leaves a byte.
  static constexpr int kFoldedZero = 0;
  static constexpr bool kFoldedNegated = false;
  static Int fold(Int q, Int s) { return S::mul16(q, S::or_(s, S::template sll32<16>(s))); }
  static Float d(const uint8_t* body, const uint8_t*) { return S::load_half(body + 256); }
  static Float dmin(const uint8_t* body) { return S::load_half(body + 288); }
};

template <typename S>
struct FormatIQ4XS {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kSubs = 8, kChunks = 8, kSteps = 4, kParts = 2, kShare = 2;
  static constexpr int sub(int c, int) { return c; }
  static constexpr int k(int c, int i, int n) { return 32 * c + 16 * n + 4 * i; }
  static constexpr int kBody = 2176, kZero = 128, kMax = 241;
  static constexpr bool kMin = false, kFold = false, kTail = false;
  static void load(const uint8_t* body, int c, int i, Int w[2]) {
    alignas(16) static constexpr uint8_t kTable[16] = {
        // IQ4_NL's values + 128
        1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
    const Int q = S::load(body + 128 + 64 * (4 * c + i)), low = S::set(0x0f0f0f0f), table = S::table(kTable);
    w[0] = S::lookup(table, S::and_(q, low));
    w[1] = S::lookup(table, S::and_(S::template srl16<4>(q), low));
  }
  static const uint8_t* scales(const uint8_t* body, uint8_t* to) {
    const Int high = S::load_u16(body + 32);
    for (int j = 0; j < 8; ++j) {
      const Int low = S::load_u8(body + 64 + 16 * (j >> 1));
      const Int nibble = (j & 1) != 0 ? S::template srl32<4>(low) : S::and_(low, S::set(15));
      const Int two = S::and_(S::srl16_by(high, 2 * j), S::set(3));
      S::store_i8(to + 16 * j, S::sub(S::or_(nibble, S::template sll32<4>(two)), S::set(32)));
    }
    return to;
  }
  static Float d(const uint8_t* body, const uint8_t*) { return S::load_half(body); }
};

}  // namespace
}  // namespace mete

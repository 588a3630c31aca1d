// Vectors in fewer bits: bfloat16 pairs, and int8 with a scale per block of 32.
#pragma once
#include <cmath>

#include "memory.h"
#include "simd.h"

namespace blt {

constexpr int64_t BLOCK = 32;

// VNNI multiplies unsigned by signed bytes, so there the weights are stored as w + 128 and Σ 128 · x is taken off.
#if defined(__AVX512VNNI__)
constexpr int INT8_OFFSET = 128;
#else
constexpr int INT8_OFFSET = 0;
#endif
constexpr int INT4_OFFSET = 8;  // nibbles are stored as w + 8

// Four products of bytes are added to each lane; weights as above, the same four activations for all lanes.
inline Ints dot4(Ints sums, Words weights, int32_t four) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)weights, _mm512_set1_epi32(four));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i x = _mm256_set1_epi32(four);
    __m256i w[LANES / 8], products[LANES / 8];
    std::memcpy(w, &weights, sizeof w);
    for (int part = 0; part < LANES / 8; ++part) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w[part], w[part]), _mm256_sign_epi8(x, w[part]));
        products[part] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    Ints found;
    std::memcpy(&found, products, sizeof found);
    return sums + found;
#elif defined(__ARM_FEATURE_DOTPROD)
    int32x4_t parts[LANES / 4];
    int8x16_t w[LANES / 4];
    std::memcpy(parts, &sums, sizeof parts);
    std::memcpy(w, &weights, sizeof w);
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    for (int part = 0; part < LANES / 4; ++part) parts[part] = vdotq_s32(parts[part], w[part], x);
    std::memcpy(&sums, parts, sizeof parts);
    return sums;
#else
    const Ints signed_weights = (Ints)weights;
    for (int byte = 0; byte < 4; ++byte) {
        const int32_t x = int8_t(uint32_t(four) >> (8 * byte));
        sums += ((signed_weights << (24 - 8 * byte)) >> 24) * x;
    }
    return sums;
#endif
}

// To the nearest whole number from -127 to 127; NaN becomes 0.
inline int8_t to_int8(float value) {
    float rounded = value + 12582912.0f;  // 1.5 · 2^23: what lies behind the point is rounded away
    rounded -= 12582912.0f;
    return int8_t(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded == rounded ? rounded : 0.0f);
}

// A vector of `width` floats as int8, in whole blocks: words of four, a scale per block, and each block's sum.
inline void quantize(const float *from, int64_t width, int32_t *words, float *scales, int32_t *sums) {
    for (int64_t block = 0; block * BLOCK < width; ++block) {
        float values[BLOCK] = {};
        const int64_t count = width - block * BLOCK < BLOCK ? width - block * BLOCK : BLOCK;
        std::memcpy(values, from + block * BLOCK, size_t(count) * sizeof(float));
        Floats most{};
        for (int64_t at = 0; at < BLOCK; at += LANES) {
            const Floats x = load(values + at), size = x < 0.0f ? -x : x;
            most = size > most ? size : most;
        }
        const float scale = largest(most) / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
        int8_t bytes[BLOCK];
        int32_t total = 0;
        for (int64_t at = 0; at < BLOCK; ++at) {
            bytes[at] = to_int8(values[at] * inverse);
            total += bytes[at];
        }
        std::memcpy(words + block * (BLOCK / 4), bytes, sizeof bytes);
        scales[block] = values[0] == values[0] ? scale : values[0];
        sums[block] = total;
    }
}

// What a vector's numbers are divided by to become int8: the largest comes to 127. NaN where one is no number.
inline float int8_scale(const float *from, int64_t width) {
    float most = 0;
    for (int64_t at = 0; at < width; ++at) {
        const float size = from[at] < 0 ? -from[at] : from[at];
        most = size <= most || most != most ? most : size;
    }
    return most / 127.0f;
}

// Pairs of bfloat16, the first in the lower half; a last odd one stands beside zero.
inline void to_pairs(const float *from, int64_t width, uint32_t *pairs) {
    int64_t at = 0;
#if defined(__AVX512BF16__)
    for (; at + 2 * LANES <= width; at += 2 * LANES) {
        const __m512bh both = _mm512_cvtne2ps_pbh((__m512)load(from + at + LANES), (__m512)load(from + at));
        std::memcpy(pairs + at / 2, &both, sizeof both);
    }
#endif
    for (; at + 2 <= width; at += 2) pairs[at / 2] = uint32_t(narrow(from[at])) | uint32_t(narrow(from[at + 1])) << 16;
    if (at < width) pairs[at / 2] = narrow(from[at]);
}

}  // namespace blt

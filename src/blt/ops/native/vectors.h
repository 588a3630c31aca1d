// Vectors of float32, read from float32, bfloat16 or int8 and converted in registers.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the registers are passed within one file alone
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef int8_t Chars __attribute__((vector_size(LANES)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2)));

inline Floats load(const float *from) {
    Floats found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline Floats load(const uint16_t *from) {  // bfloat16: the upper half of a float32
#if defined(__AVX512F__)
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
#elif defined(__AVX2__)
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
#endif
    Shorts halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

inline Floats load(const int8_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
#endif
    Chars small;
    std::memcpy(&small, from, sizeof small);
    return __builtin_convertvector(small, Floats);
}

inline float one(const float *from) { return *from; }
inline float one(const uint16_t *from) {
    const uint32_t word = uint32_t(*from) << 16;
    float found;
    std::memcpy(&found, &word, sizeof found);
    return found;
}
inline float one(const int8_t *from) { return *from; }

inline float sum(Floats values) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)values);
#endif
    float parts[LANES];
    std::memcpy(parts, &values, sizeof parts);
    for (int width = LANES / 2; width; width /= 2)
        for (int lane = 0; lane < width; ++lane) parts[lane] += parts[lane + width];
    return parts[0];
}

// The sums of COUNT vectors, each in an order that depends on COUNT alone.
template <int COUNT>
inline void sums_of(const Floats (&values)[COUNT], float *out) {
#if defined(__AVX512F__)
    if constexpr (COUNT == 4 || COUNT == 8) {
        __m512 quarters[COUNT / 4];  // lane by lane of 128 bits, partial sums of four vectors
        for (int group = 0; group < COUNT / 4; ++group) {
            const __m512 a = (__m512)values[4 * group], b = (__m512)values[4 * group + 1];
            const __m512 c = (__m512)values[4 * group + 2], d = (__m512)values[4 * group + 3];
            const __m512 left = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            const __m512 right = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            quarters[group] = _mm512_add_ps(_mm512_shuffle_ps(left, right, 0x44), _mm512_shuffle_ps(left, right, 0xee));
            const __m512 halves =
                _mm512_add_ps(quarters[group], _mm512_shuffle_f32x4(quarters[group], quarters[group], 0x4e));
            const __m512 whole = _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, 0xb1));
            _mm_storeu_ps(out + 4 * group, _mm512_castps512_ps128(whole));
        }
        return;
    }
#endif
    for (int at = 0; at < COUNT; ++at) out[at] = sum(values[at]);
}

inline float largest(Floats values) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)values);
#endif
    float found = values[0];
    for (int lane = 1; lane < LANES; ++lane) found = values[lane] > found ? values[lane] : found;
    return found;
}

inline Floats same(float value) { return value - Floats{}; }

inline void store(float *to, Floats values) { std::memcpy(to, &values, sizeof values); }

inline void store(uint16_t *to, Floats values) {  // rounds to the nearest, ties to even
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)values);
    std::memcpy(to, &rounded, sizeof rounded);
#else
    const Words words = (Words)values;
    const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
    for (int lane = 0; lane < LANES; ++lane) to[lane] = uint16_t(rounded[lane]);
#endif
}

// e^x to a relative 2e-7: 2^n · e^f with |f| ≤ ln 2 / 2.
inline Floats exponential(Floats x) {
    x = x < -87.0f ? same(-87.0f) : x;
    x = x > 88.0f ? same(88.0f) : x;
    const Floats shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 · 2^23 rounds to a whole number
    const Floats whole = shifted - 12582912.0f;
    const Floats f = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats power = same(1.9875691500e-4f);
    for (const float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        power = power * f + term;
    power = power * f * f + f + 1.0f;
    return (Floats)((Words)power + ((Words)shifted << 23));
}

}  // namespace

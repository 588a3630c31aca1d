// Vectors of float32 and int32, as wide as the processor's registers: AVX-512, AVX2 or whatever the compiler makes of
// it.
//
// BLT_PORTABLE asks for the same bits on every processor: sums over lanes are of 16 whatever the registers hold
// (`Total`), and each product is rounded before it is added (compile with -ffp-contract=off). What is left are single
// operations, which IEEE 754 fixes. BLT_LANES sets the lanes of a vector by hand, for tests of that.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace blt {

#if defined(BLT_LANES)
constexpr int LANES = BLT_LANES, PANEL_VECTORS = 2;
#elif defined(__AVX512F__)
constexpr int LANES = 16, PANEL_VECTORS = 4;
#else
constexpr int LANES = 8, PANEL_VECTORS = 2;
#endif
#if defined(BLT_PORTABLE)
constexpr int TOTAL_LANES = 16;
#else
constexpr int TOTAL_LANES = LANES;
#endif
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2)));
typedef int8_t Bytes __attribute__((vector_size(LANES)));

template <class Vector, class Element>
inline Vector load_as(const Element *from) {
    Vector found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline Floats load(const float *from) { return load_as<Floats>(from); }
inline void store(float *to, Floats values) { std::memcpy(to, &values, sizeof values); }
inline Floats broadcast(float value) { return value - Floats{}; }

// The first `count` lanes; zeros beyond.
inline Floats load_part(const float *from, int64_t count) {
    Floats found{};
    std::memcpy(&found, from, size_t(count < LANES ? count : LANES) * sizeof(float));
    return found;
}

// a · b + c, rounded once wherever the processor can; written out, so that no compiler rounds it in two ways.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(BLT_PORTABLE)
    return a * b + c;
#elif defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

inline Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }

// bfloat16 is the upper half of a float32.
inline float widen(uint16_t half) {
    const uint32_t word = uint32_t(half) << 16;
    float found;
    std::memcpy(&found, &word, sizeof found);
    return found;
}

inline uint16_t narrow(float value) {  // to the nearest, ties to even
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    if ((word & 0x7fffffff) > 0x7f800000) return uint16_t((word >> 16) | 64);  // NaN stays NaN
    return uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

inline Floats load_halves(const uint16_t *from) {
    return (Floats)(__builtin_convertvector(load_as<Shorts>(from), Words) << 16);
}

// The same of numbers that are stored as float32, or as int8 without their scale.
inline Floats load_widened(const float *from) { return load(from); }
inline Floats load_widened(const int8_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_as<__m128i>(from)));
#elif defined(__AVX2__)
    Floats found;
    for (int lane = 0; lane < LANES; lane += 8) {
        const __m256 part = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(from + lane))));
        std::memcpy(reinterpret_cast<float *>(&found) + lane, &part, sizeof part);
    }
    return found;
#else
    return __builtin_convertvector(load_as<Bytes>(from), Floats);
#endif
}

// A sum over a row of numbers, vector by vector: number i is added to lane i mod TOTAL_LANES, and the lanes are added
// up by halves. Both always in this order, which alone decides the last bits.
class Total {
    static constexpr int VECTORS = TOTAL_LANES / LANES;
    Floats vectors_[VECTORS] = {};

  public:
    // The vector to which the numbers from `at`, a multiple of LANES, are added.
    Floats &operator[](int64_t at) { return vectors_[at / LANES % VECTORS]; }

    float sum() const {
        float lanes[TOTAL_LANES];
        std::memcpy(lanes, vectors_, sizeof lanes);
        for (int width = TOTAL_LANES / 2; width; width /= 2)
            for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
        return lanes[0];
    }
};

inline float largest(Floats values) {
    float found = values[0];
    for (int lane = 1; lane < LANES; ++lane) found = values[lane] > found ? values[lane] : found;
    return found;
}

inline float dot(const float *left, const float *right, int64_t width) {
    Total total;
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) total[at] = multiply_add(load(left + at), load(right + at), total[at]);
    if (at < width)
        total[at] = multiply_add(load_part(left + at, width - at), load_part(right + at, width - at), total[at]);
    return total.sum();
}

// e^x to a relative 2e-7: 2^n · e^f with |f| ≤ ln 2 / 2. NaN stays NaN.
inline Floats exponential(Floats x) {
    const Floats given = x;
    x = x < -87.0f ? broadcast(-87.0f) : x;
    x = x > 88.0f ? broadcast(88.0f) : x;
    const Floats shifted =
        multiply_add(x, broadcast(1.44269504f), broadcast(12582912.0f));  // + 1.5 · 2^23 rounds to a whole number
    const Floats whole = shifted - 12582912.0f;
    Floats f = multiply_add(whole, broadcast(-0.693359375f), x);
    f = multiply_add(whole, broadcast(2.12194440e-4f), f);
    Floats power = broadcast(1.9875691500e-4f);
    for (const float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        power = multiply_add(power, f, broadcast(term));
    power = multiply_add(power, f * f, f + 1.0f);
    const Floats found = (Floats)((Words)power + ((Words)shifted << 23));
    return given == given ? found : given;
}

}  // namespace blt

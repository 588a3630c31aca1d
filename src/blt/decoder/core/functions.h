// Cosine, sine and logarithm: the C library's or, where the same bits are wanted on every machine, series of our own.
//
// No standard fixes the last bit of the C library's. The series are computed in float64 by single operations in a fixed
// order and rounded to float32 once.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace blt {

#if defined(BLT_PORTABLE)

// angle = quarter · π/2 + rest, |rest| ≤ π/4; π/2 as a sum of two, so that the rest is exact to 1e-15 up to 2^20
// quarters.
inline void cosine_and_sine(float angle, float &cosine, float &sine) {
    const double shifted =
        double(angle) * 0.63661977236758134308 + 6755399441055744.0;  // + 1.5 · 2^52 rounds to a whole number
    const double quarter = shifted - 6755399441055744.0;
    const double rest = (double(angle) - quarter * 1.57079632673412561417) - quarter * 6.07710050650619224932e-11;
    const double square = rest * rest;
    double s = 1, c = 1;
    for (int term = 16; term >= 2; term -= 2) {
        s = 1 - s * square / double(term * (term + 1));
        c = 1 - c * square / double(term * (term - 1));
    }
    s *= rest;
    switch (int64_t(quarter) & 3) {
        case 0:
            cosine = float(c), sine = float(s);
            return;
        case 1:
            cosine = float(-s), sine = float(c);
            return;
        case 2:
            cosine = float(-c), sine = float(-s);
            return;
        default:
            cosine = float(s), sine = float(-c);
            return;
    }
}

// Of a positive normal number: log(2^e · m) = e · log 2 + 2 · atanh((m − 1) / (m + 1)), 0.70 < m < 1.42.
inline float logarithm(float value) {
    if (!(value > 1e-30f && value < 1e30f)) return value - value;
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const int32_t exponent = int32_t(word - 0x3f330000u) >> 23;
    const uint32_t mantissa = word - (uint32_t(exponent) << 23);
    float m;
    std::memcpy(&m, &mantissa, sizeof m);
    const double ratio = (double(m) - 1) / (double(m) + 1), square = ratio * ratio;
    double total = 0;
    for (int power = 21; power >= 1; power -= 2) total = total * square + 1.0 / double(power);
    return float(double(exponent) * 0.69314718055994530942 + 2 * ratio * total);
}

#else

inline void cosine_and_sine(float angle, float &cosine, float &sine) {
    cosine = std::cos(angle), sine = std::sin(angle);
}
inline float logarithm(float value) { return std::log(value); }

#endif

}  // namespace blt

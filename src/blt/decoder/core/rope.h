// Rotary position embedding, on halves of each head.
#pragma once
#include "functions.h"
#include "simd.h"

namespace blt {

// Cosines, then sines, of a position's angles.
inline void angles(int64_t position, const float *frequencies, int64_t half, float *to) {
    for (int64_t at = 0; at < half; ++at) {
        const float angle = float(position) * frequencies[at];
        cosine_and_sine(angle, to[at], to[half + at]);
    }
}

// Turns each pair (at, at + half) of a head by its position's angle, and scales it.
inline void rotate(const float *from, const float *turn, int64_t half, float scale, float *to) {
    const float *cosines = turn, *sines = turn + half;
    for (int64_t at = 0; at < half; ++at) {
        const float first = from[at], second = from[half + at];
        to[at] = (first * cosines[at] - second * sines[at]) * scale;
        to[half + at] = (second * cosines[at] + first * sines[at]) * scale;
    }
}

}  // namespace blt

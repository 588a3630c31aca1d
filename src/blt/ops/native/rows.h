// Rows of float32 or bfloat16, read, written, multiplied and added up in float32.
#pragma once
#include <algorithm>

#include "vectors.h"

namespace {

template <class T>
inline void read(const T *from, int64_t width, float *to) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(from + at));
}

template <class T>
inline void write(const float *from, int64_t width, T *to) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(from + at));
}

template <class L, class R>
inline float dot(const L *left, const R *right, int64_t width) {
    Floats total = same(0);
    for (int64_t at = 0; at < width; at += LANES) total += load(left + at) * load(right + at);
    return sum(total);
}

template <class T>
inline void add_scaled(float *to, float factor, const T *from, int64_t width) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(to + at) + factor * load(from + at));
}

inline void fill(float *to, float value, int64_t width) { std::fill(to, to + width, value); }

}  // namespace

// Root-mean-square norm.
#pragma once
#include <cmath>
#include <vector>

#include "simd.h"

namespace blt {

struct Norm {
    std::vector<float> weight;
    float epsilon = 0;

    void apply(const float *from, float *to) const {
        const int64_t width = int64_t(weight.size());
        const float scale = 1.0f / std::sqrt(dot(from, from, width) / float(width) + epsilon);
        int64_t at = 0;
        for (; at + LANES <= width; at += LANES) store(to + at, load(from + at) * scale * load(weight.data() + at));
        for (; at < width; ++at) to[at] = from[at] * scale * weight[size_t(at)];
    }
};

}  // namespace blt

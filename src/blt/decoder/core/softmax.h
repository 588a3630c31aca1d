// Softmax, and the entropy of the distribution that logits describe.
#pragma once
#include <cmath>
#include <limits>

#include "functions.h"
#include "simd.h"

namespace blt {

constexpr float NEVER = -std::numeric_limits<float>::infinity();

// The numerators of a softmax take the scores' place: e to the power of each less the largest. Returns their sum, the
// denominator. Scores are a whole number of vectors, −∞ where nothing may be seen.
inline float exponentials_inplace(float *scores, int64_t padded) {
    Floats most = load(scores);
    Total total;
    for (int64_t at = LANES; at < padded; at += LANES) {
        const Floats others = load(scores + at);
        most = others > most ? others : most;
    }
    const float top = largest(most);
    for (int64_t at = 0; at < padded; at += LANES) {
        const Floats score = load(scores + at), weight = score == NEVER ? Floats{} : exponential(score - top);
        store(scores + at, weight);
        total[at] += weight;
    }
    return total.sum();
}

// Of the distribution that logits describe: the probability of the one that is largest.
inline float likeliest_probability(const float *logits, int64_t num) {
    float top = NEVER;
    for (int64_t at = 0; at < num; ++at) top = logits[at] > top ? logits[at] : top;
    Total total;
    for (int64_t at = 0; at < num; at += LANES) {
        const int64_t count = num - at < LANES ? num - at : LANES;
        Floats shifted = broadcast(NEVER);
        for (int64_t lane = 0; lane < count; ++lane) shifted[lane] = logits[at + lane] - top;
        total[at] += shifted == NEVER ? Floats{} : exponential(shifted);
    }
    return 1 / total.sum();
}

// In nats: log Σ e^x − Σ x · e^x / Σ e^x, on logits that the largest one is taken off.
inline float entropy(const float *logits, int64_t num) {
    Floats most = broadcast(NEVER);
    int64_t at = 0;
    for (; at + LANES <= num; at += LANES) {
        const Floats others = load(logits + at);
        most = others > most ? others : most;
    }
    float top = largest(most);
    for (; at < num; ++at) top = logits[at] > top ? logits[at] : top;
    Total total, weighted;
    for (at = 0; at < num; at += LANES) {
        Floats shifted = broadcast(NEVER);
        const int64_t count = num - at < LANES ? num - at : LANES;
        for (int64_t lane = 0; lane < count; ++lane) shifted[lane] = logits[at + lane] - top;
        const Floats weight = shifted == NEVER ? Floats{} : exponential(shifted);
        total[at] += weight;
        weighted[at] += weight == 0.0f ? Floats{} : weight * shifted;
    }
    const float all = total.sum();
    return logarithm(all) - weighted.sum() / all;
}

}  // namespace blt

// Choosing the next byte of one row from its logits, as `blt.generation.sampling` does: temperature, top k, top p, min
// p.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "patcher.h"
#include "utf8.h"

namespace blt {

// Uniform numbers from 0 to below 1 (SplitMix64: Steele, Lea and Flood 2014, "Fast splittable …", figure 17).
inline double draw(uint64_t &state) {
    uint64_t mixed = state += 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return double((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53;
}

// How a row's bytes are chosen, and what the next choice depends on besides the logits.
struct Sampling {
    double temperature = 1;       // 0: always the likeliest
    double top_p = 0, min_p = 0;  // 0: among all
    int64_t top_k = 0;            // 0: among all
    uint64_t random_state = 0;
    int64_t room = 0;  // bytes that may still be written
    bool keeps_utf8 = false;
    Utf8 utf8 = Utf8::BETWEEN;

    // EOS may come where no character is unfinished; a byte, where it keeps UTF-8 and its character fits.
    bool admits(int64_t id) const {
        if (id < BYTE_OFFSET) return id == EOS_ID && utf8 == Utf8::BETWEEN;
        if (!keeps_utf8) return true;
        const Utf8 next = next_utf8(utf8, int(id - BYTE_OFFSET));
        return next != Utf8::BROKEN && (utf8 != Utf8::BETWEEN || 1 + lacking_bytes(next) <= room);
    }
    // Takes note of a byte.
    void accept(int64_t id) {
        --room;
        if (keeps_utf8) utf8 = next_utf8(utf8, int(id - BYTE_OFFSET));
    }
};

class Sampler {
    std::vector<double> weights_, cumulative_;
    std::vector<int32_t> order_;

    // Sets all weights but those of the likeliest ids to 0; of equally likely ids, the smaller comes first.
    void keep_likeliest(int64_t top_k, double top_p) {
        order_.resize(weights_.size());
        for (size_t at = 0; at < order_.size(); ++at) order_[at] = int32_t(at);
        const auto likelier = [&](int32_t one, int32_t other) {
            return weights_[size_t(one)] > weights_[size_t(other)];
        };
        std::stable_sort(order_.begin(), order_.end(), likelier);
        const size_t kept = top_k > 0 ? std::min(order_.size(), size_t(top_k)) : order_.size();
        double all = 0, reached = 0;
        for (size_t at = 0; at < order_.size(); ++at) {
            if (at >= kept) weights_[size_t(order_[at])] = 0;
            all += weights_[size_t(order_[at])];
        }
        if (top_p <= 0) return;
        for (int32_t id : order_) {
            double &weight = weights_[size_t(id)];
            const double before = reached;
            reached += weight;
            if (id != order_[0] && before >= top_p * all) weight = 0;
        }
    }

  public:
    static constexpr int64_t BROKEN = -1;

    // Returns the next id, a byte's or EOS; BROKEN if the logits are no numbers. Takes no note but of the random
    // number.
    int64_t choose(Sampling &sampling, const float *logits, int64_t vocabulary) {
        constexpr double NEVER = -std::numeric_limits<double>::infinity(), LOWEST_TEMPERATURE = 1e-260;
        weights_.resize(size_t(vocabulary));
        int64_t likeliest = 0;
        for (int64_t id = 0; id < vocabulary; ++id) {
            if (std::isnan(logits[id]) || logits[id] == std::numeric_limits<float>::infinity()) return BROKEN;
            weights_[size_t(id)] = sampling.admits(id) ? double(logits[id]) : NEVER;
            if (weights_[size_t(id)] > weights_[size_t(likeliest)]) likeliest = id;
        }
        const double most = weights_[size_t(likeliest)];
        if (most == NEVER) return BROKEN;
        if (sampling.temperature == 0) return likeliest;
        const double temperature = std::max(sampling.temperature, LOWEST_TEMPERATURE);
        for (double &weight : weights_) weight = weight == NEVER ? 0 : std::exp((weight - most) / temperature);
        if (sampling.top_k > 0 || sampling.top_p > 0) keep_likeliest(sampling.top_k, sampling.top_p);
        if (sampling.min_p > 0)
            for (double &weight : weights_) weight = weight < sampling.min_p ? 0 : weight;
        cumulative_.resize(weights_.size());
        double total = 0;
        for (size_t at = 0; at < weights_.size(); ++at) cumulative_[at] = total += weights_[at];
        auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), draw(sampling.random_state) * total);
        if (found == cumulative_.end())
            found = std::lower_bound(cumulative_.begin(), cumulative_.end(), total);  // rounded up
        return int64_t(found - cumulative_.begin());
    }
};

}  // namespace blt

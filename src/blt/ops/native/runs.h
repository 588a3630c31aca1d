// The runs of bytes that feed one slot, one by one.
#pragma once
#include <cstdint>
#include <vector>

namespace {

template <class Each>
inline void each_run(const int64_t *slots, int64_t length, Each each) {
    for (int64_t start = 0, end; start < length; start = end) {
        for (end = start + 1; end < length && slots[end] == slots[start]; ++end) {
        }
        each(slots[start], start, end);
    }
}

// Whether all slots lie in 0 … num_slots, which is none, and the positions of each slot of a row are neighbours: a
// slot's gradient is written once, when its run ends.
inline bool are_runs(const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots) {
    std::vector<bool> met;
    bool valid = true;
    for (int64_t row = 0; row < rows && valid; ++row) {
        met.assign(num_slots, false);
        each_run(slots + row * length, length, [&](int64_t slot, int64_t, int64_t) {
            if (slot == num_slots) return;
            if (slot < 0 || slot > num_slots || met[slot])
                valid = false;
            else
                met[slot] = true;
        });
    }
    return valid;
}

}  // namespace

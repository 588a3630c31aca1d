// The runs of bytes that feed one slot, one by one.
#pragma once
#include <cstdint>

namespace {

template <class Each>
inline void each_run(const int64_t *slots, int64_t length, int64_t num_slots, Each each) {
    for (int64_t start = 0, end; start < length; start = end) {
        for (end = start + 1; end < length && slots[end] == slots[start]; ++end) {
        }
        each(slots[start], start, end);
    }
}

}  // namespace

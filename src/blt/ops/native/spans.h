// Attention in which position t of a row sees the positions first[t] … t: positions t with first[t] = t divide a row
// into spans that do not meet, which are computed apart. Short ones are joined: each costs a start.
#pragma once
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t SHORT = 64;

struct Span {
    int64_t row, start, end;
};

inline std::vector<Span> spans_of(const int64_t *first, int64_t rows, int64_t length) {
    std::vector<Span> found;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t t = 0; t < length; ++t) {
            const bool starts = t == 0 || first[row * length + t] == t;
            if (starts && (t == 0 || t - found.back().start >= SHORT)) found.push_back({row, t, t});
            found.back().end = t + 1;
        }
    return found;
}

// Whether each position's run begins at 0 … itself, and never before the run of the position before it.
inline bool never_falls(const int64_t *first, int64_t rows, int64_t length) {
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t t = 0, before = 0; t < length; ++t) {
            const int64_t begin = first[row * length + t];
            if (begin < before || begin > t) return false;
            before = begin;
        }
    return true;
}

}  // namespace

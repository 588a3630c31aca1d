// Table rows of the n-grams that end at a byte.
#pragma once
#include <cstdint>
#include <vector>

namespace blt {

struct HashNgrams {
    std::vector<int64_t> sizes;    // n of the n-grams
    std::vector<uint64_t> primes;  // base of each hash function
    int64_t num_rows = 1;

    int64_t num_tables() const { return int64_t(sizes.size() * primes.size()); }
    int64_t longest() const {
        int64_t found = 1;
        for (int64_t n : sizes) found = n > found ? n : found;
        return found;
    }

    // h_n = id(t−n+1) + p · h_{n−1}, in wrapping 64 bits; `preceding` is newest first, and holds `longest` ids.
    void rows(const int64_t *preceding, int64_t *found) const {
        for (size_t function = 0; function < primes.size(); ++function) {
            uint64_t hash = uint64_t(preceding[0]);
            for (int64_t n = 2; n <= longest(); ++n) {
                hash = uint64_t(preceding[n - 1]) + primes[function] * hash;
                for (size_t size = 0; size < sizes.size(); ++size) {
                    if (sizes[size] != n) continue;
                    const int64_t table = int64_t(function * sizes.size() + size);
                    int64_t row = int64_t(hash) % num_rows;
                    if (row < 0) row += num_rows;
                    found[table] = row + table * num_rows;
                }
            }
        }
    }
};

}  // namespace blt

// Tables that rows are looked up in; they stay where their owner has them.
#pragma once
#include "packed_matrix.h"

namespace blt {

struct Table {
    const void *data = nullptr;
    Stored stored = Stored::FLOAT32;
    int64_t rows = 0, dim = 0;

    void put(int64_t row, float *to) const {
        if (stored == Stored::FLOAT32) {
            std::memcpy(to, static_cast<const float *>(data) + row * dim, size_t(dim) * sizeof(float));
        } else {
            const uint16_t *from = static_cast<const uint16_t *>(data) + row * dim;
            for (int64_t at = 0; at < dim; ++at) to[at] = widen(from[at]);
        }
    }
    void add(int64_t row, float *to) const {
        if (stored == Stored::FLOAT32) {
            const float *from = static_cast<const float *>(data) + row * dim;
            for (int64_t at = 0; at < dim; ++at) to[at] += from[at];
        } else {
            const uint16_t *from = static_cast<const uint16_t *>(data) + row * dim;
            for (int64_t at = 0; at < dim; ++at) to[at] += widen(from[at]);
        }
    }
};

}  // namespace blt

// `attend_forward` and `attend_backward` in bfloat16, with bfloat16 matmuls accumulated in float32.
//
// A head of a span is padded with zeros to a multiple of 32 positions; a block of 32 queries meets the keys
// [low, low + num), both multiples of 32. Scores, weights and sums are float32 between the matmuls.
//
// The instructions multiply pairs of bfloat16 that are neighbours along the dimension summed over. So each operand is
// first stored in the layout that its matmul needs: pairs of features (`columns`) where features are summed, as in
// Q·Kᵀ, and pairs of positions (`pairs`) where positions are summed, as in weights·V. The backward pass needs both, and
// accumulates dK and dV transposed, because then a block writes to contiguous columns of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bfloat16.h"
#include "rows.h"
#include "spans.h"
#include "status.h"

#if defined(BFLOAT16_PRODUCTS)
namespace {

constexpr int64_t EACH = 32;  // queries of a block, and what sizes of products are multiples of

inline bool serves_width(int64_t width) { return width % EACH == 0; }

// The shape of what attends: B T H E.
struct Sizes {
    int64_t rows, length, heads, width;
    int64_t step() const { return heads * width; }
    float scale() const { return 1 / std::sqrt(float(width)); }
    int64_t first_of(const Span &span, int64_t head) const {
        return (span.row * length + span.start) * step() + head * width;
    }
};

// One head of a span, in the layouts that the matmuls need.
struct HeadOfSpan {
    int64_t length = 0, width = 0, columns_row = 0;
    Array<uint16_t> rows;     // length × width
    Array<uint32_t> columns;  // width / 2 × columns_row: pairs of features, for products with the transposed head
    Array<uint32_t> pairs;    // length / 2 × width: pairs of positions, for products with the head itself

    void take(const uint16_t *from, int64_t step, int64_t count, int64_t size) {
        length = (count + EACH - 1) / EACH * EACH, width = size;
        rows.resize(length * width);
        for (int64_t t = 0; t < count; ++t) std::memcpy(&rows[t * width], from + t * step, width * 2);
        std::fill(rows.begin() + count * width, rows.end(), uint16_t(0));
    }
    void turn() {
        columns_row = length + LANES;  // rows a power of two apart would share few lines of the cache
        columns.resize(width / 2 * columns_row);
        for (int64_t t = 0; t < length; t += LANES)
            for (int64_t at = 0; at < width / 2; at += LANES)
                transpose(pairs_of(&rows[t * width]) + at, width / 2, &columns[at * columns_row + t], columns_row);
    }
    void pair() {
        pairs.resize(length / 2 * width);
        for (int64_t t = 0; t < length; t += 2)
            pair_rows(&rows[t * width], &rows[(t + 1) * width], width, &pairs[t / 2 * width]);
    }
    // The transposed head of a block, width × 32.
    void turned(int64_t start, uint16_t *to) const {
        for (int64_t at = 0; at < width; at += LANES)
            transpose(&pairs[start / 2 * width + at], width, pairs_of(to + at * EACH), EACH / 2);
    }
};

// A block's queries, and the keys that they meet.
struct QueryBlock {
    const int64_t *seen;  // the first position that each query of the span sees, counted in the row
    int64_t span_start, start, count, low, num;

    QueryBlock(const int64_t *first, const Span &span, int64_t start)
        : seen(first + span.start),
          span_start(span.start),
          start(start),
          count(std::min(EACH, span.end - span.start - start)) {
        low = first_key(0) / EACH * EACH;
        num = start + EACH - low;
    }
    int64_t first_key(int64_t query) const { return std::max<int64_t>(0, seen[start + query] - span_start); }
    // Which of the keys at … at + 15 of the block a query sees; it has weight for no other.
    __mmask16 lanes(int64_t query, int64_t at) const {
        const int64_t skipped = std::clamp<int64_t>(first_key(query) - low - at, 0, LANES);
        const int64_t kept = std::clamp<int64_t>(start + query + 1 - low - at, 0, LANES);
        return __mmask16((1u << kept) - 1) & __mmask16(~((1u << skipped) - 1));
    }
};

inline Floats only(__mmask16 lanes, Floats values) { return (Floats)_mm512_maskz_mov_ps(lanes, (__m512)values); }

// Turns a query's scores into weights, not normalised yet; returns their sum, and in `top` the largest score.
inline float weigh(const QueryBlock &block, int64_t query, const float *scores, float scale, uint16_t *weights,
                   float *top) {
    Floats most = same(-std::numeric_limits<float>::infinity()), total = same(0);
    for (int64_t i = 0; i < block.num; i += LANES)
        most = (Floats)_mm512_mask_max_ps((__m512)most, block.lanes(query, i), (__m512)most, (__m512)load(scores + i));
    *top = largest(most);
    for (int64_t i = 0; i < block.num; i += LANES) {
        const Floats weight = only(block.lanes(query, i), exponential((load(scores + i) - *top) * scale));
        total += weight;
        store(weights + i, weight);
    }
    return sum(total);
}

inline void attend_forward_bfloat16(const uint16_t *queries, const uint16_t *keys, const uint16_t *values,
                                    const int64_t *first, const Sizes &sizes, uint16_t *out, float *totals) {
    const std::vector<Span> spans = spans_of(first, sizes.rows, sizes.length);
    const int64_t step = sizes.step(), width = sizes.width, tasks = int64_t(spans.size()) * sizes.heads;
    const float scale = sizes.scale();
    Failure failure;
#pragma omp parallel
    {
        const Tiles tiles;
        HeadOfSpan q, k, v;
        Array<float> scores, mixed;
        Array<uint16_t> weights;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            failure.guard([&] {
                const Span span = spans[task / sizes.heads];
                const int64_t head = task % sizes.heads, num = span.end - span.start, at = sizes.first_of(span, head);
                float *total = totals + (span.row * sizes.heads + head) * sizes.length + span.start;
                mixed.resize(EACH * width);
                q.take(queries + at, step, num, width);
                k.take(keys + at, step, num, width);
                v.take(values + at, step, num, width);
                k.turn();
                v.pair();
                for (int64_t start = 0; start < num; start += EACH) {
                    const QueryBlock block(first + span.row * sizes.length, span, start);
                    scores.resize(EACH * block.num);
                    weights.resize(EACH * block.num);
                    float shares[EACH];
                    product(tiles, &q.rows[start * width], width, &k.columns[block.low], k.columns_row, EACH, block.num,
                            width, scores.data(), block.num, false);
                    for (int64_t query = 0; query < block.count; ++query) {
                        const int64_t row = query * block.num;
                        float top;
                        const float whole = weigh(block, query, &scores[row], scale, &weights[row], &top);
                        shares[query] = 1 / whole;
                        total[start + query] = top * scale + std::log(whole);
                    }
                    product(tiles, weights.data(), block.num, &v.pairs[block.low / 2 * width], width, EACH, width,
                            block.num, mixed.data(), width, false);
                    for (int64_t query = 0; query < block.count; ++query)
                        for (int64_t i = 0; i < width; i += LANES)
                            store(out + at + (start + query) * step + i,
                                  load(&mixed[query * width + i]) * shares[query]);
                }
            });
        }
    }
    failure.rethrow();
}

// The backward pass of one block: weights P and gradients of the scores dS, 32 × num, as rows and in pairs of queries.
// dS = P ∘ (dP − mean) with dP = dO·Vᵀ, and mean = Σ P ∘ dP = dO·O of the query, so that O saves a reduction.
struct Changes {
    Array<float> weights, along;
    Array<uint16_t> rows;
    Array<uint32_t> weight_pairs, pairs;

    void resize(int64_t num) {
        weights.resize(EACH * num), along.resize(EACH * num), rows.resize(EACH * num);
        weight_pairs.resize(EACH / 2 * num), pairs.resize(EACH / 2 * num);
    }
    // A query's scores and its gradient's products with the values → its weights and the changes of its scores.
    void of_query(const QueryBlock &block, int64_t query, float scale, float total, float mean) {
        const int64_t row = query * block.num;
        for (int64_t i = row; i < row + block.num; i += LANES) {
            const Floats weight = only(block.lanes(query, i - row), exponential(load(&weights[i]) * scale - total));
            const Floats change = weight * (load(&along[i]) - mean) * scale;
            store(&weights[i], weight);
            store(&along[i], change);
            store(&rows[i], change);
        }
    }
    void of_none(const QueryBlock &block, int64_t query) {
        std::fill_n(&weights[query * block.num], block.num, 0.0f);
        std::fill_n(&along[query * block.num], block.num, 0.0f);
        std::fill_n(&rows[query * block.num], block.num, uint16_t(0));
    }
    void pair(int64_t num) {
        for (int64_t query = 0; query < EACH; query += 2)
            for (int64_t i = 0; i < num; i += LANES) {
                const int64_t even = query * num + i, odd = even + num, place = query / 2 * num + i;
                store_words(&weight_pairs[place], paired(load(&weights[even]), load(&weights[odd])));
                store_words(&pairs[place], paired(load(&along[even]), load(&along[odd])));
            }
    }
};

// A matrix of float32, width × `row`, as rows of bfloat16.
inline void write_turned(const Array<float> &from, int64_t row, int64_t count, int64_t width, uint16_t *to,
                         int64_t step) {
    alignas(64) float block[LANES * LANES];
    for (int64_t t = 0; t < count; t += LANES)
        for (int64_t at = 0; at < width; at += LANES) {
            transpose(reinterpret_cast<const Pair *>(&from[at * row + t]), row, reinterpret_cast<Pair *>(block), LANES);
            for (int64_t i = 0; i < std::min<int64_t>(LANES, count - t); ++i)
                store(to + (t + i) * step + at, load(block + i * LANES));
        }
}

inline void attend_backward_bfloat16(const uint16_t *given, const uint16_t *queries, const uint16_t *keys,
                                     const uint16_t *values, const uint16_t *out, const float *totals,
                                     const int64_t *first, const Sizes &sizes, uint16_t *to_queries, uint16_t *to_keys,
                                     uint16_t *to_values) {
    const std::vector<Span> spans = spans_of(first, sizes.rows, sizes.length);
    const int64_t step = sizes.step(), width = sizes.width, tasks = int64_t(spans.size()) * sizes.heads;
    Failure failure;
#pragma omp parallel
    {
        const Tiles tiles;
        HeadOfSpan q, k, v, g;
        Changes changes;
        Array<float> mixed, dk, dv;  // the last two transposed
        Array<uint16_t> turned;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            failure.guard([&] {
                const Span span = spans[task / sizes.heads];
                const int64_t head = task % sizes.heads, num = span.end - span.start, at = sizes.first_of(span, head);
                const float *total = totals + (span.row * sizes.heads + head) * sizes.length + span.start;
                mixed.resize(EACH * width), turned.resize(width * EACH);
                q.take(queries + at, step, num, width), q.pair();
                k.take(keys + at, step, num, width), k.pair(), k.turn();
                v.take(values + at, step, num, width), v.turn();
                g.take(given + at, step, num, width), g.pair();
                const int64_t row = k.columns_row;
                dk.assign(width * row, 0.0f);
                dv.assign(width * row, 0.0f);
                for (int64_t start = 0; start < num; start += EACH) {
                    const QueryBlock block(first + span.row * sizes.length, span, start);
                    changes.resize(block.num);
                    product(tiles, &q.rows[start * width], width, &k.columns[block.low], row, EACH, block.num, width,
                            changes.weights.data(), block.num, false);
                    product(tiles, &g.rows[start * width], width, &v.columns[block.low], row, EACH, block.num, width,
                            changes.along.data(), block.num, false);
                    for (int64_t query = 0; query < block.count; ++query) {
                        const int64_t t = start + query;
                        const float mean = dot(&g.rows[t * width], out + at + t * step, width);
                        changes.of_query(block, query, sizes.scale(), total[t], mean);
                    }
                    for (int64_t query = block.count; query < EACH; ++query) changes.of_none(block, query);
                    changes.pair(block.num);
                    g.turned(start, turned.data());
                    product(tiles, turned.data(), EACH, changes.weight_pairs.data(), block.num, width, block.num, EACH,
                            &dv[block.low], row, true);
                    q.turned(start, turned.data());
                    product(tiles, turned.data(), EACH, changes.pairs.data(), block.num, width, block.num, EACH,
                            &dk[block.low], row, true);
                    product(tiles, changes.rows.data(), block.num, &k.pairs[block.low / 2 * width], width, EACH, width,
                            block.num, mixed.data(), width, false);
                    for (int64_t query = 0; query < block.count; ++query)
                        write(&mixed[query * width], width, to_queries + at + (start + query) * step);
                }
                write_turned(dk, row, num, width, to_keys + at, step);
                write_turned(dv, row, num, width, to_values + at, step);
            });
        }
    }
    failure.rethrow();
}

}  // namespace
#endif

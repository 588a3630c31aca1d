// Attention in which position t of a row attends to positions first[t] … t, by float32 matmuls.
//
// A row is split into spans that do not see each other, and a task is one head of one span. Blocks of 32 queries meet
// one contiguous range of keys [low, low + num), which covers the runs of all 32, so that scores and output are dense
// matmuls; the mask then removes what a single query does not see. The backward pass recomputes the weights from the
// scores and the stored log-sum-exp of each query, as flash attention does, so that no T×T matrix is kept.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "rows.h"
#include "spans.h"
#include "status.h"

namespace {

// The micro-kernel: a tile of HEIGHT × LANES·WIDE of C (+)= A · B, held in registers. A has any strides; B and C are
// row-major.
template <int HEIGHT, int WIDE>
inline void tile(const float *a, int64_t row_step, int64_t step, const float *b, int64_t b_row, int64_t depth, float *c,
                 int64_t c_row, bool add) {
    Floats sums[HEIGHT][WIDE];
    for (int row = 0; row < HEIGHT; ++row)
        for (int part = 0; part < WIDE; ++part) sums[row][part] = add ? load(c + row * c_row + part * LANES) : same(0);
    for (int64_t at = 0; at < depth; ++at) {
        Floats values[WIDE];
        for (int part = 0; part < WIDE; ++part) values[part] = load(b + at * b_row + part * LANES);
        for (int row = 0; row < HEIGHT; ++row) {
            const Floats factor = same(a[row * row_step + at * step]);
            for (int part = 0; part < WIDE; ++part) sums[row][part] += factor * values[part];
        }
    }
    for (int row = 0; row < HEIGHT; ++row)
        for (int part = 0; part < WIDE; ++part) store(c + row * c_row + part * LANES, sums[row][part]);
}

template <int WIDE>
inline void tiles(const float *a, int64_t row_step, int64_t step, const float *b, int64_t b_row, int64_t height,
                  int64_t depth, float *c, int64_t c_row, bool add) {
    int64_t row = 0;
    for (; row + 4 <= height; row += 4)
        tile<4, WIDE>(a + row * row_step, row_step, step, b, b_row, depth, c + row * c_row, c_row, add);
    for (; row < height; ++row)
        tile<1, WIDE>(a + row * row_step, row_step, step, b, b_row, depth, c + row * c_row, c_row, add);
}

// C (+)= A · B, `width` a multiple of LANES.
inline void product(const float *a, int64_t row_step, int64_t step, const float *b, int64_t b_row, int64_t height,
                    int64_t width, int64_t depth, float *c, int64_t c_row, bool add) {
    int64_t at = 0;
    for (; at + 4 * LANES <= width; at += 4 * LANES)
        tiles<4>(a, row_step, step, b + at, b_row, height, depth, c + at, c_row, add);
    for (; at < width; at += LANES) tiles<1>(a, row_step, step, b + at, b_row, height, depth, c + at, c_row, add);
}

constexpr int64_t QUERIES = 32;

inline int64_t whole(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

// One head of a span as float32: row by row, and transposed.
struct Head {
    std::vector<float> rows, columns;
    int64_t columns_row = 0;

    template <class T>
    void take(const T *from, int64_t step, int64_t length, int64_t width, bool transposed) {
        rows.resize(length * width);
        for (int64_t t = 0; t < length; ++t) read(from + t * step, width, rows.data() + t * width);
        if (!transposed) return;
        columns_row = whole(length) + QUERIES;  // what lies beyond the end is read, and masked
        columns.assign(width * columns_row, 0.0f);
        for (int64_t t = 0; t < length; ++t)
            for (int64_t at = 0; at < width; ++at) columns[at * columns_row + t] = rows[t * width + at];
    }
};

// A block of queries and its range of keys [low, low + num), which is rounded outwards to whole vectors.
struct Block {
    int64_t start, count, low, num;
    Block(const int64_t *first, const Span &span, int64_t start)
        : start(start), count(std::min(QUERIES, span.end - span.start - start)) {
        low = std::max<int64_t>(0, first[span.start + start] - span.start) / LANES * LANES;
        num = whole(start + count - low);
    }
};

inline void mask(float *scores, const Block &block, const int64_t *first, const Span &span) {
    for (int64_t query = 0; query < block.count; ++query) {
        float *row = scores + query * block.num;
        const int64_t t = block.start + query;
        const int64_t from = std::max<int64_t>(0, first[span.start + t] - span.start) - block.low;
        fill(row, -std::numeric_limits<float>::infinity(), from);
        fill(row + t - block.low + 1, -std::numeric_limits<float>::infinity(), block.num - (t - block.low + 1));
    }
}

template <class T>
void attend_forward(const T *queries, const T *keys, const T *values, const int64_t *first, int64_t rows,
                    int64_t length, int64_t heads, int64_t width, T *out, float *totals) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
    Failure failure;
#pragma omp parallel
    {
        Head q, k, v;
        std::vector<float> scores, mixed;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            failure.guard([&] {
                const Span span = spans[task / heads];
                const int64_t head = task % heads, num = span.end - span.start;
                const int64_t at = (span.row * length + span.start) * step + head * width;
                const int64_t *seen = first + span.row * length;
                mixed.resize(QUERIES * width);
                q.take(queries + at, step, num, width, false);
                k.take(keys + at, step, num, width, true);
                v.take(values + at, step, num, width, false);
                v.rows.resize((whole(num) + LANES) * width, 0.0f);
                for (float &value : q.rows) value *= scale;
                for (int64_t start = 0; start < num; start += QUERIES) {
                    const Block block(seen, span, start);
                    scores.resize(QUERIES * block.num);
                    product(q.rows.data() + start * width, width, 1, k.columns.data() + block.low, k.columns_row,
                            block.count, block.num, width, scores.data(), block.num, false);
                    mask(scores.data(), block, seen, span);
                    for (int64_t query = 0; query < block.count; ++query) {
                        float *row = scores.data() + query * block.num;
                        Floats most = load(row);
                        for (int64_t i = LANES; i < block.num; i += LANES) {
                            const Floats other = load(row + i);
                            most = other > most ? other : most;
                        }
                        const float top = largest(most);
                        Floats total = same(0);
                        for (int64_t i = 0; i < block.num; i += LANES) {
                            const Floats score = load(row + i);
                            Floats weight = exponential(score - top);
                            weight = score < -1e30f ? same(0) : weight;
                            total += weight;
                            store(row + i, weight);
                        }
                        const float whole_weight = sum(total), share = 1 / whole_weight;
                        for (int64_t i = 0; i < block.num; i += LANES) store(row + i, load(row + i) * share);
                        totals[(span.row * heads + head) * length + span.start + start + query] =
                            top + std::log(whole_weight);
                    }
                    product(scores.data(), block.num, 1, v.rows.data() + block.low * width, width, block.count, width,
                            std::min(block.num, num - block.low), mixed.data(), width, false);
                    for (int64_t query = 0; query < block.count; ++query)
                        write(mixed.data() + query * width, width, out + at + (start + query) * step);
                }
            });
        }
    }
    failure.rethrow();
}

template <class T>
void attend_backward(const T *given, const T *queries, const T *keys, const T *values, const T *out,
                     const float *totals, const int64_t *first, int64_t rows, int64_t length, int64_t heads,
                     int64_t width, T *to_queries, T *to_keys, T *to_values) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
    Failure failure;
#pragma omp parallel
    {
        Head q, k, v, g;
        std::vector<float> weights, scores, mixed, dk, dv, result;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            failure.guard([&] {
                const Span span = spans[task / heads];
                const int64_t head = task % heads, num = span.end - span.start;
                const int64_t at = (span.row * length + span.start) * step + head * width;
                const int64_t *seen = first + span.row * length;
                mixed.resize(QUERIES * width);
                result.resize(width);
                q.take(queries + at, step, num, width, false);
                k.take(keys + at, step, num, width, true);
                v.take(values + at, step, num, width, true);
                g.take(given + at, step, num, width, false);
                for (float &value : q.rows) value *= scale;
                dk.assign(num * width, 0.0f);
                dv.assign(num * width, 0.0f);
                for (int64_t start = 0; start < num; start += QUERIES) {
                    const Block block(seen, span, start);
                    const int64_t inside = std::min(block.num, num - block.low);
                    weights.resize(QUERIES * block.num);
                    scores.resize(QUERIES * block.num);
                    const float *above = g.rows.data() + start * width, *asking = q.rows.data() + start * width;
                    product(asking, width, 1, k.columns.data() + block.low, k.columns_row, block.count, block.num,
                            width, weights.data(), block.num, false);
                    mask(weights.data(), block, seen, span);
                    product(above, width, 1, v.columns.data() + block.low, v.columns_row, block.count, block.num, width,
                            scores.data(), block.num, false);
                    for (int64_t query = 0; query < block.count; ++query) {
                        float *row = weights.data() + query * block.num, *along = scores.data() + query * block.num;
                        const float total = totals[(span.row * heads + head) * length + span.start + start + query];
                        const float mean = dot(above + query * width, out + at + (start + query) * step, width);
                        for (int64_t i = 0; i < block.num; i += LANES) {
                            const Floats score = load(row + i);
                            Floats weight = exponential(score - total);
                            weight = score < -1e30f ? same(0) : weight;
                            store(row + i, weight);
                            store(along + i, weight * (load(along + i) - mean));
                        }
                    }
                    product(weights.data(), 1, block.num, above, width, inside, width, block.count,
                            dv.data() + block.low * width, width, true);
                    product(scores.data(), 1, block.num, asking, width, inside, width, block.count,
                            dk.data() + block.low * width, width, true);
                    product(scores.data(), block.num, 1, k.rows.data() + block.low * width, width, block.count, width,
                            inside, mixed.data(), width, false);
                    for (int64_t query = 0; query < block.count; ++query) {
                        for (int64_t i = 0; i < width; i += LANES)
                            store(&result[i], load(&mixed[query * width + i]) * scale);
                        write(result.data(), width, to_queries + at + (start + query) * step);
                    }
                }
                for (int64_t t = 0; t < num; ++t) {
                    write(dk.data() + t * width, width, to_keys + at + t * step);
                    write(dv.data() + t * width, width, to_values + at + t * step);
                }
            });
        }
    }
    failure.rethrow();
}

}  // namespace

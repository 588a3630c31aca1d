// Attention to runs of positions on bfloat16, with products of bfloat16; what `attend_forward` and `attend_backward` do.
//
// A head of a span is kept in pairs, padded with zeros to a multiple of 32 positions; a block of 32 queries meets the
// keys [low, low + num), both multiples of 32.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "halves.h"
#include "rows.h"
#include "spans.h"

#if defined(HALVES)
namespace {

constexpr int64_t STEP = 32;

inline int64_t padded(int64_t count) { return (count + STEP - 1) / STEP * STEP; }

// One head of a span as its products want it.
struct HalfHead {
    int64_t length = 0, width = 0, columns_row = 0;
    Array<uint16_t> rows;  // length × width
    Array<Pair> columns;   // width / 2 × columns_row: pairs of features, for products with the transposed head
    Array<Pair> pairs;     // length / 2 × width: pairs of positions, for products with the head itself

    void take(const uint16_t *from, int64_t step, int64_t count, int64_t size) {
        length = padded(count), width = size;
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
        for (int64_t t = 0; t < length; t += 2) pair_rows(&rows[t * width], &rows[(t + 1) * width], width, &pairs[t / 2 * width]);
    }
    // The transposed head of 32 positions, width × 32.
    void turned(int64_t start, uint16_t *to) const {
        for (int64_t at = 0; at < width; at += LANES)
            transpose(&pairs[start / 2 * width + at], width, pairs_of(to + at * STEP), STEP / 2);
    }
};

struct HalfBlock {
    int64_t count, low, num;
    HalfBlock(const int64_t *seen, const Span &span, int64_t start) : count(std::min(STEP, span.end - span.start - start)) {
        low = std::max<int64_t>(0, seen[span.start + start] - span.start) / STEP * STEP;
        num = start + STEP - low;
    }
};

// The keys [from, to) of a block that a query sees; it has weight for no other.
struct Seen {
    int64_t from, to;
    Seen(const int64_t *seen, const Span &span, const HalfBlock &block, int64_t start, int64_t query)
        : from(std::max<int64_t>(0, seen[span.start + start + query] - span.start) - block.low), to(start + query + 1 - block.low) {}
    __mmask16 lanes(int64_t at) const {
        const int64_t skipped = std::clamp<int64_t>(from - at, 0, LANES), kept = std::clamp<int64_t>(to - at, 0, LANES);
        return __mmask16((1u << kept) - 1) & __mmask16(~((1u << skipped) - 1));
    }
};

inline Floats only(__mmask16 lanes, Floats values) { return (Floats)_mm512_maskz_mov_ps(lanes, (__m512)values); }

inline void attend_forward_halves(const uint16_t *queries, const uint16_t *keys, const uint16_t *values, const int64_t *first,
                                  int64_t rows, int64_t length, int64_t heads, int64_t width, uint16_t *out, float *totals) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
#pragma omp parallel
    {
        const Tiles tiles;
        HalfHead q, k, v;
        Array<float> scores, mixed(STEP * width);
        Array<uint16_t> weights;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const Span span = spans[task / heads];
            const int64_t head = task % heads, num = span.end - span.start;
            const int64_t at = (span.row * length + span.start) * step + head * width;
            const int64_t *seen = first + span.row * length;
            q.take(queries + at, step, num, width);
            k.take(keys + at, step, num, width);
            v.take(values + at, step, num, width);
            k.turn();
            v.pair();
            for (int64_t start = 0; start < num; start += STEP) {
                const HalfBlock block(seen, span, start);
                scores.resize(STEP * block.num);
                weights.resize(STEP * block.num);
                float shares[STEP];
                product(tiles, &q.rows[start * width], width, &k.columns[block.low], k.columns_row, STEP, block.num, width,
                        scores.data(), block.num, false);
                for (int64_t query = 0; query < block.count; ++query) {
                    const Seen own(seen, span, block, start, query);
                    const float *row = &scores[query * block.num];
                    Floats most = same(-std::numeric_limits<float>::infinity());
                    for (int64_t i = 0; i < block.num; i += LANES)
                        most = (Floats)_mm512_mask_max_ps((__m512)most, own.lanes(i), (__m512)most, (__m512)load(row + i));
                    const float top = largest(most);
                    Floats total = same(0);
                    for (int64_t i = 0; i < block.num; i += LANES) {
                        const Floats weight = only(own.lanes(i), exponential((load(row + i) - top) * scale));
                        total += weight;
                        store(&weights[query * block.num + i], weight);
                    }
                    shares[query] = 1 / sum(total);
                    totals[(span.row * heads + head) * length + span.start + start + query] = top * scale + std::log(sum(total));
                }
                product(tiles, weights.data(), block.num, &v.pairs[block.low / 2 * width], width, STEP, width, block.num,
                        mixed.data(), width, false);
                for (int64_t query = 0; query < block.count; ++query)
                    for (int64_t i = 0; i < width; i += LANES)
                        store(out + at + (start + query) * step + i, load(&mixed[query * width + i]) * shares[query]);
            }
        }
    }
}

// A matrix of float32, width × `length`, as rows of bfloat16.
inline void write_turned(const Array<float> &from, int64_t length, int64_t count, int64_t width, uint16_t *to, int64_t step) {
    float block[LANES * LANES];
    for (int64_t t = 0; t < count; t += LANES)
        for (int64_t at = 0; at < width; at += LANES) {
            transpose(reinterpret_cast<const Pair *>(&from[at * length + t]), length, reinterpret_cast<Pair *>(block), LANES);
            for (int64_t row = 0; row < std::min<int64_t>(LANES, count - t); ++row)
                store(to + (t + row) * step + at, load(block + row * LANES));
        }
}

inline void attend_backward_halves(const uint16_t *given, const uint16_t *queries, const uint16_t *keys,
                                   const uint16_t *values, const uint16_t *out, const float *totals, const int64_t *first,
                                   int64_t rows, int64_t length, int64_t heads, int64_t width, uint16_t *to_queries,
                                   uint16_t *to_keys, uint16_t *to_values) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
#pragma omp parallel
    {
        const Tiles tiles;
        HalfHead q, k, v, g;
        Array<float> scores, along, mixed(STEP * width), dk, dv;
        Array<uint16_t> changes, turned(width * STEP);
        Array<Pair> weight_pairs, change_pairs;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const Span span = spans[task / heads];
            const int64_t head = task % heads, num = span.end - span.start;
            const int64_t at = (span.row * length + span.start) * step + head * width;
            const int64_t *seen = first + span.row * length;
            q.take(queries + at, step, num, width);
            k.take(keys + at, step, num, width);
            v.take(values + at, step, num, width);
            g.take(given + at, step, num, width);
            k.turn();
            v.turn();
            q.pair();
            k.pair();
            g.pair();
            dk.assign(width * k.columns_row, 0.0f);  // both turned: width × columns_row
            dv.assign(width * k.columns_row, 0.0f);
            for (int64_t start = 0; start < num; start += STEP) {
                const HalfBlock block(seen, span, start);
                const int64_t area = STEP * block.num;
                scores.resize(area), along.resize(area), changes.resize(area);
                weight_pairs.resize(area / 2), change_pairs.resize(area / 2);
                product(tiles, &q.rows[start * width], width, &k.columns[block.low], k.columns_row, STEP, block.num, width,
                        scores.data(), block.num, false);
                product(tiles, &g.rows[start * width], width, &v.columns[block.low], v.columns_row, STEP, block.num, width,
                        along.data(), block.num, false);
                for (int64_t query = 0; query < STEP; ++query) {
                    float *row = &scores[query * block.num], *beside = &along[query * block.num];
                    if (query >= block.count) {
                        fill(row, 0, block.num), fill(beside, 0, block.num);
                        std::fill_n(&changes[query * block.num], block.num, uint16_t(0));
                        continue;
                    }
                    const Seen own(seen, span, block, start, query);
                    const float total = totals[(span.row * heads + head) * length + span.start + start + query];
                    const float mean = dot(&g.rows[(start + query) * width], out + at + (start + query) * step, width);
                    for (int64_t i = 0; i < block.num; i += LANES) {
                        const Floats weight = only(own.lanes(i), exponential(load(row + i) * scale - total));
                        const Floats change = weight * (load(beside + i) - mean) * scale;
                        store(row + i, weight);
                        store(beside + i, change);
                        store(&changes[query * block.num + i], change);
                    }
                }
                for (int64_t query = 0; query < STEP; query += 2)
                    for (int64_t i = 0; i < block.num; i += LANES) {
                        const int64_t even = query * block.num + i, odd = even + block.num, place = query / 2 * block.num + i;
                        store_words(&weight_pairs[place], paired(load(&scores[even]), load(&scores[odd])));
                        store_words(&change_pairs[place], paired(load(&along[even]), load(&along[odd])));
                    }
                g.turned(start, turned.data());
                product(tiles, turned.data(), STEP, weight_pairs.data(), block.num, width, block.num, STEP, &dv[block.low],
                        k.columns_row, true);
                q.turned(start, turned.data());
                product(tiles, turned.data(), STEP, change_pairs.data(), block.num, width, block.num, STEP, &dk[block.low],
                        k.columns_row, true);
                product(tiles, changes.data(), block.num, &k.pairs[block.low / 2 * width], width, STEP, width, block.num,
                        mixed.data(), width, false);
                for (int64_t query = 0; query < block.count; ++query)
                    write(&mixed[query * width], width, to_queries + at + (start + query) * step);
            }
            write_turned(dk, k.columns_row, num, width, to_keys + at, step);
            write_turned(dv, k.columns_row, num, width, to_values + at, step);
        }
    }
}

}  // namespace
#endif

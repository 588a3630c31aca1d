// Attention of one query: to the positions that a row holds in pages, or to a few keys and values side by side.
#pragma once
#include <algorithm>

#include "kv_cache.h"
#include "quantize.h"
#include "softmax.h"

namespace blt {

constexpr int64_t CACHE_LINE = 64;  // bytes
constexpr int64_t PAGES_AHEAD = 4;  // how far ahead values are fetched

// The numbers of a position's key or value enter a page, `stride` apart.
inline void write(const float *from, int64_t width, int64_t stride, float *to) {
    for (int64_t at = 0; at < width; ++at) to[at * stride] = from[at];
}
inline void write(const float *from, int64_t width, int64_t stride, int8_t *to, float *scale) {
    *scale = int8_scale(from, width);
    const float inverse = *scale > 0 ? 1.0f / *scale : 0.0f;
    for (int64_t at = 0; at < width; ++at) to[at * stride] = to_int8(from[at] * inverse);
}

inline void write_key(const float *key, int64_t width, int64_t slot, float *keys) {
    write(key, width, PAGE, keys + slot);
}
inline void write_key(const float *key, int64_t width, int64_t slot, int8_t *keys) {
    write(key, width, PAGE, keys + slot, scales(keys, width) + slot);
}
inline void write_value(const float *value, int64_t width, int64_t slot, float *values) {
    write(value, width, 1, values + slot * width);
}
inline void write_value(const float *value, int64_t width, int64_t slot, int8_t *values) {
    write(value, width, 1, values + slot * width, scales(values, width) + slot);
}

// What sums over a page's numbers are multiplied by, position by position, where the numbers have scales.
inline void multiply_by_scales(const float *, int64_t, float *) {}
inline void multiply_by_scales(const int8_t *numbers, int64_t width, float *sums) {
    for (int64_t slot = 0; slot < PAGE; slot += LANES)
        store(sums + slot, load(sums + slot) * load(scales(numbers, width) + slot));
}

// Scores of PAGES pages of keys at once; each score is summed in the order of the dimensions. Meanwhile the keys of the
// next pages are fetched: pages lie far from each other, and no processor guesses where the next one is.
template <int PAGES, class Number>
inline void score_pages(const Number *const (&keys)[PAGES], const Number *const (&next)[PAGES], const float *query,
                        int64_t width, float *scores) {
    constexpr int VECTORS = PAGE / LANES;
    constexpr int64_t ROWS = CACHE_LINE / (PAGE * int64_t(sizeof(Number)));  // dimensions that a cache line holds
    Floats sums[PAGES][VECTORS] = {};
    for (int64_t at = 0; at < width; ++at) {
        const Floats part = broadcast(query[at]);
        if (at % ROWS == 0)
            for (int page = 0; page < PAGES; ++page) __builtin_prefetch(next[page] + at * PAGE);
        for (int page = 0; page < PAGES; ++page)
            for (int v = 0; v < VECTORS; ++v)
                sums[page][v] = multiply_add(load_widened(keys[page] + at * PAGE + v * LANES), part, sums[page][v]);
    }
    std::memcpy(scores, sums, sizeof sums);
    for (int page = 0; page < PAGES; ++page) multiply_by_scales(keys[page], width, scores + page * PAGE);
}

// VECTORS vectors of the weighted sum of the values of slots [from, to) of a page; even and odd slots are summed apart.
// Meanwhile those of a page that comes later are fetched.
template <int VECTORS, class Number>
inline void mix_page(const float *weights, const Number *values, const Number *later, int64_t width, int64_t from,
                     int64_t to, Floats (&sums)[2][VECTORS]) {
    int64_t slot = from;
    const auto add = [&](int64_t slot, Floats(&into)[VECTORS]) {
        const Floats weight = broadcast(weights[slot]);
        for (int64_t line = 0; line < VECTORS * LANES * int64_t(sizeof(Number)); line += CACHE_LINE)
            __builtin_prefetch(reinterpret_cast<const char *>(later + slot * width) + line);
        for (int v = 0; v < VECTORS; ++v)
            into[v] = multiply_add(load_widened(values + slot * width + v * LANES), weight, into[v]);
    };
    if (slot % 2 && slot < to) add(slot++, sums[1]);
    for (; slot + 2 <= to; slot += 2) {
        add(slot, sums[0]);
        add(slot + 1, sums[1]);
    }
    if (slot < to) add(slot, sums[0]);
}

struct Seen {  // the positions that a query may see, and the pages that hold them
    const PageTable *table;
    int64_t first, last;
    HeadLayout layout;
    int64_t layer, head;

    int64_t width() const { return layout.width; }
    template <class Number>
    const Number *keys(int64_t page) const {
        return part_of_page<const Number>(table->page(page), layout.keys(layer, head));
    }
    template <class Number>
    const Number *values(int64_t page) const {
        return part_of_page<const Number>(table->page(page), layout.values(layer, head));
    }
    int64_t first_page() const { return first / PAGE; }
    int64_t num_pages() const { return last / PAGE - first / PAGE + 1; }
    int64_t from(int64_t page) const { return page == first / PAGE ? first % PAGE : 0; }
    int64_t to(int64_t page) const { return page == last / PAGE ? last % PAGE + 1 : PAGE; }
};

template <int VECTORS, class Number>
inline void mix(const Seen &seen, const float *weights, float scale, int64_t at, float *out) {
    Floats sums[2][VECTORS] = {};
    for (int64_t number = 0; number < seen.num_pages(); ++number) {
        const int64_t page = seen.first_page() + number;
        const Number *values = seen.values<Number>(page) + at;
        const int64_t ahead = std::min(page + PAGES_AHEAD, seen.last / PAGE);
        const Number *later = seen.values<Number>(ahead) + at;
        mix_page<VECTORS>(weights + number * PAGE, values, later, seen.width(), seen.from(page), seen.to(page), sums);
    }
    for (int v = 0; v < VECTORS; ++v) store(out + at + v * LANES, (sums[0][v] + sums[1][v]) * scale);
}

// A scaled query meets all that it may see; `scores` has room for whole pages.
template <class Number>
inline void attend(const Seen &seen, const float *query, float *scores, float *out) {
    const int64_t pages = seen.num_pages(), first_page = seen.first_page();
    int64_t page = 0;
    const auto keys = [&](int64_t number) { return seen.keys<Number>(first_page + number); };
    const auto later = [&](int64_t number) { return keys(std::min(number, pages - 1)); };
    for (; page + 4 <= pages; page += 4) {
        const Number *const four[4] = {keys(page), keys(page + 1), keys(page + 2), keys(page + 3)};
        const Number *const next[4] = {later(page + 4), later(page + 5), later(page + 6), later(page + 7)};
        score_pages<4>(four, next, query, seen.width(), scores + page * PAGE);
    }
    for (; page < pages; ++page) {
        const Number *const one[1] = {keys(page)}, *const next[1] = {later(page + 1)};
        score_pages<1>(one, next, query, seen.width(), scores + page * PAGE);
    }
    for (int64_t slot = 0; slot < seen.first % PAGE; ++slot) scores[slot] = NEVER;
    for (int64_t slot = seen.last % PAGE + 1; slot < PAGE; ++slot) scores[(pages - 1) * PAGE + slot] = NEVER;
    const float scale = 1.0f / exponentials_inplace(scores, pages * PAGE);
    for (int64_t number = 0; number < pages; ++number)
        multiply_by_scales(seen.values<Number>(first_page + number), seen.width(), scores + number * PAGE);
    int64_t at = 0;
    for (; at + 4 * LANES <= seen.width(); at += 4 * LANES) mix<4, Number>(seen, scores, scale, at, out);
    for (; at + LANES <= seen.width(); at += LANES) mix<1, Number>(seen, scores, scale, at, out);
    for (; at < seen.width(); ++at) {
        float sums[2] = {};  // of even and of odd slots, as in `mix`
        for (int64_t number = 0; number < pages; ++number) {
            const Number *values = seen.values<Number>(first_page + number) + at;
            for (int64_t slot = seen.from(first_page + number); slot < seen.to(first_page + number); ++slot)
                sums[slot % 2] += scores[number * PAGE + slot] * float(values[slot * seen.width()]);
        }
        out[at] = (sums[0] + sums[1]) * scale;
    }
}

// A query, not scaled, meets `num` keys and values that lie `stride` apart; `scores` has room for a vector more.
inline void attend_few(const float *query, const float *keys, const float *values, int64_t num, int64_t stride,
                       int64_t width, float *scores, float *out) {
    const float scale = 1.0f / std::sqrt(float(width));
    for (int64_t at = 0; at < num; ++at) scores[at] = dot(query, keys + at * stride, width) * scale;
    for (int64_t at = num; at % LANES; ++at) scores[at] = NEVER;
    const float whole = 1.0f / exponentials_inplace(scores, round_up(num, LANES));
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) {
        Floats total{};
        for (int64_t key = 0; key < num; ++key)
            total = multiply_add(load(values + key * stride + at), broadcast(scores[key]), total);
        store(out + at, total * whole);
    }
    for (; at < width; ++at) {
        float total = 0;
        for (int64_t key = 0; key < num; ++key) total += scores[key] * values[key * stride + at];
        out[at] = total * whole;
    }
}

}  // namespace blt

// What surrounds the products of matrices in training, forward and backward, on a CPU: norms, SwiGLU, RoPE, attention
// to runs of positions, both cross-attentions, and the gradient of embedded n-grams.
//
// What enters and leaves is float32 or bfloat16; sums are float32 and taken in an order that does not depend on the
// number of threads, so that a run is the same again. Widths of rows and heads are multiples of 16.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "vectors.h"

namespace {

template <class T>
inline void read(const T *from, int64_t width, float *to) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(from + at));
}

template <class T>
inline void write(const float *from, int64_t width, T *to) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(from + at));
}

template <class L, class R>
inline float dot(const L *left, const R *right, int64_t width) {
    Floats total = same(0);
    for (int64_t at = 0; at < width; at += LANES) total += load(left + at) * load(right + at);
    return sum(total);
}

template <class T>
inline void add_scaled(float *to, float factor, const T *from, int64_t width) {
    for (int64_t at = 0; at < width; at += LANES) store(to + at, load(to + at) + factor * load(from + at));
}

inline void fill(float *to, float value, int64_t width) { std::fill(to, to + width, value); }

// A matrix of `height` × LANES·`wide`, C (+)= A · B: A by any strides, B and C row by row.
template <int HEIGHT, int WIDE>
inline void tile(const float *a, int64_t row_step, int64_t step, const float *b, int64_t b_row, int64_t depth, float *c,
                 int64_t c_row, bool add) {
    Floats sums[HEIGHT][WIDE];
    for (int row = 0; row < HEIGHT; ++row)
        for (int part = 0; part < WIDE; ++part)
            sums[row][part] = add ? load(c + row * c_row + part * LANES) : same(0);
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

// Sums over rows are taken over chunks of this many rows, then over the chunks.
constexpr int64_t CHUNK = 256;

template <class In, class Out>
void norm_forward(const In *in, const float *weight, float epsilon, int64_t rows, int64_t dim, Out *out, float *scale) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const In *from = in + row * dim;
        const float factor = 1 / std::sqrt(dot(from, from, dim) / dim + epsilon);
        for (int64_t at = 0; at < dim; at += LANES) store(out + row * dim + at, load(from + at) * factor * load(weight + at));
        scale[row] = factor;
    }
}

template <class In, class Out>
void norm_backward(const Out *given, const In *in, const float *weight, const float *scale, int64_t rows, int64_t dim,
                   In *gradient, float *weight_gradient) {
    const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
    std::vector<float> partial(chunks * dim, 0.0f);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        float *sums = partial.data() + chunk * dim;
        for (int64_t row = chunk * CHUNK; row < std::min(rows, (chunk + 1) * CHUNK); ++row) {
            const In *from = in + row * dim;
            const Out *above = given + row * dim;
            const float factor = scale[row];
            Floats along = same(0);
            for (int64_t at = 0; at < dim; at += LANES) {
                const Floats pair = load(above + at) * load(from + at);
                store(sums + at, load(sums + at) + pair * factor);
                along += pair * load(weight + at);
            }
            const float shrink = sum(along) * factor * factor * factor / dim;
            for (int64_t at = 0; at < dim; at += LANES)
                store(gradient + row * dim + at, load(above + at) * load(weight + at) * factor - load(from + at) * shrink);
        }
    }
    fill(weight_gradient, 0, dim);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) add_scaled(weight_gradient, 1, partial.data() + chunk * dim, dim);
}

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

template <class T>
void swiglu_forward(const T *gate, const T *up, int64_t count, T *out) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < count; at += LANES) {
        const Floats g = load(gate + at);
        store(out + at, g * sigmoid(g) * load(up + at));
    }
}

template <class T>
void swiglu_backward(const T *given, const T *gate, const T *up, int64_t count, T *to_gate, T *to_up) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < count; at += LANES) {
        const Floats above = load(given + at), g = load(gate + at), u = load(up + at), s = sigmoid(g);
        store(to_gate + at, above * u * s * (1.0f + g * (1.0f - s)));
        store(to_up + at, above * g * s);
    }
}

// states + factor · update, with a factor of each row, or 1 where there are none.
template <class T>
void sum_forward(const float *states, const T *update, const float *factors, int64_t rows, int64_t dim, float *out) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const float factor = factors ? factors[row] : 1;
        for (int64_t at = row * dim; at < (row + 1) * dim; at += LANES)
            store(out + at, load(states + at) + factor * load(update + at));
    }
}

template <class T>
void sum_backward(const float *given, const float *factors, int64_t rows, int64_t dim, T *to_update) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const float factor = factors ? factors[row] : 1;
        for (int64_t at = row * dim; at < (row + 1) * dim; at += LANES) store(to_update + at, factor * load(given + at));
    }
}

// Turns each pair (i, i + half) of every head by its position's angle, or back.
template <class T>
void rotate(const T *in, const float *cos, const float *sin, int64_t positions, int64_t heads, int64_t half, float sign,
            T *out) {
#pragma omp parallel for schedule(static)
    for (int64_t position = 0; position < positions; ++position)
        for (int64_t head = 0; head < heads; ++head) {
            const int64_t first = (position * heads + head) * 2 * half;
            for (int64_t at = 0; at < half; at += LANES) {
                const Floats c = load(cos + position * half + at), s = sign * load(sin + position * half + at);
                const Floats left = load(in + first + at), right = load(in + first + half + at);
                store(out + first + at, left * c - right * s);
                store(out + first + half + at, right * c + left * s);
            }
        }
}

// Attention in which position t of a row sees the positions first[t] … t. Positions t with first[t] = t divide a row
// into spans that do not meet, which are computed apart.
constexpr int64_t QUERIES = 32;

struct Span {
    int64_t row, start, end;
};

std::vector<Span> spans_of(const int64_t *first, int64_t rows, int64_t length) {
    std::vector<Span> found;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t t = 0; t < length; ++t) {
            const bool starts = t == 0 || first[row * length + t] == t;
            if (starts && (t == 0 || t - found.back().start >= 64)) found.push_back({row, t, t});
            found.back().end = t + 1;
        }
    return found;
}

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

// The keys that a block of queries meets, [low, low + num), and each query's own among them.
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
void attend_forward(const T *queries, const T *keys, const T *values, const int64_t *first, int64_t rows, int64_t length,
                    int64_t heads, int64_t width, T *out, float *totals) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
#pragma omp parallel
    {
        Head q, k, v;
        std::vector<float> scores, mixed(QUERIES * width);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const Span span = spans[task / heads];
            const int64_t head = task % heads, num = span.end - span.start;
            const int64_t at = (span.row * length + span.start) * step + head * width;
            const int64_t *seen = first + span.row * length;
            q.take(queries + at, step, num, width, false);
            k.take(keys + at, step, num, width, true);
            v.take(values + at, step, num, width, false);
            v.rows.resize((whole(num) + LANES) * width, 0.0f);
            for (float &value : q.rows) value *= scale;
            for (int64_t start = 0; start < num; start += QUERIES) {
                const Block block(seen, span, start);
                scores.resize(QUERIES * block.num);
                product(q.rows.data() + start * width, width, 1, k.columns.data() + block.low, k.columns_row, block.count,
                        block.num, width, scores.data(), block.num, false);
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
                    totals[(span.row * heads + head) * length + span.start + start + query] = top + std::log(whole_weight);
                }
                product(scores.data(), block.num, 1, v.rows.data() + block.low * width, width, block.count, width,
                        std::min(block.num, num - block.low), mixed.data(), width, false);
                for (int64_t query = 0; query < block.count; ++query)
                    write(mixed.data() + query * width, width, out + at + (start + query) * step);
            }
        }
    }
}

template <class T>
void attend_backward(const T *given, const T *queries, const T *keys, const T *values, const T *out, const float *totals,
                     const int64_t *first, int64_t rows, int64_t length, int64_t heads, int64_t width, T *to_queries,
                     T *to_keys, T *to_values) {
    const std::vector<Span> spans = spans_of(first, rows, length);
    const int64_t step = heads * width, tasks = int64_t(spans.size()) * heads;
    const float scale = 1 / std::sqrt(float(width));
#pragma omp parallel
    {
        Head q, k, v, g;
        std::vector<float> weights, scores, mixed(QUERIES * width), dk, dv, result(width);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; ++task) {
            const Span span = spans[task / heads];
            const int64_t head = task % heads, num = span.end - span.start;
            const int64_t at = (span.row * length + span.start) * step + head * width;
            const int64_t *seen = first + span.row * length;
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
                product(asking, width, 1, k.columns.data() + block.low, k.columns_row, block.count, block.num, width,
                        weights.data(), block.num, false);
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
                product(scores.data(), block.num, 1, k.rows.data() + block.low * width, width, block.count, width, inside,
                        mixed.data(), width, false);
                for (int64_t query = 0; query < block.count; ++query) {
                    for (int64_t i = 0; i < width; i += LANES) store(&result[i], load(&mixed[query * width + i]) * scale);
                    write(result.data(), width, to_queries + at + (start + query) * step);
                }
            }
            for (int64_t t = 0; t < num; ++t) {
                write(dk.data() + t * width, width, to_keys + at + t * step);
                write(dv.data() + t * width, width, to_values + at + t * step);
            }
        }
    }
}

}  // namespace

#include "half_attention.h"

namespace {

// Bytes that read the k vectors of a slot; slots[b, t] = num_slots: none. Bytes that read one slot are neighbours.
template <class T>
void read_forward(const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows, int64_t length,
                  int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *out) {
#pragma omp parallel
    {
        std::vector<float> weights(num_vectors), mixed(width);
#pragma omp for schedule(static)
        for (int64_t position = 0; position < rows * length; ++position) {
            const int64_t slot = slots[position];
            for (int64_t head = 0; head < heads; ++head) {
                const int64_t mine = (position * heads + head) * width;
                fill(mixed.data(), 0, width);
                if (slot < num_slots) {
                    const int64_t base = (position / length * num_slots + slot) * num_vectors;
                    float top = -std::numeric_limits<float>::infinity(), total = 0;
                    for (int64_t i = 0; i < num_vectors; ++i) {
                        weights[i] = dot(queries + mine, keys + ((base + i) * heads + head) * width, width);
                        top = std::max(top, weights[i]);
                    }
                    for (int64_t i = 0; i < num_vectors; ++i) total += weights[i] = std::exp(weights[i] - top);
                    for (int64_t i = 0; i < num_vectors; ++i)
                        add_scaled(mixed.data(), weights[i] / total, values + ((base + i) * heads + head) * width, width);
                }
                write(mixed.data(), width, out + mine);
            }
        }
    }
}

template <class T>
void read_backward(const T *given, const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows,
                   int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *to_queries,
                   T *to_keys, T *to_values) {
#pragma omp parallel
    {
        std::vector<float> weights(num_vectors), along(num_vectors), mixed(width);
        std::vector<float> dk(num_vectors * width), dv(num_vectors * width);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            const int64_t row = task / heads, head = task % heads;
            int64_t open = num_slots;
            const auto close = [&] {
                for (int64_t i = 0; open < num_slots && i < num_vectors; ++i) {
                    const int64_t there = (((row * num_slots + open) * num_vectors + i) * heads + head) * width;
                    write(&dk[i * width], width, to_keys + there);
                    write(&dv[i * width], width, to_values + there);
                }
                fill(dk.data(), 0, num_vectors * width);
                fill(dv.data(), 0, num_vectors * width);
            };
            close();
            for (int64_t t = 0; t < length; ++t) {
                const int64_t slot = slots[row * length + t], mine = ((row * length + t) * heads + head) * width;
                if (slot != open) {
                    close();
                    open = slot;
                }
                fill(mixed.data(), 0, width);
                if (slot < num_slots) {
                    const int64_t base = (row * num_slots + slot) * num_vectors;
                    float top = -std::numeric_limits<float>::infinity(), total = 0, mean = 0;
                    for (int64_t i = 0; i < num_vectors; ++i) {
                        const int64_t there = ((base + i) * heads + head) * width;
                        weights[i] = dot(queries + mine, keys + there, width);
                        along[i] = dot(given + mine, values + there, width);
                        top = std::max(top, weights[i]);
                    }
                    for (int64_t i = 0; i < num_vectors; ++i) total += weights[i] = std::exp(weights[i] - top);
                    for (int64_t i = 0; i < num_vectors; ++i) mean += (weights[i] /= total) * along[i];
                    for (int64_t i = 0; i < num_vectors; ++i) {
                        const float change = weights[i] * (along[i] - mean);
                        add_scaled(&dv[i * width], weights[i], given + mine, width);
                        add_scaled(&dk[i * width], change, queries + mine, width);
                        add_scaled(mixed.data(), change, keys + ((base + i) * heads + head) * width, width);
                    }
                }
                write(mixed.data(), width, to_queries + mine);
            }
            close();
        }
    }
}

// The runs of bytes that feed a slot.
template <class Each>
inline void each_run(const int64_t *slots, int64_t length, int64_t num_slots, Each each) {
    for (int64_t start = 0, end; start < length; start = end) {
        for (end = start + 1; end < length && slots[end] == slots[start]; ++end) {
        }
        each(slots[start], start, end);
    }
}

// Queries of a slot that read the bytes which feed it.
template <class T>
void pool_forward(const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows, int64_t length,
                  int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *out) {
#pragma omp parallel
    {
        std::vector<float> weights, mixed(width);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            const int64_t row = task / heads, head = task % heads;
            const auto of_byte = [&](int64_t t) { return ((row * length + t) * heads + head) * width; };
            each_run(slots + row * length, length, num_slots, [&](int64_t slot, int64_t start, int64_t end) {
                if (slot >= num_slots) return;
                weights.resize(end - start);
                for (int64_t i = 0; i < num_vectors; ++i) {
                    const int64_t mine = (((row * num_slots + slot) * num_vectors + i) * heads + head) * width;
                    float top = -std::numeric_limits<float>::infinity(), total = 0;
                    for (int64_t t = start; t < end; ++t)
                        top = std::max(top, weights[t - start] = dot(queries + mine, keys + of_byte(t), width));
                    for (float &weight : weights) total += weight = std::exp(weight - top);
                    fill(mixed.data(), 0, width);
                    for (int64_t t = start; t < end; ++t)
                        add_scaled(mixed.data(), weights[t - start] / total, values + of_byte(t), width);
                    write(mixed.data(), width, out + mine);
                }
            });
        }
    }
}

template <class T>
void pool_backward(const T *given, const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows,
                   int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *to_queries,
                   T *to_keys, T *to_values) {
#pragma omp parallel
    {
        std::vector<float> weights, along, mixed(width), dk, dv;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            const int64_t row = task / heads, head = task % heads;
            const auto of_byte = [&](int64_t t) { return ((row * length + t) * heads + head) * width; };
            each_run(slots + row * length, length, num_slots, [&](int64_t slot, int64_t start, int64_t end) {
                const int64_t count = end - start;
                weights.resize(count);
                along.resize(count);
                dk.assign(count * width, 0.0f);
                dv.assign(count * width, 0.0f);
                for (int64_t i = 0; slot < num_slots && i < num_vectors; ++i) {
                    const int64_t mine = (((row * num_slots + slot) * num_vectors + i) * heads + head) * width;
                    float top = -std::numeric_limits<float>::infinity(), total = 0, mean = 0;
                    for (int64_t t = 0; t < count; ++t) {
                        weights[t] = dot(queries + mine, keys + of_byte(start + t), width);
                        along[t] = dot(given + mine, values + of_byte(start + t), width);
                        top = std::max(top, weights[t]);
                    }
                    for (float &weight : weights) total += weight = std::exp(weight - top);
                    for (int64_t t = 0; t < count; ++t) mean += (weights[t] /= total) * along[t];
                    fill(mixed.data(), 0, width);
                    for (int64_t t = 0; t < count; ++t) {
                        const float change = weights[t] * (along[t] - mean);
                        add_scaled(&dv[t * width], weights[t], given + mine, width);
                        add_scaled(&dk[t * width], change, queries + mine, width);
                        add_scaled(mixed.data(), change, keys + of_byte(start + t), width);
                    }
                    write(mixed.data(), width, to_queries + mine);
                }
                for (int64_t t = 0; t < count; ++t) {
                    write(&dk[t * width], width, to_keys + of_byte(start + t));
                    write(&dv[t * width], width, to_values + of_byte(start + t));
                }
            });
        }
    }
}

// The largest value of each slot, feature by feature, and where it was; the first of equals.
template <class T>
void largest_forward(const T *in, const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots, int64_t dim,
                     T *out, int32_t *places) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        each_run(slots + row * length, length, num_slots, [&](int64_t slot, int64_t start, int64_t end) {
            if (slot >= num_slots) return;
            const int64_t to = (row * num_slots + slot) * dim;
            for (int64_t at = 0; at < dim; ++at) {
                int64_t best = row * length + start;
                for (int64_t t = row * length + start + 1; t < row * length + end; ++t)
                    if (one(in + t * dim + at) > one(in + best * dim + at)) best = t;
                out[to + at] = in[best * dim + at];
                places[to + at] = int32_t(best);
            }
        });
}

template <class T>
void largest_backward(const T *given, const int32_t *places, int64_t count, int64_t dim, T *gradient) {
#pragma omp parallel for schedule(static)
    for (int64_t slot = 0; slot < count; ++slot)
        for (int64_t at = 0; at < dim; ++at)
            if (places[slot * dim + at] >= 0) gradient[places[slot * dim + at] * dim + at] = given[slot * dim + at];
}

void scatter_rows(const float *given, const int64_t *indices, int64_t positions, int64_t each, int64_t dim,
                  float *gradient) {
    const int64_t parts = dim / 16;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < parts; ++part)  // a thread owns some columns: no two write the same place
        for (int64_t position = 0; position < positions; ++position)
            for (int64_t i = 0; i < each; ++i)
                add_scaled(gradient + indices[position * each + i] * dim + part * 16, 1, given + position * dim + part * 16, 16);
}

}  // namespace

// Kinds of numbers: 0 float32, 1 bfloat16.
#define BY_KIND(kind, call)                                   \
    do {                                                      \
        if (kind == 0) {                                      \
            typedef float T;                                  \
            call;                                             \
        } else {                                              \
            typedef uint16_t T;                               \
            call;                                             \
        }                                                     \
    } while (0)
#define IN(name) static_cast<const T *>(name)
#define OUT(name) static_cast<T *>(name)

extern "C" {

// Whether products of bfloat16 may use tiles; for tests, which want to see both ways.
void blt_use_tiles([[maybe_unused]] int32_t allowed) {
#if defined(TILES)
    tiles_allowed() = allowed && tiles_allowed_by_system();
#endif
}

void blt_norm_forward(int32_t kind, int32_t out_kind, const void *in, const float *weight, float epsilon, int64_t rows,
                      int64_t dim, void *out, float *scale) {
    if (out_kind == 0)
        BY_KIND(kind, norm_forward(IN(in), weight, epsilon, rows, dim, static_cast<float *>(out), scale));
    else
        BY_KIND(kind, norm_forward(IN(in), weight, epsilon, rows, dim, static_cast<uint16_t *>(out), scale));
}

void blt_norm_backward(int32_t kind, int32_t out_kind, const void *given, const void *in, const float *weight,
                       const float *scale, int64_t rows, int64_t dim, void *gradient, float *weight_gradient) {
    if (out_kind == 0)
        BY_KIND(kind, norm_backward(static_cast<const float *>(given), IN(in), weight, scale, rows, dim, OUT(gradient),
                                    weight_gradient));
    else
        BY_KIND(kind, norm_backward(static_cast<const uint16_t *>(given), IN(in), weight, scale, rows, dim, OUT(gradient),
                                    weight_gradient));
}

void blt_swiglu_forward(int32_t kind, const void *gate, const void *up, int64_t count, void *out) {
    BY_KIND(kind, swiglu_forward(IN(gate), IN(up), count, OUT(out)));
}

void blt_swiglu_backward(int32_t kind, const void *given, const void *gate, const void *up, int64_t count, void *to_gate,
                         void *to_up) {
    BY_KIND(kind, swiglu_backward(IN(given), IN(gate), IN(up), count, OUT(to_gate), OUT(to_up)));
}

void blt_sum_forward(int32_t kind, const float *states, const void *update, const float *factors, int64_t rows,
                     int64_t dim, float *out) {
    BY_KIND(kind, sum_forward(states, IN(update), factors, rows, dim, out));
}

void blt_sum_backward(int32_t kind, const float *given, const float *factors, int64_t rows, int64_t dim, void *to_update) {
    BY_KIND(kind, sum_backward(given, factors, rows, dim, OUT(to_update)));
}

void blt_rotate(int32_t kind, const void *in, const float *cos, const float *sin, int64_t positions, int64_t heads,
                int64_t half, float sign, void *out) {
    BY_KIND(kind, rotate(IN(in), cos, sin, positions, heads, half, sign, OUT(out)));
}

void blt_attend_forward(int32_t kind, const void *queries, const void *keys, const void *values, const int64_t *first,
                        int64_t rows, int64_t length, int64_t heads, int64_t width, void *out, float *totals) {
#if defined(HALVES)
    typedef const uint16_t *H;
    if (kind == 1 && width % STEP == 0)
        return attend_forward_halves(H(queries), H(keys), H(values), first, rows, length, heads, width,
                                     static_cast<uint16_t *>(out), totals);
#endif
    BY_KIND(kind, attend_forward(IN(queries), IN(keys), IN(values), first, rows, length, heads, width, OUT(out), totals));
}

void blt_attend_backward(int32_t kind, const void *given, const void *queries, const void *keys, const void *values,
                         const void *out, const float *totals, const int64_t *first, int64_t rows, int64_t length,
                         int64_t heads, int64_t width, void *to_queries, void *to_keys, void *to_values) {
#if defined(HALVES)
    typedef const uint16_t *H;
    typedef uint16_t *O;
    if (kind == 1 && width % STEP == 0)
        return attend_backward_halves(H(given), H(queries), H(keys), H(values), H(out), totals, first, rows, length, heads,
                                      width, O(to_queries), O(to_keys), O(to_values));
#endif
    BY_KIND(kind, attend_backward(IN(given), IN(queries), IN(keys), IN(values), IN(out), totals, first, rows, length,
                                  heads, width, OUT(to_queries), OUT(to_keys), OUT(to_values)));
}

#define CROSS(name)                                                                                                      \
    void blt_##name##_forward(int32_t kind, const void *queries, const void *keys, const void *values,                   \
                              const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots,                     \
                              int64_t num_vectors, int64_t heads, int64_t width, void *out) {                            \
        BY_KIND(kind, name##_forward(IN(queries), IN(keys), IN(values), slots, rows, length, num_slots, num_vectors,     \
                                     heads, width, OUT(out)));                                                           \
    }                                                                                                                    \
    void blt_##name##_backward(int32_t kind, const void *given, const void *queries, const void *keys,                   \
                               const void *values, const int64_t *slots, int64_t rows, int64_t length,                   \
                               int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, void *to_queries,   \
                               void *to_keys, void *to_values) {                                                         \
        BY_KIND(kind, name##_backward(IN(given), IN(queries), IN(keys), IN(values), slots, rows, length, num_slots,      \
                                      num_vectors, heads, width, OUT(to_queries), OUT(to_keys), OUT(to_values)));        \
    }
CROSS(read)
CROSS(pool)

void blt_largest_forward(int32_t kind, const void *in, const int64_t *slots, int64_t rows, int64_t length,
                         int64_t num_slots, int64_t dim, void *out, int32_t *places) {
    BY_KIND(kind, largest_forward(IN(in), slots, rows, length, num_slots, dim, OUT(out), places));
}

void blt_largest_backward(int32_t kind, const void *given, const int32_t *places, int64_t count, int64_t dim,
                          void *gradient) {
    BY_KIND(kind, largest_backward(IN(given), places, count, dim, OUT(gradient)));
}

void blt_scatter_rows(const float *given, const int64_t *indices, int64_t positions, int64_t each, int64_t dim,
                      float *gradient) {
    scatter_rows(given, indices, positions, each, dim, gradient);
}

}

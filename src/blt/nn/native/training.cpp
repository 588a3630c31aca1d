// What surrounds the products of matrices in training, forward and backward, on a CPU: norms, SwiGLU, RoPE, attention
// to runs of positions, both cross-attentions, and the gradient of embedded n-grams.
//
// What enters and leaves is float32 or bfloat16; sums are float32 and taken in an order that does not depend on the
// number of threads, so that a run is the same again. Widths of rows and heads are multiples of 16.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "bfloat16_attention.h"
#include "bfloat16_matrices.h"
#include "cross_attention.h"
#include "rows.h"
#include "runs.h"

namespace {

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

// How bfloat16 is multiplied: 0 as float32, 1 by dot products of pairs, 2 by tiles.
int32_t blt_bfloat16_products() {
#if defined(TILES)
    if (tiles_allowed()) return 2;
#endif
#if defined(BFLOAT16_PRODUCTS)
    return 1;
#endif
    return 0;
}

// Whether it may be multiplied by tiles; for tests, which want to see both ways.
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
#if defined(BFLOAT16_PRODUCTS)
    typedef const uint16_t *H;
    if (kind == 1 && serves_width(width))
        return attend_forward_bfloat16(H(queries), H(keys), H(values), first, {rows, length, heads, width},
                                       static_cast<uint16_t *>(out), totals);
#endif
    BY_KIND(kind, attend_forward(IN(queries), IN(keys), IN(values), first, rows, length, heads, width, OUT(out), totals));
}

void blt_attend_backward(int32_t kind, const void *given, const void *queries, const void *keys, const void *values,
                         const void *out, const float *totals, const int64_t *first, int64_t rows, int64_t length,
                         int64_t heads, int64_t width, void *to_queries, void *to_keys, void *to_values) {
#if defined(BFLOAT16_PRODUCTS)
    typedef const uint16_t *H;
    typedef uint16_t *O;
    if (kind == 1 && serves_width(width))
        return attend_backward_bfloat16(H(given), H(queries), H(keys), H(values), H(out), totals, first,
                                        {rows, length, heads, width}, O(to_queries), O(to_keys), O(to_values));
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

// The next two by tiles alone.
void blt_weight_gradient([[maybe_unused]] const uint16_t *given, [[maybe_unused]] const uint16_t *states,
                         [[maybe_unused]] int64_t positions, [[maybe_unused]] int64_t height,
                         [[maybe_unused]] int64_t width, [[maybe_unused]] float *out) {
#if defined(TILES)
    weight_gradient(given, states, positions, height, width, out);
#endif
}

void blt_muon_step([[maybe_unused]] float *weight, [[maybe_unused]] const float *gradient, [[maybe_unused]] float *average,
                   [[maybe_unused]] int64_t rows, [[maybe_unused]] int64_t columns, [[maybe_unused]] float momentum,
                   [[maybe_unused]] float rate, [[maybe_unused]] float kept, [[maybe_unused]] const float *coefficients,
                   [[maybe_unused]] int64_t iterations) {
#if defined(TILES)
    muon_step(weight, gradient, average, rows, columns, momentum, rate, kept, coefficients, iterations);
#endif
}

void blt_scatter_rows(const float *given, const int64_t *indices, int64_t positions, int64_t each, int64_t dim,
                      float *gradient) {
    scatter_rows(given, indices, positions, each, dim, gradient);
}

}

// The operations between the matmuls of training, forward and backward, on a CPU: norms, SwiGLU, RoPE, attention to
// runs of positions, both cross-attentions, and the gradient of embedded n-grams.
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
#include "status.h"

namespace {

// Sums over rows are taken over chunks of this many rows, then over the chunks.
constexpr int64_t CHUNK = 256;

template <class In, class Out>
void norm_forward(const In *in, const float *weight, float epsilon, int64_t rows, int64_t dim, Out *out, float *scale) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const In *from = in + row * dim;
        const float factor = 1 / std::sqrt(dot(from, from, dim) / dim + epsilon);
        for (int64_t at = 0; at < dim; at += LANES)
            store(out + row * dim + at, load(from + at) * factor * load(weight + at));
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
                store(gradient + row * dim + at,
                      load(above + at) * load(weight + at) * factor - load(from + at) * shrink);
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
        for (int64_t at = row * dim; at < (row + 1) * dim; at += LANES)
            store(to_update + at, factor * load(given + at));
    }
}

// Applies RoPE to each pair (i, i + half) of every head, or its inverse.
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

// Max pooling of each slot, per feature, and the position of the maximum; ties go to the first.
template <class T>
void largest_forward(const T *in, const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots, int64_t dim,
                     T *out, int64_t *places) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        each_run(slots + row * length, length, [&](int64_t slot, int64_t start, int64_t end) {
            if (slot >= num_slots) return;
            const T *from = in + row * length * dim;
            const int64_t to = (row * num_slots + slot) * dim;
            for (int64_t at = 0; at < dim; ++at) {
                int64_t best = start;
                for (int64_t t = start + 1; t < end; ++t)
                    if (one(from + t * dim + at) > one(from + best * dim + at)) best = t;
                out[to + at] = from[best * dim + at];
                places[to + at] = best;
            }
        });
}

template <class T>
void largest_backward(const T *given, const int64_t *places, int64_t rows, int64_t length, int64_t num_slots,
                      int64_t dim, T *gradient) {
#pragma omp parallel for schedule(static)
    for (int64_t slot = 0; slot < rows * num_slots; ++slot)
        for (int64_t at = 0; at < dim; ++at) {
            const int64_t place = places[slot * dim + at];
            if (place >= 0) gradient[(slot / num_slots * length + place) * dim + at] = given[slot * dim + at];
        }
}

void scatter_rows(const float *given, const int64_t *indices, int64_t positions, int64_t each, int64_t dim,
                  float *gradient) {
    const int64_t parts = dim / 16;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < parts; ++part)  // a thread owns some columns: no two write the same place
        for (int64_t position = 0; position < positions; ++position)
            for (int64_t i = 0; i < each; ++i)
                add_scaled(gradient + indices[position * each + i] * dim + part * 16, 1,
                           given + position * dim + part * 16, 16);
}

}  // namespace

namespace {

// Calls work with a null pointer to the numbers of a kind: 0 float32, 1 bfloat16.
template <class Work>
void by_kind(int32_t kind, Work work) {
    if (kind == 0)
        work(static_cast<float *>(nullptr));
    else
        work(static_cast<uint16_t *>(nullptr));
}

template <class T>
const T *in(const void *numbers, const T *) {
    return static_cast<const T *>(numbers);
}

template <class T>
T *out(void *numbers, const T *) {
    return static_cast<T *>(numbers);
}

}  // namespace

// Each function returns a `Status`. `abi.py` declares them to Python, which checks types, devices and layouts of
// tensors; what index tensors hold is checked here.
extern "C" {

// How bfloat16 is multiplied: 0 as float32, 1 by dot products of pairs, 2 by tiles.
int32_t blt_bfloat16_products() {
#if defined(TILES)
    if (tiles_allowed()) return 2;
#endif
#if defined(BFLOAT16_PRODUCTS)
    return 1;
#else
    return 0;
#endif
}

// Whether it may be multiplied by tiles; for tests, which want to see both ways.
int32_t blt_use_tiles([[maybe_unused]] int32_t allowed) {
#if defined(TILES)
    tiles_allowed() = allowed && tiles_allowed_by_system();
#endif
    return SUCCESS;
}

int32_t blt_norm_forward(int32_t kind, int32_t out_kind, const void *states, const float *weight, float epsilon,
                         int64_t rows, int64_t dim, void *result, float *scale) {
    by_kind(kind, [&](auto *of) {
        by_kind(out_kind,
                [&](auto *to) { norm_forward(in(states, of), weight, epsilon, rows, dim, out(result, to), scale); });
    });
    return SUCCESS;
}

int32_t blt_norm_backward(int32_t kind, int32_t out_kind, const void *given, const void *states, const float *weight,
                          const float *scale, int64_t rows, int64_t dim, void *gradient, float *weight_gradient) {
    return status_of([&] {
        by_kind(kind, [&](auto *of) {
            by_kind(out_kind, [&](auto *to) {
                norm_backward(in(given, to), in(states, of), weight, scale, rows, dim, out(gradient, of),
                              weight_gradient);
            });
        });
        return SUCCESS;
    });
}

int32_t blt_swiglu_forward(int32_t kind, const void *gate, const void *up, int64_t count, void *result) {
    by_kind(kind, [&](auto *of) { swiglu_forward(in(gate, of), in(up, of), count, out(result, of)); });
    return SUCCESS;
}

int32_t blt_swiglu_backward(int32_t kind, const void *given, const void *gate, const void *up, int64_t count,
                            void *to_gate, void *to_up) {
    by_kind(kind, [&](auto *of) {
        swiglu_backward(in(given, of), in(gate, of), in(up, of), count, out(to_gate, of), out(to_up, of));
    });
    return SUCCESS;
}

int32_t blt_sum_forward(int32_t kind, const float *states, const void *update, const float *factors, int64_t rows,
                        int64_t dim, float *result) {
    by_kind(kind, [&](auto *of) { sum_forward(states, in(update, of), factors, rows, dim, result); });
    return SUCCESS;
}

int32_t blt_sum_backward(int32_t kind, const float *given, const float *factors, int64_t rows, int64_t dim,
                         void *to_update) {
    by_kind(kind, [&](auto *of) { sum_backward(given, factors, rows, dim, out(to_update, of)); });
    return SUCCESS;
}

int32_t blt_rotate(int32_t kind, const void *states, const float *cos, const float *sin, int64_t positions,
                   int64_t heads, int64_t half, float sign, void *result) {
    by_kind(kind, [&](auto *of) { rotate(in(states, of), cos, sin, positions, heads, half, sign, out(result, of)); });
    return SUCCESS;
}

int32_t blt_attend_forward(int32_t kind, const void *queries, const void *keys, const void *values,
                           const int64_t *first, int64_t rows, int64_t length, int64_t heads, int64_t width,
                           void *result, float *totals) {
    if (!never_falls(first, rows, length)) return BAD_INDEX;
    return status_of([&] {
#if defined(BFLOAT16_PRODUCTS)
        if (kind == 1 && serves_width(width)) {
            const uint16_t *of = nullptr;
            attend_forward_bfloat16(in(queries, of), in(keys, of), in(values, of), first, {rows, length, heads, width},
                                    out(result, of), totals);
            return SUCCESS;
        }
#endif
        by_kind(kind, [&](auto *of) {
            attend_forward(in(queries, of), in(keys, of), in(values, of), first, rows, length, heads, width,
                           out(result, of), totals);
        });
        return SUCCESS;
    });
}

int32_t blt_attend_backward(int32_t kind, const void *given, const void *queries, const void *keys, const void *values,
                            const void *result, const float *totals, const int64_t *first, int64_t rows, int64_t length,
                            int64_t heads, int64_t width, void *to_queries, void *to_keys, void *to_values) {
    if (!never_falls(first, rows, length)) return BAD_INDEX;
    return status_of([&] {
#if defined(BFLOAT16_PRODUCTS)
        if (kind == 1 && serves_width(width)) {
            const uint16_t *of = nullptr;
            attend_backward_bfloat16(in(given, of), in(queries, of), in(keys, of), in(values, of), in(result, of),
                                     totals, first, {rows, length, heads, width}, out(to_queries, of), out(to_keys, of),
                                     out(to_values, of));
            return SUCCESS;
        }
#endif
        by_kind(kind, [&](auto *of) {
            attend_backward(in(given, of), in(queries, of), in(keys, of), in(values, of), in(result, of), totals, first,
                            rows, length, heads, width, out(to_queries, of), out(to_keys, of), out(to_values, of));
        });
        return SUCCESS;
    });
}

int32_t blt_read_forward(int32_t kind, const void *queries, const void *keys, const void *values, const int64_t *slots,
                         int64_t rows, int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads,
                         int64_t width, void *result) {
    return status_of([&] {
        if (!are_runs(slots, rows, length, num_slots)) return BAD_INDEX;
        by_kind(kind, [&](auto *of) {
            read_forward(in(queries, of), in(keys, of), in(values, of), slots, rows, length, num_slots, num_vectors,
                         heads, width, out(result, of));
        });
        return SUCCESS;
    });
}

int32_t blt_read_backward(int32_t kind, const void *given, const void *queries, const void *keys, const void *values,
                          const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots, int64_t num_vectors,
                          int64_t heads, int64_t width, void *to_queries, void *to_keys, void *to_values) {
    return status_of([&] {
        if (!are_runs(slots, rows, length, num_slots)) return BAD_INDEX;
        by_kind(kind, [&](auto *of) {
            read_backward(in(given, of), in(queries, of), in(keys, of), in(values, of), slots, rows, length, num_slots,
                          num_vectors, heads, width, out(to_queries, of), out(to_keys, of), out(to_values, of));
        });
        return SUCCESS;
    });
}

int32_t blt_pool_forward(int32_t kind, const void *queries, const void *keys, const void *values, const int64_t *slots,
                         int64_t rows, int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads,
                         int64_t width, void *result) {
    return status_of([&] {
        if (!are_runs(slots, rows, length, num_slots)) return BAD_INDEX;
        by_kind(kind, [&](auto *of) {
            pool_forward(in(queries, of), in(keys, of), in(values, of), slots, rows, length, num_slots, num_vectors,
                         heads, width, out(result, of));
        });
        return SUCCESS;
    });
}

int32_t blt_pool_backward(int32_t kind, const void *given, const void *queries, const void *keys, const void *values,
                          const int64_t *slots, int64_t rows, int64_t length, int64_t num_slots, int64_t num_vectors,
                          int64_t heads, int64_t width, void *to_queries, void *to_keys, void *to_values) {
    return status_of([&] {
        if (!are_runs(slots, rows, length, num_slots)) return BAD_INDEX;
        by_kind(kind, [&](auto *of) {
            pool_backward(in(given, of), in(queries, of), in(keys, of), in(values, of), slots, rows, length, num_slots,
                          num_vectors, heads, width, out(to_queries, of), out(to_keys, of), out(to_values, of));
        });
        return SUCCESS;
    });
}

int32_t blt_largest_forward(int32_t kind, const void *states, const int64_t *slots, int64_t rows, int64_t length,
                            int64_t num_slots, int64_t dim, void *result, int64_t *places) {
    return status_of([&] {
        if (!are_runs(slots, rows, length, num_slots)) return BAD_INDEX;
        by_kind(kind, [&](auto *of) {
            largest_forward(in(states, of), slots, rows, length, num_slots, dim, out(result, of), places);
        });
        return SUCCESS;
    });
}

int32_t blt_largest_backward(int32_t kind, const void *given, const int64_t *places, int64_t rows, int64_t length,
                             int64_t num_slots, int64_t dim, void *gradient) {
    by_kind(kind, [&](auto *of) {
        largest_backward(in(given, of), places, rows, length, num_slots, dim, out(gradient, of));
    });
    return SUCCESS;
}

// The next two by tiles alone.
int32_t blt_weight_gradient([[maybe_unused]] const uint16_t *given, [[maybe_unused]] const uint16_t *states,
                            [[maybe_unused]] int64_t positions, [[maybe_unused]] int64_t height,
                            [[maybe_unused]] int64_t width, [[maybe_unused]] float *result) {
#if defined(TILES)
    if (!tiles_allowed()) return UNSUPPORTED;
    return status_of([&] {
        weight_gradient(given, states, positions, height, width, result);
        return SUCCESS;
    });
#else
    return UNSUPPORTED;
#endif
}

int32_t blt_muon_step([[maybe_unused]] float *weight, [[maybe_unused]] const float *gradient,
                      [[maybe_unused]] float *average, [[maybe_unused]] int64_t rows, [[maybe_unused]] int64_t columns,
                      [[maybe_unused]] float momentum, [[maybe_unused]] float rate, [[maybe_unused]] float kept,
                      [[maybe_unused]] const float *coefficients, [[maybe_unused]] int64_t iterations) {
#if defined(TILES)
    if (!tiles_allowed()) return UNSUPPORTED;
    return status_of([&] {
        muon_step(weight, gradient, average, rows, columns, momentum, rate, kept, coefficients, iterations);
        return SUCCESS;
    });
#else
    return UNSUPPORTED;
#endif
}

int32_t blt_scatter_rows(const float *given, const int64_t *indices, int64_t positions, int64_t each, int64_t num_rows,
                         int64_t dim, float *gradient) {
    for (int64_t i = 0; i < positions * each; ++i)
        if (indices[i] < 0 || indices[i] >= num_rows) return BAD_INDEX;
    scatter_rows(given, indices, positions, each, dim, gradient);
    return SUCCESS;
}
}

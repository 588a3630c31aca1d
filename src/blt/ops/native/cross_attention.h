// Both cross-attentions: bytes that attend to the vectors of a slot, and queries of a slot that attend to its bytes.
//
// The bytes of a slot are contiguous, so a task (one head of one row) walks its bytes once, left to right. That makes
// the cost linear in bytes, and it lets one thread own every sum: gradients of a slot's keys and values are collected
// in a small buffer while its bytes pass, and written when the next slot begins. No atomics, and always one order.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "rows.h"
#include "runs.h"
#include "status.h"

namespace {

// Bytes that read the k vectors of a slot; slots[b, t] = num_slots: none. Bytes that read one slot are neighbours.
template <class T>
void read_forward(const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows, int64_t length,
                  int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *out) {
    Failure failure;
#pragma omp parallel
    {
        std::vector<float> weights, mixed;
#pragma omp for schedule(static)
        for (int64_t position = 0; position < rows * length; ++position) {
            failure.guard([&] {
                weights.resize(num_vectors), mixed.resize(width);
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
                            add_scaled(mixed.data(), weights[i] / total, values + ((base + i) * heads + head) * width,
                                       width);
                    }
                    write(mixed.data(), width, out + mine);
                }
            });
        }
    }
    failure.rethrow();
}

template <class T>
void read_backward(const T *given, const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows,
                   int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *to_queries,
                   T *to_keys, T *to_values) {
    Failure failure;
#pragma omp parallel
    {
        std::vector<float> weights, along, mixed, dk, dv;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            failure.guard([&] {
                const int64_t row = task / heads, head = task % heads;
                weights.resize(num_vectors), along.resize(num_vectors), mixed.resize(width);
                dk.resize(num_vectors * width), dv.resize(num_vectors * width);
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
            });
        }
    }
    failure.rethrow();
}

// Queries of a slot that read the bytes which feed it.
template <class T>
void pool_forward(const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows, int64_t length,
                  int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *out) {
    Failure failure;
#pragma omp parallel
    {
        std::vector<float> weights, mixed;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            failure.guard([&] {
                const int64_t row = task / heads, head = task % heads;
                mixed.resize(width);
                const auto of_byte = [&](int64_t t) { return ((row * length + t) * heads + head) * width; };
                each_run(slots + row * length, length, [&](int64_t slot, int64_t start, int64_t end) {
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
            });
        }
    }
    failure.rethrow();
}

template <class T>
void pool_backward(const T *given, const T *queries, const T *keys, const T *values, const int64_t *slots, int64_t rows,
                   int64_t length, int64_t num_slots, int64_t num_vectors, int64_t heads, int64_t width, T *to_queries,
                   T *to_keys, T *to_values) {
    Failure failure;
#pragma omp parallel
    {
        std::vector<float> weights, along, mixed, dk, dv;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; ++task) {
            failure.guard([&] {
                const int64_t row = task / heads, head = task % heads;
                mixed.resize(width);
                const auto of_byte = [&](int64_t t) { return ((row * length + t) * heads + head) * width; };
                each_run(slots + row * length, length, [&](int64_t slot, int64_t start, int64_t end) {
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
            });
        }
    }
    failure.rethrow();
}

}  // namespace

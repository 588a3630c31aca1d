// One step of Transformer layers on a CPU, for a few positions at a time, as fast as their weights can be read.
//
// Activations, keys and values are float32. Weights are float32, bfloat16, or int8 with a scale per row, and are
// converted in registers. What is computed for a position does not depend on the positions computed beside it, nor on
// the number of threads: each sum is taken in one fixed order. So a batch gives its rows' own results, bit for bit.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#include "layers.h"
#include "status.h"
#include "vectors.h"

namespace {

// OUT rows of a matrix times N vectors.
template <int OUT, int N, class Weight>
inline void block(const Weight *weight, int64_t width, const float *in, int64_t in_stride, float (&found)[N][OUT]) {
    Floats sums[N][OUT] = {};
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) {
        Floats inputs[N];
        for (int n = 0; n < N; ++n) inputs[n] = load(in + n * in_stride + at);
        for (int out = 0; out < OUT; ++out) {
            const Floats row = load(weight + out * width + at);
            for (int n = 0; n < N; ++n) sums[n][out] += row * inputs[n];
        }
    }
    for (int n = 0; n < N; ++n) {
        sums_of(sums[n], found[n]);
        for (int64_t rest = at; rest < width; ++rest)
            for (int out = 0; out < OUT; ++out)
                found[n][out] += one(weight + out * width + rest) * in[n * in_stride + rest];
    }
}

template <class Weight>
inline float dot(const float *left, const Weight *right, int64_t width) {
    float found[1][1];
    block<1, 1>(right, width, left, 0, found);
    return found[0][0];
}

}  // namespace

namespace {

// Where threads wait for each other: awake, since the wait is shorter than falling asleep would take; unless it is not.
class Barrier {
    std::atomic<int> arrived{0}, round{0};

  public:
    void wait() {
#ifdef _OPENMP
        const int threads = omp_get_num_threads(), mine = round.load(std::memory_order_relaxed);
        if (threads == 1) return;
        if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
            arrived.store(0, std::memory_order_relaxed);
            round.store(mine + 1, std::memory_order_release);
            return;
        }
        for (int tries = 0; round.load(std::memory_order_acquire) == mine;)
            if (tries < 2000)
                ++tries;
            else
                std::this_thread::yield();
#endif
    }
};

// How many weights times vectors are worth a second thread.
constexpr int64_t WORTH_THREADS = 200000;

// The part [first, last) of `count` that a thread takes, in whole multiples.
struct Share {
    int64_t first, last;
    Share(int64_t count, int64_t multiple) {
#ifdef _OPENMP
        const int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
#else
        const int64_t threads = 1, me = 0;
#endif
        const int64_t blocks = (count + multiple - 1) / multiple;
        first = blocks * me / threads * multiple;
        last = blocks * (me + 1) / threads * multiple;
        if (last > count) last = count;
        if (first > count) first = count;
    }
};

template <int OUT, int N, class Weight>
inline void place(const Matrix &matrix, int64_t row, const float *in, float *out, int64_t stride, bool add) {
    float found[N][OUT];
    block<OUT, N>(static_cast<const Weight *>(matrix.weight) + row * matrix.width, matrix.width, in, matrix.width,
                  found);
    for (int n = 0; n < N; ++n) {
        float *to = out + n * stride + row;
        if (matrix.scale)
            for (int o = 0; o < OUT; ++o) found[n][o] *= matrix.scale[row + o];
        if (add)
            for (int o = 0; o < OUT; ++o) to[o] += found[n][o];
        else
            std::memcpy(to, found[n], sizeof found[n]);
    }
}

template <int OUT, class Weight>
inline void columns(const Matrix &matrix, int64_t row, const float *in, int64_t num, float *out, int64_t stride,
                    bool add) {
    constexpr int MOST = 3;  // vectors at once
    const int64_t blocks = (num + MOST - 1) / MOST, size = OUT * matrix.width * int64_t(sizeof(Weight));
    // an address, not a pointer: it may lie beyond the matrix, where prefetching does no harm
    const uintptr_t next = reinterpret_cast<uintptr_t>(matrix.weight) + (row + OUT) * matrix.width * sizeof(Weight);
    int64_t n = 0;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t count = (num - n + blocks - block - 1) / (blocks - block);  // all blocks alike, or nearly
        if (blocks > 1)  // the weights that follow are on their way while these are multiplied
            for (int64_t at = size * block / blocks; at < size * (block + 1) / blocks; at += 64)
                __builtin_prefetch(reinterpret_cast<const void *>(next + at), 0, 2);
        const float *from = in + n * matrix.width;
        float *to = out + n * stride;
        if (count == 1) place<OUT, 1, Weight>(matrix, row, from, to, stride, add);
        if (count == 2) place<OUT, 2, Weight>(matrix, row, from, to, stride, add);
        if (count == 3) place<OUT, 3, Weight>(matrix, row, from, to, stride, add);
        n += count;
    }
}

template <class Weight>
inline void multiply(const Matrix &matrix, Share share, const float *in, int64_t num, float *out, int64_t stride,
                     bool add) {
    int64_t row = share.first;
    if (num == 1 || LANES == 16)  // there are registers for 8 × 3 sums
        for (; row + 8 <= share.last; row += 8) columns<8, Weight>(matrix, row, in, num, out, stride, add);
    for (; row + 4 <= share.last; row += 4) columns<4, Weight>(matrix, row, in, num, out, stride, add);
    for (; row < share.last; ++row) columns<1, Weight>(matrix, row, in, num, out, stride, add);
}

// This thread's rows of out = matrix · in (added to what is there, if asked for), for `num` vectors.
void multiply(const Matrix &matrix, const float *in, int64_t num, float *out, int64_t stride, bool add = false) {
    const Share share(matrix.height, 8);
    if (matrix.kind == FLOAT32) multiply<float>(matrix, share, in, num, out, stride, add);
    if (matrix.kind == BFLOAT16) multiply<uint16_t>(matrix, share, in, num, out, stride, add);
    if (matrix.kind == INT8) multiply<int8_t>(matrix, share, in, num, out, stride, add);
}

void normalise(const Norm &norm, const float *in, int64_t num, int64_t width, float *out) {
    const Share share(num, 1);
    for (int64_t n = share.first; n < share.last; ++n) {
        const float *from = in + n * width;
        const float scale = 1.0f / std::sqrt(dot(from, from, width) / width + norm.epsilon);
        for (int64_t i = 0; i < width; ++i) out[n * width + i] = from[i] * scale * norm.weight[i];
    }
}

// Turns each pair (i, i + half) of a head by its position's angle, scales it, and puts it elsewhere.
void rotate(const float *from, const float *cos, const float *sin, int64_t half, float scale, float *to) {
    for (int64_t i = 0; i < half; ++i) {
        const float first = from[i], second = from[i + half];
        to[i] = (first * cos[i] - second * sin[i]) * scale;
        to[i + half] = (second * cos[i] + first * sin[i]) * scale;
    }
}

// The softmax of `num` scores takes their place; there is room for LANES more.
void soften(float *scores, int64_t num) {
    for (int64_t i = num; i % LANES; ++i) scores[i] = -INFINITY;
    Floats most = load(scores), total{};
    for (int64_t i = LANES; i < num; i += LANES) {
        const Floats others = load(scores + i);
        most = others > most ? others : most;
    }
    const float top = largest(most);
    for (int64_t i = 0; i < num; i += LANES) {
        const Floats before = load(scores + i), weights = before < -1e30f ? Floats{} : exponential(before - top);
        std::memcpy(scores + i, &weights, sizeof weights);
        total += weights;
    }
    const float whole = sum(total);
    for (int64_t i = 0; i < num; ++i) scores[i] /= whole;
}

// PARTS vectors of the weighted sum of values; value i lies at values(i).
template <int PARTS, class Values>
inline void gather(const float *weights, int64_t num, Values values, int64_t at, float *out) {
    Floats sums[PARTS] = {};
    for (int64_t i = 0; i < num; ++i) {
        const float *value = values(i) + at;
        for (int part = 0; part < PARTS; ++part) sums[part] += weights[i] * load(value + part * LANES);
    }
    std::memcpy(out + at, sums, sizeof sums);
}

template <class Values>
void gather(const float *weights, int64_t num, int64_t width, Values values, float *out) {
    int64_t at = 0;
    for (; at + 4 * LANES <= width; at += 4 * LANES) gather<4>(weights, num, values, at, out);
    for (; at + LANES <= width; at += LANES) gather<1>(weights, num, values, at, out);
    for (; at < width; ++at) {
        out[at] = 0;
        for (int64_t i = 0; i < num; ++i) out[at] += weights[i] * values(i)[at];
    }
}

// One head of one position meets what it may see of its row: one or two runs of slots.
void attend(const Cache &cache, int64_t row, int64_t position, int64_t head, int64_t width, const float *query,
            float *out) {
    static thread_local std::vector<float> scores;
    const int64_t first = position >= cache.window ? position - cache.window + 1 : 0, num = position - first + 1;
    if (int64_t(scores.size()) < num + LANES) scores.resize(2 * num + LANES);
    const int64_t start = (row * cache.num_heads + head) * cache.num_slots, begin = first % cache.num_slots;
    const auto slot = [&](int64_t i) {
        const int64_t there = begin + i;
        return (start + (there < cache.num_slots ? there : there - cache.num_slots)) * width;
    };
    const int64_t before_the_end = cache.num_slots - begin;
    int64_t i = 0;
    while (i < num) {
        const int64_t until = i < before_the_end && before_the_end < num ? before_the_end : num;
        for (; i + 4 <= until; i += 4) {
            float found[1][4];
            block<4, 1>(cache.keys + slot(i), width, query, 0, found);
            for (int key = 0; key < 4; ++key) scores[i + key] = found[0][key];
        }
        for (; i < until; ++i) scores[i] = dot(query, cache.keys + slot(i), width);
    }
    soften(scores.data(), num);
    gather(scores.data(), num, width, [&](int64_t i) { return cache.values + slot(i); }, out);
}

void self_attention(const Layer &layer, const Cache &cache, const StepInputs &places, float *states, float *scratch,
                    Barrier &barrier, Failure &failure) {
    const int64_t dim = layer.query.width, heads = layer.num_heads, width = dim / heads, num = places.num;
    float *normed = scratch, *queries = normed + num * dim, *keys = queries + num * dim, *values = keys + num * dim;
    normalise(layer.attention_norm, states, num, dim, normed);
    barrier.wait();
    multiply(layer.query, normed, num, queries, dim);
    multiply(layer.key, normed, num, keys, dim);
    multiply(layer.value, normed, num, values, dim);
    barrier.wait();
    const Share share(num * heads, 1);
    for (int64_t item = share.first; item < share.last; ++item) {
        const int64_t n = item / heads, head = item % heads, from = n * dim + head * width;
        const float *cos = places.cos + n * width / 2, *sin = places.sin + n * width / 2;
        const int64_t slot = (places.rows[n] * heads + head) * cache.num_slots + places.positions[n] % cache.num_slots;
        rotate(keys + from, cos, sin, width / 2, 1.0f, cache.keys + slot * width);
        std::memcpy(cache.values + slot * width, values + from, width * sizeof(float));
        rotate(queries + from, cos, sin, width / 2, 1.0f / std::sqrt(float(width)), normed + from);
    }
    barrier.wait();
    failure.guard([&] {
        for (int64_t item = share.first; item < share.last; ++item) {
            const int64_t n = item / heads, head = item % heads, from = n * dim + head * width;
            attend(cache, places.rows[n], places.positions[n], head, width, normed + from, queries + from);
        }
    });
    barrier.wait();
    multiply(layer.output, queries, num, states, dim, true);
    barrier.wait();
}

void feed_forward(const Layer &layer, int64_t num, float *states, float *scratch, Barrier &barrier) {
    const int64_t dim = layer.gate.width, hidden = layer.gate.height;
    float *normed = scratch, *gates = normed + num * dim, *ups = gates + num * hidden;
    normalise(layer.feed_forward_norm, states, num, dim, normed);
    barrier.wait();
    multiply(layer.gate, normed, num, gates, hidden);
    multiply(layer.up, normed, num, ups, hidden);
    const Share share(hidden, 8);  // the rows that this thread has just written
    for (int64_t n = 0; n < num; ++n)
        for (int64_t at = share.first; at < share.last; at += LANES) {
            float *gate = gates + n * hidden + at;
            const int64_t count = share.last - at < LANES ? share.last - at : LANES;
            Floats x{};
            std::memcpy(&x, gate, count * sizeof(float));
            x = x / (1.0f + exponential(-x));
            std::memcpy(gate, &x, count * sizeof(float));
            for (int64_t i = 0; i < count; ++i) gate[i] *= ups[n * hidden + at + i];
        }
    barrier.wait();
    multiply(layer.down, gates, num, states, dim, true);
}

// Whether all places lie in the cache.
bool are_inside(const Cache &cache, const StepInputs &places) {
    if (cache.window < 1 || cache.window > cache.num_slots) return false;
    for (int64_t n = 0; n < places.num; ++n)
        if (places.rows[n] < 0 || places.rows[n] >= cache.num_rows || places.positions[n] < 0) return false;
    return true;
}

}  // namespace

// Each function returns a `Status`; `abi.py` declares them to Python.
extern "C" {

// states (num × dim) go through a layer, in place; scratch holds num × (4 · dim + 2 · hidden).
int32_t step_layer(const Layer *layer, const Cache *cache, const StepInputs *places, float *states, float *scratch) {
    if (!are_inside(*cache, *places)) return BAD_INDEX;
    return status_of([&] {
        Barrier barrier;
        Failure failure;
        [[maybe_unused]] const int64_t work =
            places->num * layer->query.width * (4 * layer->query.width + 3 * layer->gate.height);
#pragma omp parallel if (work > WORTH_THREADS)
        {
            self_attention(*layer, *cache, *places, states, scratch, barrier, failure);
            feed_forward(*layer, places->num, states, scratch, barrier);
        }
        failure.rethrow();
        return SUCCESS;
    });
}

// out (num × height) = matrix · norm(in); scratch holds num × width.
int32_t step_linear(const Norm *norm, const Matrix *matrix, const float *in, int64_t num, float *out, float *scratch) {
    Barrier barrier;
#pragma omp parallel if (num * matrix->height * matrix->width > WORTH_THREADS)
    {
        if (norm->weight) {
            normalise(*norm, in, num, matrix->width, scratch);
            barrier.wait();
        }
        multiply(*matrix, norm->weight ? scratch : in, num, out, matrix->height);
    }
    return SUCCESS;
}

// Each of the states (num × dim) meets `few` keys and values (sources × few × heads × head width) of the source that is
// its own, and what it gathers is projected and added to `kept` times itself; scratch holds num × 2 · dim.
int32_t step_cross_attention(const Norm *norm, const Matrix *query, const Matrix *output, int64_t num_heads, float kept,
                             const float *keys, const float *values, const int64_t *sources, int64_t num_sources,
                             int64_t few, int64_t num, float *states, float *scratch) {
    for (int64_t n = 0; n < num; ++n)
        if (sources[n] < 0 || sources[n] >= num_sources) return BAD_INDEX;
    return status_of([&] {
        const int64_t dim = query->width, width = dim / num_heads;
        float *normed = scratch, *queries = normed + num * dim;
        const float scale = 1.0f / std::sqrt(float(width));
        Barrier barrier;
        Failure failure;
#pragma omp parallel if (2 * num * dim * dim > WORTH_THREADS)
        {
            normalise(*norm, states, num, dim, normed);
            barrier.wait();
            multiply(*query, normed, num, queries, dim);
            barrier.wait();
            const Share share(num * num_heads, 1);
            failure.guard([&] {
                std::vector<float> scores(few + LANES);
                for (int64_t item = share.first; item < share.last; ++item) {
                    const int64_t n = item / num_heads, head = item % num_heads, mine = n * dim + head * width;
                    const auto of = [&](int64_t i) { return ((sources[n] * few + i) * num_heads + head) * width; };
                    for (int64_t i = 0; i < few; ++i) scores[i] = dot(queries + mine, keys + of(i), width) * scale;
                    soften(scores.data(), few);
                    gather(scores.data(), few, width, [&](int64_t i) { return values + of(i); }, normed + mine);
                    for (int64_t at = 0; at < width; ++at) states[mine + at] *= kept;
                }
            });
            barrier.wait();
            multiply(*output, normed, num, states, dim, true);
        }
        failure.rethrow();
        return SUCCESS;
    });
}
}

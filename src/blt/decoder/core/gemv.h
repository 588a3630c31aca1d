// Products of a packed matrix and some vectors, as fast as its weights can be read; the threads divide its panels.
//
// A GEMV is the case of one vector. Several vectors share each weight that is read, and the sum of an output is taken
// in the same order for each, so that a vector's product does not depend on the others, nor on the number of threads.
#pragma once
#include "norm.h"
#include "packed_matrix.h"
#include "thread_pool.h"

namespace blt {

// Vectors as a product reads them.
struct Inputs {
    const float *floats = nullptr;
    const uint32_t *words = nullptr;
    const float *scales = nullptr;
    const int32_t *sums = nullptr;
    int64_t stride = 0, blocks = 0;  // of floats or words; of scales and sums
};

// Memory for inputs that have to be normalised or converted first.
struct InputMemory {
    Buffer<float> floats, scales;
    Buffer<uint32_t> words;
    Buffer<int32_t> sums;

    void need(int64_t num, int64_t width) {
        const int64_t padded = round_up(width, BLOCK);
        floats.need(num * padded);
        words.need(num * padded / 2);
        scales.need(num * padded / BLOCK);
        sums.need(num * padded / BLOCK);
    }
};

constexpr int64_t FEW = 4096;  // inputs that each thread rather prepares by itself than waits for

inline void convert(const PackedMatrix &matrix, const float *from, int64_t at, InputMemory &memory,
                    const Inputs &inputs) {
    if (matrix.product == Product::BFLOAT16)
        to_pairs(from, matrix.inputs, memory.words.data() + at * inputs.stride);
    else
        quantize(from, matrix.inputs, reinterpret_cast<int32_t *>(memory.words.data() + at * inputs.stride),
                 memory.scales.data() + at * inputs.blocks, memory.sums.data() + at * inputs.blocks);
}

// `num` vectors, normalised if there is a norm, as the matrix reads them. All threads have them when it returns.
inline Inputs prepare(const Team &team, const PackedMatrix &matrix, const float *from, int64_t stride, int64_t num,
                      const Norm *norm, InputMemory &own, InputMemory &shared) {
    const bool stays_float = matrix.product == Product::FLOAT32 || matrix.product == Product::WIDE_BFLOAT16;
    if (stays_float && !norm) return {from, nullptr, nullptr, nullptr, stride, 0};
    const int64_t width = matrix.inputs, padded = round_up(width, BLOCK);
    const bool by_itself = team.size > 1 && num * width <= FEW;
    InputMemory &memory = by_itself ? own : shared;
    int64_t first = 0, last = num;
    if (!by_itself) team.share(num, first, last);
    const Inputs floats{memory.floats.data(), nullptr, nullptr, nullptr, padded, 0};
    const int64_t words = matrix.product == Product::BFLOAT16 ? padded / 2 : padded / 4;
    const Inputs converted{nullptr, memory.words.data(), memory.scales.data(), memory.sums.data(),
                           words,   padded / BLOCK};
    for (int64_t at = first; at < last; ++at) {
        const float *vector = from + at * stride;
        if (norm) {
            norm->apply(vector, memory.floats.data() + at * padded);
            vector = memory.floats.data() + at * padded;
        }
        if (!stays_float) convert(matrix, vector, at, memory, converted);
    }
    if (!by_itself) team.wait();
    return stays_float ? floats : converted;
}

// Weights that are fetched from memory while others are multiplied: so many bytes further with each input.
struct Ahead {
    const char *at;
    int64_t step;
};

// One panel times N vectors, from number `at` on.
template <int N>
inline void panel_float32(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at, Ahead ahead,
                          Floats (&sums)[N][PANEL_VECTORS]) {
    const float *weights = reinterpret_cast<const float *>(matrix.panel(panel)), *x = in.floats + at * in.stride;
    for (int64_t k = 0; k < matrix.inputs; ++k, weights += PANEL, ahead.at += ahead.step) {
        __builtin_prefetch(ahead.at);
        for (int n = 0; n < N; ++n) {
            const Floats input = broadcast(x[n * in.stride + k]);
            for (int v = 0; v < PANEL_VECTORS; ++v)
                sums[n][v] = multiply_add(load(weights + v * LANES), input, sums[n][v]);
        }
    }
}

// Inputs of even and of odd number are summed apart, so that no product waits for the one before it.
template <int N>
inline void panel_wide(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at,
                       Floats (&sums)[N][PANEL_VECTORS]) {
    const uint32_t *weights = matrix.panel(panel);
    const float *x = in.floats + at * in.stride;
    Floats odd[N][PANEL_VECTORS] = {};
    const int64_t pairs = matrix.inputs / 2;
    for (int64_t k = 0; k < pairs; ++k, weights += PANEL) {
        Floats half[PANEL_VECTORS];  // one half at a time, so that all stays in registers
        for (int v = 0; v < PANEL_VECTORS; ++v) half[v] = (Floats)(load_as<Words>(weights + v * LANES) << 16);
        for (int n = 0; n < N; ++n) {
            const Floats input = broadcast(x[n * in.stride + 2 * k]);
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[n][v] = multiply_add(half[v], input, sums[n][v]);
        }
        for (int v = 0; v < PANEL_VECTORS; ++v) half[v] = (Floats)(load_as<Words>(weights + v * LANES) & 0xffff0000u);
        for (int n = 0; n < N; ++n) {
            const Floats input = broadcast(x[n * in.stride + 2 * k + 1]);
            for (int v = 0; v < PANEL_VECTORS; ++v) odd[n][v] = multiply_add(half[v], input, odd[n][v]);
        }
    }
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            if (matrix.inputs % 2) {
                const Floats low = (Floats)(load_as<Words>(weights + v * LANES) << 16);
                sums[n][v] = multiply_add(low, broadcast(x[n * in.stride + 2 * pairs]), sums[n][v]);
            }
            sums[n][v] += odd[n][v];
        }
}

#if defined(__AVX512BF16__)
template <int N>
inline void panel_bfloat16(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at,
                           Floats (&sums)[N][PANEL_VECTORS]) {
    const uint32_t *weights = matrix.panel(panel), *x = in.words + at * in.stride;
    const int64_t depth = matrix.depth();
    for (int64_t k = 0; k < depth; ++k, weights += PANEL)
        for (int n = 0; n < N; ++n) {
            const __m512i pair = _mm512_set1_epi32(int32_t(x[n * in.stride + k]));
            for (int v = 0; v < PANEL_VECTORS; ++v)
                sums[n][v] = (Floats)_mm512_dpbf16_ps(
                    (__m512)sums[n][v], (__m512bh)_mm512_loadu_si512(weights + v * LANES), (__m512bh)pair);
        }
}
#endif

template <int N>
inline void panel_int8(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at,
                       Floats (&sums)[N][PANEL_VECTORS]) {
    const uint32_t *weights = matrix.panel(panel), *x = in.words + at * in.stride;
    for (int64_t block = 0; block < matrix.blocks(); ++block, x += BLOCK / 4) {
        Ints whole[N][PANEL_VECTORS];
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < PANEL_VECTORS; ++v)
                whole[n][v] = Ints{} - INT8_OFFSET * in.sums[(at + n) * in.blocks + block];
        for (int64_t k = 0; k < BLOCK / 4; ++k, weights += PANEL)
            for (int n = 0; n < N; ++n)
                for (int v = 0; v < PANEL_VECTORS; ++v)
                    whole[n][v] = dot4(whole[n][v], load_as<Words>(weights + v * LANES), int32_t(x[n * in.stride + k]));
        for (int n = 0; n < N; ++n) {
            const Floats scale = broadcast(in.scales[(at + n) * in.blocks + block]);
            for (int v = 0; v < PANEL_VECTORS; ++v)
                sums[n][v] = multiply_add(to_floats(whole[n][v]), scale, sums[n][v]);
        }
    }
    for (int v = 0; v < PANEL_VECTORS; ++v) {
        const Floats scale = load(matrix.scales() + panel * PANEL + v * LANES);
        for (int n = 0; n < N; ++n) sums[n][v] *= scale;
    }
}

template <int N>
inline void panel_int4(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at,
                       Floats (&sums)[N][PANEL_VECTORS]) {
    const uint32_t *weights = matrix.panel(panel), *x = in.words + at * in.stride;
    const uint16_t *scales = matrix.block_scales(panel);
    for (int64_t block = 0; block < matrix.blocks(); ++block, x += BLOCK / 4, scales += PANEL) {
        Ints whole[N][PANEL_VECTORS];
        for (int n = 0; n < N; ++n)
            for (int v = 0; v < PANEL_VECTORS; ++v)
                whole[n][v] = Ints{} - INT4_OFFSET * in.sums[(at + n) * in.blocks + block];
        for (int64_t k = 0; k < BLOCK / 4; k += 2, weights += PANEL)
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const Words both = load_as<Words>(weights + v * LANES);
                const Words low = both & 0x0f0f0f0fu, high = (both >> 4) & 0x0f0f0f0fu;
                for (int n = 0; n < N; ++n) {
                    whole[n][v] = dot4(whole[n][v], low, int32_t(x[n * in.stride + k]));
                    whole[n][v] = dot4(whole[n][v], high, int32_t(x[n * in.stride + k + 1]));
                }
            }
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const Floats scale = load_halves(scales + v * LANES);
            for (int n = 0; n < N; ++n) {
                const Floats found = to_floats(whole[n][v]) * in.scales[(at + n) * in.blocks + block];
                sums[n][v] = multiply_add(found, scale, sums[n][v]);
            }
        }
    }
}

template <Product PRODUCT, int N>
inline void panel_times(const PackedMatrix &matrix, int64_t panel, const Inputs &in, int64_t at, Ahead ahead,
                        float *out, int64_t stride, bool add) {
    Floats sums[N][PANEL_VECTORS] = {};
    if constexpr (PRODUCT == Product::FLOAT32) panel_float32<N>(matrix, panel, in, at, ahead, sums);
    if constexpr (PRODUCT == Product::WIDE_BFLOAT16) panel_wide<N>(matrix, panel, in, at, sums);
#if defined(__AVX512BF16__)
    if constexpr (PRODUCT == Product::BFLOAT16) panel_bfloat16<N>(matrix, panel, in, at, sums);
#endif
    if constexpr (PRODUCT == Product::INT8) panel_int8<N>(matrix, panel, in, at, sums);
    if constexpr (PRODUCT == Product::INT4) panel_int4<N>(matrix, panel, in, at, sums);
    for (int n = 0; n < N; ++n)
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const int64_t output = panel * PANEL + v * LANES, count = matrix.outputs - output;
            float *to = out + (at + n) * stride + output;
            if (count >= LANES) {
                store(to, add ? load(to) + sums[n][v] : sums[n][v]);
            } else if (count > 0) {
                const Floats found = add ? load_part(to, count) + sums[n][v] : sums[n][v];
                std::memcpy(to, &found, size_t(count) * sizeof(float));
            }
        }
}

// The panels [first, last) times all vectors, at most MOST at once and nearly as many each time. The first of them wait
// for a panel's weights to come from memory; while the others are multiplied, the next panel is fetched.
template <Product PRODUCT, int MOST>
inline void panels_times(const PackedMatrix &matrix, int64_t first, int64_t last, const Inputs &in, int64_t num,
                         float *out, int64_t stride, bool add) {
    const int64_t groups = (num + MOST - 1) / MOST;
    for (int64_t panel = first; panel < last; ++panel) {
        int64_t at = 0;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t count = (num - at + groups - group - 1) / (groups - group);
            Ahead ahead{reinterpret_cast<const char *>(matrix.panel(panel)), 0};
            if (group > 0 && panel + 1 < last) {
                const int64_t share = matrix.depth() * PANEL * int64_t(sizeof(uint32_t)) / (groups - 1);
                ahead.at = reinterpret_cast<const char *>(matrix.panel(panel + 1)) + (group - 1) * share;
                ahead.step = share / matrix.inputs;
            }
            if (count == 1) panel_times<PRODUCT, 1>(matrix, panel, in, at, ahead, out, stride, add);
            if (count == 2) panel_times<PRODUCT, 2>(matrix, panel, in, at, ahead, out, stride, add);
            if (count == 3) panel_times<PRODUCT, 3>(matrix, panel, in, at, ahead, out, stride, add);
            if constexpr (MOST > 3) {
                if (count == 4) panel_times<PRODUCT, 4>(matrix, panel, in, at, ahead, out, stride, add);
                if (count == 5) panel_times<PRODUCT, 5>(matrix, panel, in, at, ahead, out, stride, add);
                if (count == 6) panel_times<PRODUCT, 6>(matrix, panel, in, at, ahead, out, stride, add);
            }
            at += count;
        }
    }
}

// This thread's panels of out (num × stride) = inputs · matrixᵀ, or += if asked for.
inline void multiply(const Team &team, const PackedMatrix &matrix, const Inputs &in, int64_t num, float *out,
                     int64_t stride, bool add = false) {
    int64_t first, last;
    team.share(matrix.panels, first, last);
    switch (matrix.product) {
        case Product::FLOAT32:
            return panels_times<Product::FLOAT32, 6>(matrix, first, last, in, num, out, stride, add);
        case Product::WIDE_BFLOAT16:
            return panels_times<Product::WIDE_BFLOAT16, 3>(matrix, first, last, in, num, out, stride, add);
        case Product::BFLOAT16:
            return panels_times<Product::BFLOAT16, 6>(matrix, first, last, in, num, out, stride, add);
        case Product::INT8:
            return panels_times<Product::INT8, 3>(matrix, first, last, in, num, out, stride, add);
        case Product::INT4:
            return panels_times<Product::INT4, 3>(matrix, first, last, in, num, out, stride, add);
    }
}

}  // namespace blt

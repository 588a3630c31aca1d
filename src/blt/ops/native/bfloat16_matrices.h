// Products of whole bfloat16 matrices by AMX tiles, where one factor or both have to be turned or where half of what
// comes out is enough: gradients of weights, and the squares of Muon. Sizes are multiples of 32, but for the number of
// positions that a gradient sums over.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "bfloat16.h"

#if defined(TILES)
namespace {

// Values of a block, and of a tile, which holds 16 rows of 32, or 16 pairs of rows × 16 columns.
constexpr int64_t SIDE = 32, BLOCK = SIDE * SIDE, TILE = BLOCK / 2;

#ifdef _OPENMP
inline int64_t num_threads() { return omp_get_max_threads(); }
inline int64_t this_thread() { return omp_get_thread_num(); }
#else
inline int64_t num_threads() { return 1; }
inline int64_t this_thread() { return 0; }
#endif

// One factor of a product, as tiles in the order in which they are read: a panel holds 32 rows of a left factor, or 32
// columns of a right one, two tiles for each 32 of the depth.
struct Panels {
    int64_t count, steps;
    Array<uint16_t> values;

    Panels(int64_t size, int64_t depth) : count(size / SIDE), steps(depth / SIDE), values(size * depth) {}
    uint16_t *at(int64_t panel, int64_t step) { return values.data() + (panel * steps + step) * 2 * TILE; }
    const uint16_t *at(int64_t panel, int64_t step) const { return values.data() + (panel * steps + step) * 2 * TILE; }
};

// 32 × 32 values, of which the first `count` rows are there, as the two tiles of a right factor.
inline void take_pairs(const uint16_t *from, int64_t row, int64_t count, uint16_t *tiles) {
    alignas(64) static const uint16_t none[SIDE] = {};
    const __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i doubled = _mm512_or_si512(numbers, _mm512_slli_epi32(numbers, 16));
    const __m512i left = _mm512_or_si512(doubled, _mm512_set1_epi32(32 << 16));  // even 0, odd 0, even 1, odd 1, …
    const __m512i right = _mm512_add_epi16(left, _mm512_set1_epi16(16));
    for (int64_t i = 0; i < SIDE; i += 2) {
        const __m512i even = _mm512_loadu_si512(i < count ? from + i * row : none);
        const __m512i odd = _mm512_loadu_si512(i + 1 < count ? from + (i + 1) * row : none);
        _mm512_storeu_si512(tiles + i * 16, _mm512_permutex2var_epi16(even, left, odd));
        _mm512_storeu_si512(tiles + TILE + i * 16, _mm512_permutex2var_epi16(even, right, odd));
    }
}

// Two tiles of a left factor become those of a right one, which is the left one turned; and back.
inline void turn(const uint16_t *from, uint16_t *to) {
    transpose(pairs_of(from), 16, pairs_of(to), 16);
    transpose(pairs_of(from + TILE), 16, pairs_of(to + TILE), 16);
}

// 32 × 32 of C (+)= A · B, for as many steps of a panel of each.
inline void multiply_panels(const uint16_t *a, const uint16_t *b, int64_t steps, float *c, bool add) {
    begin_sums(c, SIDE, add);
    for (int64_t step = 0; step < steps; ++step, a += 2 * TILE, b += 2 * TILE)
        add_product(a, a + TILE, 64, b, b + TILE, 64);
    store_sums(c, SIDE);
}

// A product's right factor, some panels at a time: as many as are read again and again from a cache of level 2, while
// the left factor passes by, so few steps of it at a time that it stays in one of level 1.
class RightFactor {
  public:
    RightFactor(int64_t width, int64_t depth)
        : count(width / SIDE),
          steps(depth / SIDE),
          each(std::clamp<int64_t>((int64_t(3) << 18) / (steps * 4 * TILE), 1, count)),
          panels(each * SIDE, depth),
          sums(num_threads() * (steps > MOST_STEPS ? each : 1) * BLOCK) {}

    // By all threads of a parallel region, which wait for one another. take(panel, step, to) writes two tiles of the
    // right factor; finish(panel of left, panel of right, sums) is told each 32 × 32 of the product, or of its lower
    // half.
    template <class Take, class Finish>
    void multiply(const Panels &left, Take take, Finish finish, bool lower_half = false) {
        const int64_t blocks = (steps + MOST_STEPS - 1) / MOST_STEPS, depth = (steps + blocks - 1) / blocks;
        float *own_sums = sums.data() + this_thread() * (blocks > 1 ? each : 1) * BLOCK;
        for (int64_t first = 0; first < count; first += each) {
            const int64_t last = std::min(first + each, count);
#pragma omp for schedule(static)
            for (int64_t number = 0; number < (last - first) * steps; ++number)
                take(first + number / steps, number % steps, panels.at(0, 0) + number * 2 * TILE);
#pragma omp for schedule(dynamic, 1)
            for (int64_t row = 0; row < left.count; ++row) {
                const int64_t end = lower_half ? std::min(last, row + 1) : last;
                for (int64_t step = 0; step < steps; step += depth)
                    for (int64_t column = first; column < end; ++column) {
                        float *values = own_sums + (blocks > 1 ? column - first : 0) * BLOCK;
                        multiply_panels(left.at(row, step), panels.at(column - first, step),
                                        std::min(depth, steps - step), values, step > 0);
                        if (step + depth >= steps) finish(row, column, values);
                    }
            }
        }
    }

  private:
    static constexpr int64_t MOST_STEPS = 16;
    const int64_t count, steps, each;
    Panels panels;
    Array<float> sums;  // of each thread
};

// leftᵀ · right, T × M and T × N → M × N float32: the gradient of a weight.
inline void weight_gradient(const uint16_t *left, const uint16_t *right, int64_t positions, int64_t height,
                            int64_t width, float *out) {
    if (positions == 0) return std::fill(out, out + height * width, 0.0f);
    const int64_t parts = (positions + 1023) / 1024;
    const int64_t depth = ((positions + parts - 1) / parts + SIDE - 1) / SIDE * SIDE;
    Panels turned(height, depth);
    RightFactor pairs(width, depth);
#pragma omp parallel
    {
        const Tiles tiles;
        alignas(64) uint16_t block[2 * TILE];
        for (int64_t start = 0; start < positions; start += depth) {
#pragma omp for schedule(static)
            for (int64_t step = 0; step < turned.steps; ++step) {
                const int64_t position = start + step * SIDE;
                for (int64_t panel = 0; panel < turned.count; ++panel) {
                    take_pairs(left + position * height + panel * SIDE, height, positions - position, block);
                    turn(block, turned.at(panel, step));
                }
            }
            pairs.multiply(
                turned,
                [&](int64_t panel, int64_t step, uint16_t *to) {
                    const int64_t position = start + step * SIDE;
                    take_pairs(right + position * width + panel * SIDE, width, positions - position, to);
                },
                [&](int64_t panel, int64_t column, const float *sums) {
                    for (int64_t i = 0; i < BLOCK; i += LANES) {
                        float *to = out + (panel * SIDE + i / SIDE) * width + column * SIDE + i % SIDE;
                        store(to, start ? load(to) + load(sums + i) : load(sums + i));
                    }
                });
        }
    }
}

inline void turn_block(const float *from, float *to) {
    for (int64_t i = 0; i < SIDE; i += 16)
        for (int64_t j = 0; j < SIDE; j += 16)
            transpose(reinterpret_cast<const Pair *>(from) + i * SIDE + j, SIDE,
                      reinterpret_cast<Pair *>(to) + j * SIDE + i, SIDE);
}

// A matrix, no taller than wide, that Muon brings to singular values near 1.
class Orthogonaliser {
  public:
    Orthogonaliser(int64_t height, int64_t width)
        : matrix(height, width),
          square(height, height),
          polynomial(height, height),
          turned(height, width),
          square_pairs(height, height),
          pairs(width, height) {}

    // The block at (32 · panel, 32 · column), as rows.
    uint16_t *block(int64_t panel, int64_t column) { return matrix.at(panel, column); }

    // X → (a + b X Xᵀ + c (X Xᵀ)²) X, for X times a factor; by all threads of a parallel region.
    void iterate(float a, float b, float c, float factor) {
        lower_half(
            matrix, turned, [&](int64_t panel, int64_t step, uint16_t *to) { turn(matrix.at(panel, step), to); },
            [&](int64_t panel, int64_t column, const float *sums) {
                uint16_t *to = square.at(panel, column);
                for (int64_t i = 0; i < BLOCK; i += LANES) store(to + i, load(sums + i) * (factor * factor));
            });
        lower_half(
            square, square_pairs, [&](int64_t panel, int64_t step, uint16_t *to) { pair(square, panel, step, to); },
            [&](int64_t panel, int64_t column, const float *sums) {
                const uint16_t *from = square.at(panel, column);
                uint16_t *to = polynomial.at(panel, column);
                for (int64_t i = 0; i < BLOCK; i += LANES) store(to + i, c * load(sums + i) + b * load(from + i));
            });
        pairs.multiply(
            polynomial, [&](int64_t panel, int64_t step, uint16_t *to) { pair(matrix, panel, step, to); },
            [&](int64_t panel, int64_t column, const float *sums) {  // whose panel of the right factor is taken already
                uint16_t *to = block(panel, column);
                for (int64_t i = 0; i < BLOCK; i += LANES) store(to + i, (a * load(to + i) + load(sums + i)) * factor);
            });
    }

  private:
    Panels matrix, square, polynomial;  // as left factors, whose tiles are the rows themselves
    RightFactor turned, square_pairs, pairs;

    // The right factor's tiles at (32 · step, 32 · panel) of a matrix.
    static void pair(Panels &from, int64_t panel, int64_t step, uint16_t *to) {
        take_pairs(from.at(step, panel), SIDE, SIDE, to);
    }

    // A symmetric product: its lower half is computed, and finish(panel, column, sums) takes each block and its mirror.
    template <class Take, class Finish>
    static void lower_half(const Panels &left, RightFactor &right, Take take, Finish finish) {
        const auto finish_both = [&](int64_t panel, int64_t column, const float *sums) {
            alignas(64) float mirrored[BLOCK];
            finish(panel, column, sums);
            if (column == panel) return;
            turn_block(sums, mirrored);
            finish(column, panel, mirrored);
        };
        right.multiply(left, take, finish_both, true);
    }
};

// One step of Muon: the average takes the gradient in, and the weight moves by their orthogonalised mixture.
inline void muon_step(float *weight, const float *gradient, float *average, int64_t rows, int64_t columns,
                      float momentum, float rate, float kept, const float *coefficients, int64_t iterations) {
    const bool is_tall = rows > columns;
    const int64_t num_rows = rows / SIDE, num_columns = columns / SIDE;  // of blocks
    Orthogonaliser found(std::min(rows, columns), std::max(rows, columns));
    std::vector<float> squares(num_rows);
#pragma omp parallel
    {
        const Tiles tiles;
        alignas(64) float block[BLOCK], turned[BLOCK];
#pragma omp for schedule(static)
        for (int64_t row = 0; row < num_rows; ++row) {
            Floats total = same(0);
            for (int64_t column = 0; column < num_columns; ++column) {
                for (int64_t i = 0; i < BLOCK; i += LANES) {
                    const int64_t at = (row * SIDE + i / SIDE) * columns + column * SIDE + i % SIDE;
                    const Floats given = load(gradient + at), mean = load(average + at);
                    const Floats taken = mean + (1 - momentum) * (given - mean),
                                 mixed = given + momentum * (taken - given);
                    store(average + at, taken);
                    store(block + i, mixed);
                    total += mixed * mixed;
                }
                if (is_tall) turn_block(block, turned);
                uint16_t *to = is_tall ? found.block(column, row) : found.block(row, column);
                for (int64_t i = 0; i < BLOCK; i += LANES) store(to + i, load((is_tall ? turned : block) + i));
            }
            squares[row] = sum(total);
        }
        double whole = 0;
        for (const float part : squares) whole += part;
        for (int64_t i = 0; i < iterations; ++i) {
            const float factor = i ? 1 : float(1 / (1.02 * std::max(std::sqrt(whole), 1e-7)));
            found.iterate(coefficients[3 * i], coefficients[3 * i + 1], coefficients[3 * i + 2], factor);
        }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < num_rows; ++row)
            for (int64_t column = 0; column < num_columns; ++column) {
                const uint16_t *from = is_tall ? found.block(column, row) : found.block(row, column);
                for (int64_t i = 0; i < BLOCK; i += LANES) store(block + i, load(from + i));
                if (is_tall) turn_block(block, turned);
                for (int64_t i = 0; i < BLOCK; i += LANES) {
                    float *to = weight + (row * SIDE + i / SIDE) * columns + column * SIDE + i % SIDE;
                    store(to, load(to) * kept - rate * load((is_tall ? turned : block) + i));
                }
            }
    }
}

}  // namespace
#endif

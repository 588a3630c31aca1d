// Products of bfloat16 matrices, summed in float32: by AMX tiles where the processor has them and the system lets us,
// else by AVX-512's dot products of pairs. Without either, BFLOAT16_PRODUCTS is not defined.
#pragma once
#include <new>
#include <vector>

#include "vectors.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define BFLOAT16_PRODUCTS
#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#define TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Memory that begins where a cache line does, and is not initialised.
template <class T>
struct Lines {
    typedef T value_type;
    Lines() = default;
    template <class U>
    Lines(const Lines<U> &) {}
    T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), std::align_val_t(64))); }
    void deallocate(T *at, size_t) { ::operator delete(at, std::align_val_t(64)); }
    void construct(T *) {}
    void construct(T *at, const T &value) { *at = value; }
    friend bool operator==(const Lines &, const Lines &) { return true; }
    friend bool operator!=(const Lines &, const Lines &) { return false; }
};
template <class T>
using Array = std::vector<T, Lines<T>>;

// The right factor of a product holds two rows in one of words: the even row's value in the lower half of each.
typedef uint32_t Pair __attribute__((may_alias));

inline Pair *pairs_of(uint16_t *values) { return reinterpret_cast<Pair *>(values); }
inline const Pair *pairs_of(const uint16_t *values) { return reinterpret_cast<const Pair *>(values); }

inline Words words(const Pair *from) {
    Words found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline void store_words(Pair *to, Words values) { std::memcpy(to, &values, sizeof values); }

// Two rows of float32 as one of pairs.
inline Words paired(Floats even, Floats odd) {
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);  // 16 of even, then 16 of odd
    const __m256i low = _mm512_castsi512_si256((__m512i)both), high = _mm512_extracti64x4_epi64((__m512i)both, 1);
    return (Words)_mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// Two rows of bfloat16 as one of pairs.
inline void pair_rows(const uint16_t *even, const uint16_t *odd, int64_t width, Pair *to) {
    for (int64_t at = 0; at < width; at += LANES) {
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(even + at)));
        const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(odd + at)));
        _mm512_storeu_si512(to + at, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

// 16 × 16 words, transposed; gathers would do, but are slow under the mitigation of Downfall.
inline void transpose(const Pair *from, int64_t from_row, Pair *to, int64_t to_row) {
    __m512i a[16], b[16];
    for (int row = 0; row < 16; ++row) a[row] = _mm512_loadu_si512(from + row * from_row);
    for (int row = 0; row < 16; row += 2) {
        b[row] = _mm512_unpacklo_epi32(a[row], a[row + 1]);
        b[row + 1] = _mm512_unpackhi_epi32(a[row], a[row + 1]);
    }
    for (int four = 0; four < 16; four += 4)  // a[four + i]: column 4 · lane + i of rows four … four + 3
        for (int half = 0; half < 2; ++half) {
            a[four + 2 * half] = _mm512_unpacklo_epi64(b[four + half], b[four + 2 + half]);
            a[four + 2 * half + 1] = _mm512_unpackhi_epi64(b[four + half], b[four + 2 + half]);
        }
    for (int i = 0; i < 4; ++i) {
        const __m512i low01 = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88),
                      high01 = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
        const __m512i low23 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
        const __m512i high23 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
        _mm512_storeu_si512(to + i * to_row, _mm512_shuffle_i32x4(low01, low23, 0x88));
        _mm512_storeu_si512(to + (4 + i) * to_row, _mm512_shuffle_i32x4(high01, high23, 0x88));
        _mm512_storeu_si512(to + (8 + i) * to_row, _mm512_shuffle_i32x4(low01, low23, 0xdd));
        _mm512_storeu_si512(to + (12 + i) * to_row, _mm512_shuffle_i32x4(high01, high23, 0xdd));
    }
}

#if defined(TILES)
inline bool tiles_allowed_by_system() {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
}

inline bool &tiles_allowed() {
    static bool allowed = tiles_allowed_by_system();
    return allowed;
}

struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles of this thread, for as long as this lives.
struct Tiles {
    const bool on = tiles_allowed();
    Tiles() {
        static const TileShapes shapes;
        if (on) _tile_loadconfig(&shapes);
    }
    ~Tiles() {
        if (on) _tile_release();
    }
};

// Sums of 32 × 32 in tiles 0 to 3: those of C, or zeros.
inline void begin_sums(const float *c, int64_t c_row, bool add) {
    asm volatile("" ::: "memory");  // what was stored is in memory: GCC's tile loads do not say that they read it
    if (add) {
        _tile_loadd(0, c, c_row * 4);
        _tile_loadd(1, c + 16, c_row * 4);
        _tile_loadd(2, c + 16 * c_row, c_row * 4);
        _tile_loadd(3, c + 16 * c_row + 16, c_row * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

inline void store_sums(float *c, int64_t c_row) {
    _tile_stored(0, c, c_row * 4);
    _tile_stored(1, c + 16, c_row * 4);
    _tile_stored(2, c + 16 * c_row, c_row * 4);
    _tile_stored(3, c + 16 * c_row + 16, c_row * 4);
    asm volatile("" ::: "memory");  // nor do its tile stores say that they write
}

// sums += A · B, for 32 of the depth, each factor two tiles of rows `a_row` and `b_row` bytes apart.
inline void add_product(const uint16_t *a, const uint16_t *lower_a, int64_t a_row, const void *b, const void *right_b,
                        int64_t b_row) {
    _tile_loadd(4, a, a_row);
    _tile_loadd(6, b, b_row);
    _tile_loadd(5, lower_a, a_row);
    _tile_loadd(7, right_b, b_row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// 32 × 32 of C (+)= A · B.
inline void tile_32(const uint16_t *a, int64_t a_row, const Pair *b, int64_t b_row, int64_t depth, float *c,
                    int64_t c_row, bool add) {
    begin_sums(c, c_row, add);
    for (int64_t at = 0; at < depth; at += 32) {
        const Pair *pairs = b + at / 2 * b_row;
        add_product(a + at, a + 16 * a_row + at, a_row * 2, pairs, pairs + 16, b_row * 4);
    }
    store_sums(c, c_row);
}
#else
struct Tiles {
    const bool on = false;
};
#endif

// 8 × 32 of C (+)= A · B.
inline void pairs_32(const uint16_t *a, int64_t a_row, const Pair *b, int64_t b_row, int64_t depth, float *c,
                     int64_t c_row, bool add) {
    Floats sums[8][2];
    for (int row = 0; row < 8; ++row)
        for (int part = 0; part < 2; ++part) sums[row][part] = add ? load(c + row * c_row + part * LANES) : same(0);
    for (int64_t at = 0; at < depth / 2; ++at) {
        const Words left = words(b + at * b_row), right = words(b + at * b_row + LANES);
        for (int row = 0; row < 8; ++row) {
            const __m512bh factor = (__m512bh)_mm512_set1_epi32(int(pairs_of(a + row * a_row)[at]));
            sums[row][0] = (Floats)_mm512_dpbf16_ps((__m512)sums[row][0], factor, (__m512bh)left);
            sums[row][1] = (Floats)_mm512_dpbf16_ps((__m512)sums[row][1], factor, (__m512bh)right);
        }
    }
    for (int row = 0; row < 8; ++row)
        for (int part = 0; part < 2; ++part) store(c + row * c_row + part * LANES, sums[row][part]);
}

// C (+)= A · B: A row by row, B in pairs, C float32; height, width and depth are multiples of 32.
inline void product([[maybe_unused]] const Tiles &tiles, const uint16_t *a, int64_t a_row, const Pair *b, int64_t b_row,
                    int64_t height, int64_t width, int64_t depth, float *c, int64_t c_row, bool add) {
    for (int64_t row = 0; row < height; row += 32)
        for (int64_t at = 0; at < width; at += 32) {
#if defined(TILES)
            if (tiles.on) {
                tile_32(a + row * a_row, a_row, b + at, b_row, depth, c + row * c_row + at, c_row, add);
                continue;
            }
#endif
            for (int64_t part = row; part < row + 32; part += 8)
                pairs_32(a + part * a_row, a_row, b + at, b_row, depth, c + part * c_row + at, c_row, add);
        }
}

}  // namespace
#endif

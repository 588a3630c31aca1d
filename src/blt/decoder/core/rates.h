// What this machine allows at most: reading weights, and multiplying by weights that lie in the first-level cache.
#pragma once
#include <chrono>

#include "gemv.h"

namespace blt {

template <class Run>
inline double best_seconds(ThreadPool &pool, int tries, Run &&run) {
    double best = 1e300;
    for (int number = 0; number < tries; ++number) {
        const auto start = std::chrono::steady_clock::now();
        pool.run(pool.num_threads(), run);
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

// Bytes per second of reading a buffer again and again, each thread its own part.
inline double reading_rate(ThreadPool &pool, int64_t bytes) {
    const int64_t vectors = bytes / int64_t(sizeof(Words)) / pool.num_threads() / 4 * 4;
    if (vectors < 4) return 0;
    Buffer<uint32_t> data(vectors * pool.num_threads() * LANES);
    std::vector<uint32_t> found(size_t(pool.num_threads()) * 16);
    const int64_t rounds = std::max<int64_t>(1, (int64_t(64) << 20) / bytes);
    const double seconds = best_seconds(pool, 9, [&](const Team &team) {
        const uint32_t *from = data.data() + team.index * vectors * LANES;
        Words sums[4] = {};
        for (int64_t round = 0; round < rounds; ++round)
            for (int64_t at = 0; at < vectors; at += 4)
                for (int part = 0; part < 4; ++part) sums[part] ^= load_as<Words>(from + (at + part) * LANES);
        const Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
        uint32_t folded = 0;
        for (int lane = 0; lane < LANES; ++lane) folded ^= all[lane];
        found[size_t(team.index) * 16] = folded;
    });
    return double(rounds * vectors * pool.num_threads()) * double(sizeof(Words)) / seconds;
}

// Multiplications and additions per second of a kind of product, two for each weight and vector.
inline double product_rate(ThreadPool &pool, const Source &source) {
    const PackedMatrix matrix(source);
    constexpr int64_t NUM = 12, REPEATS = 2000;
    Buffer<float> vectors(NUM * source.inputs), out(NUM * pool.num_threads() * matrix.outputs);
    for (int64_t at = 0; at < vectors.size(); ++at) vectors[at] = 1.0f + float(at % 7);
    InputMemory memory, unused;
    memory.need(NUM, source.inputs);
    const Team alone{0, 1, nullptr, nullptr};
    const Inputs in = prepare(alone, matrix, vectors.data(), source.inputs, NUM, nullptr, unused, memory);
    const double seconds = best_seconds(pool, 9, [&](const Team &team) {
        for (int64_t repeat = 0; repeat < REPEATS; ++repeat)
            multiply(alone, matrix, in, NUM, out.data() + team.index * NUM * matrix.outputs, matrix.outputs);
    });
    return 2.0 * double(NUM * REPEATS * pool.num_threads() * source.inputs * source.outputs) / seconds;
}

}  // namespace blt

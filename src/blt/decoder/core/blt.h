// The Byte Latent Transformer: bytes and where their patches end → logits of the next byte.
#pragma once
#include <algorithm>
#include <chrono>

#include "embedding.h"
#include "hash_ngrams.h"
#include "layer.h"

namespace blt {

// Projections and norms of a cross-attention; no RoPE.
struct CrossAttention {
    Norm query_norm, source_norm;
    PackedMatrix query, key_value, output;
};

struct BLT {
    Table bytes, ngrams;
    HashNgrams hashes;
    Stack encoder, global, decoder;
    CrossAttention pooling;
    PackedMatrix to_queries, to_global, from_global;
    bool has_to_global = false;
    std::vector<CrossAttention> reading;  // of the decoder: before every layer, or before the first only
    int64_t queries_per_patch = 1;
    float residual_scale = 1;  // how often a state is added to what it reads
    Norm norm;
    PackedMatrix output;

    int64_t dim() const { return encoder.dim; }
    int64_t joined() const { return queries_per_patch * dim(); }
    // Of what a patch is read by: for each cross-attention and vector, key and value side by side.
    int64_t readable_size() const { return int64_t(reading.size()) * queries_per_patch * 2 * dim(); }
    const float *readable(const float *page, int64_t cross) const {
        return page + cross * queries_per_patch * 2 * dim();
    }
};

// States of the bytes of a row's unfinished patch: position p lies in slot p mod the number of slots.
struct OpenPatch {
    Buffer<float> states;
    int64_t slots = 0;

    float *at(int64_t position, int64_t dim) { return states.data() + position % slots * dim; }

    // Room for `span` positions; those from `first` on, up to the one before `next`, are held already and stay.
    void need(int64_t span, int64_t first, int64_t next, int64_t dim) {
        if (span <= slots) return;
        int64_t grown = slots ? slots : 64;
        while (grown < span || grown < next - first) grown *= 2;
        Buffer<float> larger(grown * dim);
        for (int64_t position = first; position < next; ++position)
            std::memcpy(larger.data() + position % grown * dim, at(position, dim), size_t(dim) * sizeof(float));
        states = std::move(larger);
        slots = grown;
    }
};

struct ByteToRead {
    int64_t id, position;
    OpenPatch *open;
    bool is_kept;        // whether its state enters the open patch
    const float *patch;  // the page of the patch that it reads; null if there is none
    int64_t ngrams;      // where its n-gram rows begin
};

struct PatchToRun {
    OpenPatch *open;
    int64_t first, last;  // positions of its bytes
    int64_t row_start;    // position of the row's first byte in this pass, and its number in the pass
    int64_t first_number;
    int64_t bytes;  // where its bytes begin among those of all patches
    float *page;    // where it becomes readable
};

// Where the time of passes goes, added up by the first thread.
class PartTimes {
    using Clock = std::chrono::steady_clock;
    Clock::time_point since;

  public:
    enum Part {
        ENTROPY_MODEL,
        ENCODER,
        PATCHES,
        DECODER,
        NUM_PARTS
    };
    double seconds[NUM_PARTS] = {};

    void begin(const Team &team) {
        if (team.index == 0) since = Clock::now();
    }
    void end(const Team &team, Part part) {
        if (team.index != 0) return;
        const Clock::time_point now = Clock::now();
        seconds[part] += std::chrono::duration<double>(now - since).count();
        since = now;
    }
};

// What one pass reads and computes.
struct BLTPass {
    std::vector<ByteToRead> bytes;
    std::vector<int64_t> ngram_rows, predicted;  // numbers of the bytes whose logits are wanted
    std::vector<PatchToRun> patches;
    std::vector<Place> encoder, decoder, global;
    int64_t num_patch_bytes = 0;
    Buffer<float> states, patch_bytes, pooled, queries, key_values, gathered, asking, latents, vectors,
        patch_key_values, final_states;

    static int64_t most_seen(const Stack &stack, const std::vector<Place> &places) {
        int64_t seen = 0;
        for (const Place &place : places) seen = std::max(seen, place.position - stack.first_seen(place.position) + 1);
        return seen;
    }
    void need(const BLT &model, Workspace &work) {
        const int64_t num = int64_t(bytes.size()), dim = model.dim(), joined = model.joined(),
                      count = int64_t(patches.size());
        work.need(model.encoder, num, most_seen(model.encoder, encoder));
        work.need(model.decoder, num, most_seen(model.decoder, decoder));
        work.need(model.global, count, most_seen(model.global, global));
        work.need_inputs(num_patch_bytes, dim);
        work.need_inputs(count * model.queries_per_patch, std::max(joined, dim));
        int64_t longest = model.queries_per_patch;
        for (const PatchToRun &patch : patches) longest = std::max(longest, patch.last - patch.first + 1);
        for (ThreadMemory &thread : work.threads) thread.scores.need(longest + 2 * LANES);
        states.need(num * dim);
        gathered.need(std::max(num * dim, count * joined));
        queries.need(std::max(num * dim, count * joined));
        patch_bytes.need(num_patch_bytes * dim);
        key_values.need(num_patch_bytes * 2 * dim);
        pooled.need(count * dim);
        asking.need(count * joined);
        latents.need(count * model.global.dim);
        vectors.need(count * joined);
        patch_key_values.need(count * model.readable_size());
        final_states.need(int64_t(predicted.size()) * dim);
    }
};

inline void embed(const Team &team, const BLT &model, BLTPass &pass) {
    int64_t first, last;
    team.share(int64_t(pass.bytes.size()), first, last);
    const int64_t dim = model.dim(), tables = model.hashes.num_tables();
    float *summed = pass.gathered.data();
    for (int64_t at = first; at < last; ++at) {
        const ByteToRead &byte = pass.bytes[size_t(at)];
        float *state = pass.states.data() + at * dim;
        model.bytes.put(byte.id, state);
        if (!tables) continue;
        float *ngrams = summed + at * dim;
        model.ngrams.put(pass.ngram_rows[size_t(byte.ngrams)], ngrams);
        for (int64_t table = 1; table < tables; ++table)
            model.ngrams.add(pass.ngram_rows[size_t(byte.ngrams + table)], ngrams);
        for (int64_t lane = 0; lane < dim; ++lane) state[lane] += ngrams[lane];
    }
}

// The largest of each dimension over a patch's bytes; the bytes themselves are laid side by side.
inline void pool(const Team &team, const BLT &model, BLTPass &pass) {
    int64_t begin, end;
    team.share(int64_t(pass.patches.size()), begin, end);
    const int64_t dim = model.dim();
    for (int64_t number = begin; number < end; ++number) {
        const PatchToRun &patch = pass.patches[size_t(number)];
        float *most = pass.pooled.data() + number * dim;
        for (int64_t position = patch.first; position <= patch.last; ++position) {
            const float *from = position >= patch.row_start
                                    ? pass.states.data() + (patch.first_number + position - patch.row_start) * dim
                                    : patch.open->at(position, dim);
            float *to = pass.patch_bytes.data() + (patch.bytes + position - patch.first) * dim;
            std::memcpy(to, from, size_t(dim) * sizeof(float));
            for (int64_t lane = 0; lane < dim; ++lane)
                if (position == patch.first || from[lane] > most[lane] || from[lane] != from[lane])
                    most[lane] = from[lane];
        }
    }
}

inline void keep_open_bytes(const Team &team, const BLT &model, BLTPass &pass) {
    int64_t first, last;
    team.share(int64_t(pass.bytes.size()), first, last);
    for (int64_t at = first; at < last; ++at) {
        const ByteToRead &byte = pass.bytes[size_t(at)];
        if (byte.is_kept)
            std::memcpy(byte.open->at(byte.position, model.dim()), pass.states.data() + at * model.dim(),
                        size_t(model.dim()) * sizeof(float));
    }
}

// Each patch's k queries meet the patch's own bytes; pass.latents then hold the states that enter the global
// transformer.
inline void make_patches(const Team &team, const BLT &model, BLTPass &pass, Workspace &work) {
    const int64_t count = int64_t(pass.patches.size()), k = model.queries_per_patch, dim = model.dim(),
                  heads = model.encoder.heads;
    const int64_t width = dim / heads;
    ThreadMemory &own = work.threads[size_t(team.index)];
    float *asking = pass.asking.data();
    Inputs in = prepare(team, model.to_queries, pass.pooled.data(), dim, count, nullptr, own.inputs, work.inputs);
    multiply(team, model.to_queries, in, count, asking, k * dim);
    team.wait();
    in = prepare(team, model.pooling.query, asking, dim, count * k, &model.pooling.query_norm, own.inputs, work.inputs);
    multiply(team, model.pooling.query, in, count * k, pass.queries.data(), dim);
    team.wait();
    in = prepare(team, model.pooling.key_value, pass.patch_bytes.data(), dim, pass.num_patch_bytes,
                 &model.pooling.source_norm, own.inputs, work.inputs);
    multiply(team, model.pooling.key_value, in, pass.num_patch_bytes, pass.key_values.data(), 2 * dim);
    team.wait();
    int64_t first, last;
    team.share(count * k * heads, first, last);
    for (int64_t item = first; item < last; ++item) {
        const int64_t vector = item / heads, head = item % heads;
        const PatchToRun &patch = pass.patches[size_t(vector / k)];
        const float *keys = pass.key_values.data() + patch.bytes * 2 * dim + head * width;
        attend_few(pass.queries.data() + vector * dim + head * width, keys, keys + dim, patch.last - patch.first + 1,
                   2 * dim, width, own.scores.data(), pass.gathered.data() + vector * dim + head * width);
        for (int64_t lane = head * width; lane < (head + 1) * width; ++lane)
            asking[vector * dim + lane] *= model.residual_scale;
    }
    team.wait();
    in = prepare(team, model.pooling.output, pass.gathered.data(), dim, count * k, nullptr, own.inputs, work.inputs);
    multiply(team, model.pooling.output, in, count * k, asking, dim, true);
    team.wait();
    if (model.has_to_global) {
        in = prepare(team, model.to_global, asking, k * dim, count, nullptr, own.inputs, work.inputs);
        multiply(team, model.to_global, in, count, pass.latents.data(), model.global.dim);
    } else {
        team.share(count * k * dim, first, last);
        std::memcpy(pass.latents.data() + first, asking + first, size_t(last - first) * sizeof(float));
    }
    team.wait();
}

// Latents become keys and values in each patch's page, for every cross-attention of the decoder.
inline void make_readable(const Team &team, const BLT &model, BLTPass &pass, Workspace &work) {
    const int64_t count = int64_t(pass.patches.size()), k = model.queries_per_patch, dim = model.dim(),
                  vectors = count * k;
    InputMemory &own = work.threads[size_t(team.index)].inputs;
    Inputs in =
        prepare(team, model.from_global, pass.latents.data(), model.global.dim, count, nullptr, own, work.inputs);
    multiply(team, model.from_global, in, count, pass.vectors.data(), k * dim);
    team.wait();
    for (size_t cross = 0; cross < model.reading.size(); ++cross) {
        const CrossAttention &reading = model.reading[cross];
        in =
            prepare(team, reading.key_value, pass.vectors.data(), dim, vectors, &reading.source_norm, own, work.inputs);
        multiply(team, reading.key_value, in, vectors,
                 pass.patch_key_values.data() + int64_t(cross) * vectors * 2 * dim, 2 * dim);
        team.wait();
    }
    int64_t first, last;
    team.share(count, first, last);
    const int64_t size = k * 2 * dim;
    for (int64_t number = first; number < last; ++number)
        for (size_t cross = 0; cross < model.reading.size(); ++cross)
            std::memcpy(pass.patches[size_t(number)].page + int64_t(cross) * size,
                        pass.patch_key_values.data() + (int64_t(cross) * count + number) * size,
                        size_t(size) * sizeof(float));
    team.wait();
}

// Each byte reads the k vectors of its patch, if there is one, by one of the decoder's cross-attentions.
inline void read_patches(const Team &team, const BLT &model, int64_t index, BLTPass &pass, Workspace &work) {
    const CrossAttention &reading = model.reading[size_t(index)];
    const int64_t num = int64_t(pass.bytes.size()), dim = model.dim(), heads = model.decoder.heads, width = dim / heads;
    ThreadMemory &own = work.threads[size_t(team.index)];
    float *states = pass.states.data(), *gathered = pass.gathered.data();
    Inputs in = prepare(team, reading.query, states, dim, num, &reading.query_norm, own.inputs, work.inputs);
    multiply(team, reading.query, in, num, pass.queries.data(), dim);
    team.wait();
    int64_t first, last;
    team.share(num * heads, first, last);
    for (int64_t item = first; item < last; ++item) {
        const int64_t at = item / heads, offset = at * dim + item % heads * width;
        if (const float *page = pass.bytes[size_t(at)].patch) {
            const float *keys = model.readable(page, index) + item % heads * width;
            attend_few(pass.queries.data() + offset, keys, keys + dim, model.queries_per_patch, 2 * dim, width,
                       own.scores.data(), gathered + offset);
        } else {
            std::memset(gathered + offset, 0, size_t(width) * sizeof(float));
        }
        if (model.residual_scale != 1)
            for (int64_t lane = 0; lane < width; ++lane) states[offset + lane] *= model.residual_scale;
    }
    team.wait();
    in = prepare(team, reading.output, gathered, dim, num, nullptr, own.inputs, work.inputs);
    multiply(team, reading.output, in, num, states, dim, true);
    team.wait();
}

// logits: one row per byte of pass.predicted.
inline void run_blt(const Team &team, const BLT &model, BLTPass &pass, Workspace &work, float *logits,
                    PartTimes &times) {
    times.begin(team);
    embed(team, model, pass);
    team.wait();
    run_stack(team, model.encoder, pass.encoder, pass.states.data(), work);
    times.end(team, PartTimes::ENCODER);
    if (!pass.patches.empty()) {
        pool(team, model, pass);
        team.wait();
        make_patches(team, model, pass, work);
        run_stack(team, model.global, pass.global, pass.latents.data(), work);
        make_readable(team, model, pass, work);
    }
    keep_open_bytes(team, model, pass);
    team.wait();
    times.end(team, PartTimes::PATCHES);
    turn(team, model.decoder, pass.decoder, work.turns.data());
    for (size_t index = 0; index < model.decoder.layers.size(); ++index) {
        if (index < model.reading.size()) read_patches(team, model, int64_t(index), pass, work);
        run_layer(team, model.decoder, int64_t(index), pass.decoder, pass.states.data(), work);
    }
    const int64_t num = int64_t(pass.predicted.size()), dim = model.dim();
    int64_t first, last;
    team.share(num, first, last);
    for (int64_t at = first; at < last; ++at)
        std::memcpy(pass.final_states.data() + at * dim, pass.states.data() + pass.predicted[size_t(at)] * dim,
                    size_t(dim) * sizeof(float));
    team.wait();
    const Inputs in = prepare(team, model.output, pass.final_states.data(), dim, num, &model.norm,
                              work.threads[size_t(team.index)].inputs, work.inputs);
    multiply(team, model.output, in, num, logits, model.output.outputs);
    times.end(team, PartTimes::DECODER);
}

}  // namespace blt

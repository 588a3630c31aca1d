// The entropy model: bytes → logits of the next byte, and how uncertain they are.
#pragma once
#include "embedding.h"
#include "layer.h"

namespace blt {

struct EntropyModel {
    Table bytes;
    Stack stack;
    Norm norm;
    PackedMatrix output;
};

// What one pass reads: a byte per place.
struct EntropyPass {
    std::vector<int64_t> ids;
    std::vector<Place> places;
    Buffer<float> states, logits, entropies;

    void need(const EntropyModel &model, Workspace &work) {
        const int64_t num = int64_t(ids.size());
        int64_t seen = 0;
        for (const Place &place : places)
            seen = std::max(seen, place.position - model.stack.first_seen(place.position) + 1);
        work.need(model.stack, num, seen);
        states.need(num * model.stack.dim);
        logits.need(num * model.output.outputs);
        entropies.need(num);
    }
};

inline void run_entropy_model(const Team &team, const EntropyModel &model, EntropyPass &pass, Workspace &work) {
    const int64_t num = int64_t(pass.ids.size()), dim = model.stack.dim, vocabulary = model.output.outputs;
    int64_t first, last;
    team.share(num, first, last);
    for (int64_t at = first; at < last; ++at) model.bytes.put(pass.ids[size_t(at)], pass.states.data() + at * dim);
    team.wait();
    run_stack(team, model.stack, pass.places, pass.states.data(), work);
    const Inputs in = prepare(team, model.output, pass.states.data(), dim, num, &model.norm,
                              work.threads[size_t(team.index)].inputs, work.inputs);
    multiply(team, model.output, in, num, pass.logits.data(), vocabulary);
    team.wait();
    for (int64_t at = first; at < last; ++at)
        pass.entropies[at] = entropy(pass.logits.data() + at * vocabulary, vocabulary);
}

}  // namespace blt

// Transformer layers, for some positions of some rows: pre-RMSNorm, RoPE self-attention, SwiGLU.
#pragma once
#include <vector>

#include "attention.h"
#include "gemv.h"
#include "rope.h"

namespace blt {

struct Layer {
    Norm attention_norm, feed_forward_norm;
    PackedMatrix query_key_value, output;
    PackedMatrix gate_up;  // half a panel of gates, then the same half panel of ups, and so on
    PackedMatrix down;

    // Gates and ups in turn, so that whoever has computed a panel can finish its part of the hidden state alone.
    static PackedMatrix interleave(const Source &gate, const Source &up) {
        constexpr int64_t HALF = PANEL / 2;
        std::vector<Origin> rows;
        for (int64_t first = 0; first < gate.outputs; first += HALF)
            for (const Source *source : {&gate, &up})
                for (int64_t row = first; row < first + HALF; ++row)
                    rows.push_back({source, row < gate.outputs ? row : -1});
        return PackedMatrix(rows, gate.inputs);
    }
};

struct Stack {
    std::vector<Layer> layers;
    int64_t dim = 0, heads = 1, hidden = 0;
    int64_t window = 0;  // how many positions one sees, itself included; 0: all
    CacheType cache_type = CacheType::FLOAT32;
    std::vector<float> frequencies;

    HeadLayout layout() const { return {heads, dim / heads, cache_type}; }
    int64_t page_size() const { return layout().floats_per_page(int64_t(layers.size())); }
    int64_t first_seen(int64_t position) const { return window && position >= window ? position - window + 1 : 0; }
    int64_t weights() const { return int64_t(layers.size()) * (4 * dim * dim + 3 * dim * hidden); }
};

struct Place {  // a position of a row, in the pages that hold what the row has seen
    const PageTable *table;
    int64_t position;
};

// What one thread needs for itself.
struct ThreadMemory {
    InputMemory inputs;
    Buffer<float> scores, query;
};

// Memory that the layers work in.
struct Workspace {
    InputMemory inputs;
    std::vector<ThreadMemory> threads;
    Buffer<float> turns, projected, mixed, gates, hidden;

    // Room for `num` positions of a stack, of which none sees more than `seen`.
    void need(const Stack &stack, int64_t num, int64_t seen) {
        const int64_t widest = stack.hidden > stack.dim ? stack.hidden : stack.dim;
        need_inputs(num, widest);
        for (ThreadMemory &thread : threads) {
            thread.scores.need(round_up(seen, PAGE) + 2 * PAGE);
            thread.query.need(stack.dim / stack.heads);
        }
        turns.need(num * stack.dim / stack.heads);
        projected.need(num * 3 * stack.dim);
        mixed.need(num * stack.dim);
        gates.need(num * 2 * round_up(stack.hidden, PANEL));
        hidden.need(num * stack.hidden);
    }
    void need_inputs(int64_t num, int64_t width) {
        inputs.need(num, width);
        for (ThreadMemory &thread : threads) thread.inputs.need(1, FEW + width + BLOCK * num);
    }
};

// Angles of each position; others may use them after the next barrier.
inline void turn(const Team &team, const Stack &stack, const std::vector<Place> &places, float *turns) {
    int64_t first, last;
    team.share(int64_t(places.size()), first, last);
    const int64_t width = stack.dim / stack.heads;
    for (int64_t at = first; at < last; ++at)
        angles(places[size_t(at)].position, stack.frequencies.data(), width / 2, turns + at * width);
}

template <class Number>
inline void remember(const Stack &stack, int64_t layer, const Place &place, int64_t head, const float *projected,
                     const float *turn, float *rotated) {
    const HeadLayout layout = stack.layout();
    float *page = place.table->page(place.position / PAGE);
    const int64_t slot = place.position % PAGE, width = layout.width, from = head * width;
    rotate(projected + stack.dim + from, turn, width / 2, 1.0f, rotated);
    write_key(rotated, width, slot, part_of_page<Number>(page, layout.keys(layer, head)));
    write_value(projected + 2 * stack.dim + from, width, slot, part_of_page<Number>(page, layout.values(layer, head)));
}

template <class Number>
inline void attend_head(const Stack &stack, int64_t layer, const Place &place, int64_t head, const float *projected,
                        const float *turn, ThreadMemory &own, float *mixed) {
    const int64_t width = stack.dim / stack.heads;
    rotate(projected + head * width, turn, width / 2, 1.0f / std::sqrt(float(width)), own.query.data());
    const Seen seen{place.table, stack.first_seen(place.position), place.position, stack.layout(), layer, head};
    attend<Number>(seen, own.query.data(), own.scores.data(), mixed + head * width);
}

// Keys and values of all places enter the pages, and each place's query meets what it may see.
template <class Number>
inline void self_attention(const Team &team, const Stack &stack, int64_t layer, const std::vector<Place> &places,
                           Workspace &work) {
    ThreadMemory &own = work.threads[size_t(team.index)];
    const int64_t num = int64_t(places.size()), heads = stack.heads, width = stack.dim / heads;
    const bool by_heads = heads % team.size == 0;  // then a thread needs no other one's keys
    int64_t first, last;
    team.share(by_heads ? heads : num * heads, first, last);
    const auto each = [&](auto &&run) {
        if (by_heads) {
            for (int64_t at = 0; at < num; ++at)
                for (int64_t head = first; head < last; ++head) run(at, head);
        } else {
            for (int64_t item = first; item < last; ++item) run(item / heads, item % heads);
        }
    };
    each([&](int64_t at, int64_t head) {
        remember<Number>(stack, layer, places[size_t(at)], head, work.projected.data() + at * 3 * stack.dim,
                         work.turns.data() + at * width, own.query.data());
    });
    if (!by_heads) team.wait();
    each([&](int64_t at, int64_t head) {
        attend_head<Number>(stack, layer, places[size_t(at)], head, work.projected.data() + at * 3 * stack.dim,
                            work.turns.data() + at * width, own, work.mixed.data() + at * stack.dim);
    });
}

// hidden = silu(gate) · up, in the panels that this thread has computed.
inline void swiglu(const Team &team, const Stack &stack, const PackedMatrix &gate_up, int64_t num, const float *gates,
                   float *hidden) {
    constexpr int64_t HALF = PANEL / 2;
    int64_t first, last;
    team.share(gate_up.panels, first, last);
    for (int64_t at = 0; at < num; ++at)
        for (int64_t panel = first; panel < last; ++panel)
            for (int64_t lane = 0; lane < HALF; lane += LANES) {
                const float *from = gates + at * gate_up.outputs + panel * PANEL + lane;
                const Floats gate = load(from), found = gate / (1.0f + exponential(-gate)) * load(from + HALF);
                const int64_t to = panel * HALF + lane, count = stack.hidden - to;
                if (count > 0)
                    std::memcpy(hidden + at * stack.hidden + to, &found,
                                size_t(count < LANES ? count : LANES) * sizeof(float));
            }
}

// states (num × dim) go through one layer, in place. All threads have them when it returns.
inline void run_layer(const Team &team, const Stack &stack, int64_t index, const std::vector<Place> &places,
                      float *states, Workspace &work) {
    const Layer &layer = stack.layers[size_t(index)];
    InputMemory &own = work.threads[size_t(team.index)].inputs;
    const int64_t num = int64_t(places.size()), dim = stack.dim;
    Inputs in = prepare(team, layer.query_key_value, states, dim, num, &layer.attention_norm, own, work.inputs);
    multiply(team, layer.query_key_value, in, num, work.projected.data(), 3 * dim);
    team.wait();
    if (stack.cache_type == CacheType::INT8)
        self_attention<int8_t>(team, stack, index, places, work);
    else
        self_attention<float>(team, stack, index, places, work);
    team.wait();
    in = prepare(team, layer.output, work.mixed.data(), dim, num, nullptr, own, work.inputs);
    multiply(team, layer.output, in, num, states, dim, true);
    team.wait();
    in = prepare(team, layer.gate_up, states, dim, num, &layer.feed_forward_norm, own, work.inputs);
    multiply(team, layer.gate_up, in, num, work.gates.data(), layer.gate_up.outputs);
    swiglu(team, stack, layer.gate_up, num, work.gates.data(), work.hidden.data());
    team.wait();
    in = prepare(team, layer.down, work.hidden.data(), stack.hidden, num, nullptr, own, work.inputs);
    multiply(team, layer.down, in, num, states, dim, true);
    team.wait();
}

inline void run_stack(const Team &team, const Stack &stack, const std::vector<Place> &places, float *states,
                      Workspace &work) {
    turn(team, stack, places, work.turns.data());
    for (size_t index = 0; index < stack.layers.size(); ++index)
        run_layer(team, stack, int64_t(index), places, states, work);
}

}  // namespace blt

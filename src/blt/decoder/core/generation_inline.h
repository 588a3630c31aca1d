// How a decoder continues rows: it chooses bytes, reads them, and checks those that were drafted.
#pragma once
#include "decoder_inline.h"

namespace blt {

inline void Decoder::choose(GenerationRow &one) {
    int64_t id = sampler_.choose(one.sampling, one.logits, model_.vocabulary());
    if (one.forced && id != Sampler::BROKEN) id = BYTE_OFFSET + one.forced[one.count];
    one.chosen = id;
    if (id == Sampler::BROKEN || id == EOS_ID) {
        one.chosen = -1;
        one.stopped = id == EOS_ID ? GenerationRow::EOS : GenerationRow::BROKEN;
        return;
    }
    one.bytes[one.count++] = uint8_t(id - BYTE_OFFSET);
    one.sampling.accept(id);
    if (one.sampling.room == 0) one.stopped = GenerationRow::LENGTH;
}

// The likeliest byte after the newest that the entropy model has read, or −1 where it is not likely enough.
inline int64_t likely_byte(const float *logits, int64_t vocabulary, float min_probability) {
    const int64_t likeliest = std::max_element(logits, logits + vocabulary) - logits;
    if (likeliest < BYTE_OFFSET) return -1;
    return likeliest_probability(logits, vocabulary) >= min_probability ? likeliest : -1;
}

// The patcher reads the chosen bytes, and goes on with the entropy model's own for as long as they are likely.
inline void Decoder::draft_ahead(std::vector<GenerationRow *> &rows, int64_t max_bytes, Drafting drafting) {
    const int64_t vocabulary = model_.vocabulary();
    const bool drafts = rule_.needs_entropies() && drafting.max_draft > 0;
    std::vector<int64_t> names, ids, ones(rows.size(), 1);
    for (const GenerationRow *one : rows) names.push_back(one->row), ids.push_back(one->chosen);
    begin_reading(names.data(), int64_t(names.size()));
    std::vector<GenerationRow *> going = rows;
    for (int64_t number = 0;; ++number) {
        draft_logits_.resize(going.size() * size_t(drafts ? vocabulary : 0));
        step_patchers({names.data(), ones.data(), ids.data(), int64_t(names.size())}, nullptr,
                      drafts ? draft_logits_.data() : nullptr, nullptr);
        if (!drafts) return;
        std::vector<GenerationRow *> next;
        names.clear(), ids.clear();
        for (size_t at = 0; at < going.size(); ++at) {
            GenerationRow &one = *going[at];
            const int64_t most = std::min(
                {one.num_ahead, drafting.max_draft, max_rollback_ - 1, max_bytes - one.count, one.sampling.room - 1});
            const int64_t id = number < most ? likely_byte(draft_logits_.data() + at * size_t(vocabulary), vocabulary,
                                                           drafting.min_probability)
                                             : -1;
            if (id < 0) continue;
            next.push_back(&one), names.push_back(one.row), ids.push_back(id);
        }
        if (next.empty()) return;
        going = std::move(next);
    }
}

// Chooses one byte after another while they are what was drafted; returns how many drafts were wrong.
inline int64_t Decoder::verify_drafts(GenerationRow &one, const float *logits) {
    const std::vector<int64_t> &read = row(one.row).pending;
    const int64_t vocabulary = model_.vocabulary(), num_drafts = int64_t(read.size()) - 1;
    int64_t right = 0;
    one.chosen = -1;
    for (; right < num_drafts && !one.stopped; ++right) {
        std::copy_n(logits + right * vocabulary, vocabulary, one.logits);
        choose(one);
        if (one.chosen != read[size_t(right + 1)]) break;
        one.chosen = -1;
    }
    if (num_drafts) one.num_ahead = right == num_drafts ? one.num_ahead + 2 : std::max<int64_t>(1, one.num_ahead - 1);
    if (right == num_drafts) std::copy_n(logits + right * vocabulary, vocabulary, one.logits);
    return num_drafts - right;
}

// Leaves out of a pass the rows whose newest byte ends a patch, as long as few do and others can go on: the weights of
// the global transformer, most of the model, are then read for many patches at once instead of for one or two. A row
// waits for at most MOST_WAITS passes.
inline std::vector<Decoder::GenerationRow *> Decoder::leave_out_patch_ends(std::vector<GenerationRow *> rows) {
    const auto ends_patch = [&](const GenerationRow *one) { return row(one->row).ends.back() != 0; };
    const auto is_patient = [&](const GenerationRow *one) { return row(one->row).waits < MOST_WAITS; };
    const auto middle = std::stable_partition(rows.begin(), rows.end(), [&](auto *one) { return !ends_patch(one); });
    const int64_t ended = rows.end() - middle, enough = (int64_t(rows.size()) + 1) / 2;
    const bool can_wait = middle != rows.begin() && ended < enough && std::all_of(middle, rows.end(), is_patient);
    if (can_wait) {
        for (auto at = middle; at != rows.end(); ++at) ++row((*at)->row).waits;
        rows.erase(middle, rows.end());
    }
    return rows;
}

inline int64_t Decoder::generate(std::vector<GenerationRow> &rows, int64_t max_bytes, Drafting drafting) {
    const int64_t vocabulary = model_.vocabulary();
    require(num_bytes_heard() == 0 && before_draft_.empty(),
            "forward what the patcher has read, and discard the draft, before rows generate");
    std::vector<int64_t> names;
    for (const GenerationRow &one : rows) names.push_back(one.row);
    check_rows(names.data(), int64_t(names.size()));
    int64_t num_passes = 0;
    while (true) {
        for (GenerationRow &one : rows)
            if (one.chosen < 0 && one.count < max_bytes && !one.stopped) choose(one);
        for (const GenerationRow &one : rows)
            if (one.stopped || one.count >= max_bytes) return num_passes;
        std::vector<GenerationRow *> reading, heard;
        for (GenerationRow &one : rows) {
            const Row &state = row(one.row);
            (state.waits && state.pending.back() == one.chosen ? heard : reading).push_back(&one);
        }
        if (!reading.empty()) draft_ahead(reading, max_bytes, drafting);
        reading.insert(reading.end(), heard.begin(), heard.end());
        if (drafting.max_draft == 0) reading = leave_out_patch_ends(std::move(reading));
        reading_.clear();
        for (const GenerationRow *one : reading) reading_.push_back(one->row), row(one->row).waits = 0;
        state_ = State::HEARD;
        written_logits_.resize(size_t(num_bytes_heard() * vocabulary));
        forward(Wanted::ALL, written_logits_.data());
        ++num_passes;
        const float *logits = written_logits_.data();
        std::vector<int64_t> taken_back;
        for (GenerationRow *one : reading) {
            taken_back.push_back(verify_drafts(*one, logits));
            logits += int64_t(row(one->row).pending.size()) * vocabulary;
        }
        if (std::any_of(taken_back.begin(), taken_back.end(), [](int64_t count) { return count > 0; }))
            rewind(taken_back.data(), int64_t(taken_back.size()));
    }
}

}  // namespace blt

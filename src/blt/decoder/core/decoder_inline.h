// How a decoder reads: the member functions of decoder.h.
#pragma once
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "decoder.h"

namespace blt {

constexpr int64_t WORTH_A_THREAD = 150000;  // weights times vectors
constexpr int64_t MOST_WAITS = 8;           // passes that a row whose patch has ended waits for others

// Weights with which nothing can be computed.
struct BrokenModel : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void require(bool holds, const std::string &otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

inline Decoder::Decoder(const Model &model, const PatchRule &rule, int64_t max_rollback, int num_threads)
    : model_(model),
      rule_(rule),
      max_rollback_(max_rollback),
      pool_(ThreadPool::shared(num_threads)),
      pages_(model.blt, model.has_entropy_model ? &model.entropy_model : nullptr) {
    work_.threads.resize(size_t(num_threads));
}

inline int Decoder::team_size(int64_t num) const {
    const int64_t work = num * (model_.blt.encoder.weights() + model_.blt.decoder.weights());
    const int64_t worth = 1 + work / WORTH_A_THREAD;
    return int(std::min<int64_t>(pool_.num_threads(), worth));
}

inline void Decoder::start(int64_t count, int64_t *numbers) {
    require(count >= 0, "rows: a negative number of them");
    const int64_t history = model_.blt.hashes.longest() + max_rollback_;
    int64_t number = 0;
    for (int64_t at = 0; at < count; ++at, ++number) {
        while (number < int64_t(rows_.size()) && rows_[size_t(number)]->is_active) ++number;
        if (number == int64_t(rows_.size())) rows_.push_back(std::make_unique<Row>());
        Row &fresh = row(number);
        pages_.restart(fresh);
        fresh.ids.assign(size_t(history), BOE_ID);
        fresh.is_active = true;
        numbers[at] = number;
    }
}

inline void Decoder::leave(const int64_t *numbers, int64_t count) {
    for (int64_t at = 0; at < count; ++at)
        require(numbers[at] >= 0 && numbers[at] < int64_t(rows_.size()) && row(numbers[at]).is_active,
                "row " + std::to_string(numbers[at]) + ": there is no such row");
    for (int64_t at = 0; at < count; ++at) {
        pages_.restart(row(numbers[at]));
        row(numbers[at]).is_active = false;
        const auto found = std::find(reading_.begin(), reading_.end(), numbers[at]);
        if (found != reading_.end()) reading_.erase(found), can_rewind_ = false;
        const auto is_it = [&](const auto &pair) { return pair.first == numbers[at]; };
        before_draft_.erase(std::remove_if(before_draft_.begin(), before_draft_.end(), is_it), before_draft_.end());
    }
    if (reading_.empty()) state_ = State::NOTHING;
}

inline void Decoder::check_rows(const int64_t *rows, int64_t num_rows) const {
    require(num_rows >= 1, "rows: at least one must read");
    std::vector<char> seen(rows_.size(), 0);
    for (int64_t number = 0; number < num_rows; ++number) {
        const int64_t name = rows[number];
        require(name >= 0 && name < int64_t(rows_.size()) && rows_[size_t(name)]->is_active,
                "row " + std::to_string(name) + ": there is no such row");
        require(!seen[size_t(name)], "row " + std::to_string(name) + ": it is named twice");
        seen[size_t(name)] = 1;
    }
}

inline void Decoder::check(const Reading &reading) const {
    check_rows(reading.rows, reading.num_rows);
    int64_t at = 0;
    for (int64_t number = 0; number < reading.num_rows; ++number) {
        const int64_t name = reading.rows[number], count = reading.counts[number];
        require(count >= 1,
                "row " + std::to_string(name) + ": it must read at least 1 byte, got " + std::to_string(count));
        for (int64_t byte = 0; byte < count; ++byte, ++at) {
            const int64_t id = reading.ids[at];
            require(id >= 0 && id < model_.vocabulary(),
                    "id " + std::to_string(id) + ": not from 0 to " + std::to_string(model_.vocabulary() - 1));
            require(id != BOS_ID || byte == 0,
                    "row " + std::to_string(name) + ": a BOS may only be the first byte that it reads at once");
        }
    }
}

inline void Decoder::hear(const Reading &reading, float *logits) {
    const EntropyModel &entropy_model = model_.entropy_model;
    EntropyPass &pass = entropy_pass_;
    pass.ids.clear();
    pass.places.clear();
    int64_t at = 0;
    for (int64_t number = 0; number < reading.num_rows; ++number) {
        Row &one = row(reading.rows[number]);
        if (reading.ids[at] == BOS_ID) {
            one.entropy.clear(pages_.entropy);
            one.heard = -1;
        }
        one.entropy.reach((one.heard + reading.counts[number]) / PAGE, pages_.entropy);
        for (int64_t byte = 1; byte <= reading.counts[number]; ++byte, ++at) {
            pass.ids.push_back(reading.ids[at]);
            pass.places.push_back({&one.entropy, one.heard + byte});
        }
    }
    pass.need(entropy_model, work_);
    pool_.run(team_size(at), [&](const Team &team) {
        times_.begin(team);
        run_entropy_model(team, entropy_model, pass, work_);
        times_.end(team, PartTimes::ENTROPY_MODEL);
    });
    for (int64_t number = 0; number < reading.num_rows; ++number) {
        Row &one = row(reading.rows[number]);
        one.heard += reading.counts[number];
        const int64_t reach = one.heard - max_rollback_ - entropy_model.stack.window + 1;
        if (entropy_model.stack.window && reach > 0) one.entropy.drop_before(reach / PAGE, pages_.entropy);
    }
    if (logits) std::memcpy(logits, pass.logits.data(), size_t(at * entropy_model.output.outputs) * sizeof(float));
}

inline void Decoder::advance_patcher(const Reading &reading, const uint8_t *given, float *entropy_logits,
                                     uint8_t *ends) {
    check(reading);
    require(before_draft_.empty(), "discard the draft before rows read on");
    if (state_ == State::HEARD) {
        require(
            int64_t(reading_.size()) == reading.num_rows && std::equal(reading_.begin(), reading_.end(), reading.rows),
            "rows: the patcher has read bytes of other ones; forward them first");
        int64_t at = 0;
        for (int64_t number = 0; number < reading.num_rows; at += reading.counts[number++]) {
            require(reading.ids[at] != BOS_ID, "a BOS may only be the first byte that a row reads at once");
            require(int64_t(row(reading.rows[number]).pending.size()) + reading.counts[number] <= max_rollback_,
                    "the patcher reads at most " + std::to_string(max_rollback_) + " bytes ahead of the BLT");
        }
    } else {
        begin_reading(reading.rows, reading.num_rows);
    }
    step_patchers(reading, given, entropy_logits, ends);
}

inline void Decoder::begin_reading(const int64_t *rows, int64_t num_rows) {
    reading_.assign(rows, rows + num_rows);
    for (int64_t name : reading_) {
        Row &one = row(name);
        if (one.waits) {  // what it has waited to read is read anew
            one.heard -= int64_t(one.pending.size());
            one.patcher = one.patchers[0];
            one.waits = 0;
        }
        one.pending.clear();
        one.ends.clear();
        one.patchers.assign(1, one.patcher);
    }
    state_ = State::HEARD;
}

inline void Decoder::step_patchers(const Reading &reading, const uint8_t *given, float *entropy_logits, uint8_t *ends) {
    const bool uses_entropies = rule_.needs_entropies() && !given;
    if (uses_entropies) {
        hear(reading, entropy_logits);
        const float *found = entropy_pass_.entropies.data();
        if (!std::all_of(found, found + reading.num_bytes(), [](float entropy) { return std::isfinite(entropy); })) {
            state_ = State::NOTHING;  // the rows that were to read are lost, all others can go on
            throw BrokenModel("entropies of the model are not finite: its weights are broken, or need float32");
        }
    }
    int64_t at = 0;
    for (int64_t number = 0; number < reading.num_rows; ++number) {
        Row &one = row(reading.rows[number]);
        if (!uses_entropies)
            one.heard = reading.ids[at] == BOS_ID ? reading.counts[number] - 1 : one.heard + reading.counts[number];
        for (int64_t byte = 0; byte < reading.counts[number]; ++byte, ++at) {
            const bool does_end =
                one.patcher.step(rule_, reading.ids[at], uses_entropies ? entropy_pass_.entropies[at] : 0.0f);
            one.pending.push_back(reading.ids[at]);
            one.ends.push_back(given ? char(given[at] != 0) : char(does_end));
            one.patchers.push_back(one.patcher);
            if (ends) ends[at] = uint8_t(one.ends.back());
        }
    }
}

inline void Decoder::lay_out_ngrams(Row &one, const std::vector<int64_t> &ids, int64_t start) {
    const HashNgrams &hashes = model_.blt.hashes;
    const int64_t longest = hashes.longest(), tables = hashes.num_tables(), size = int64_t(one.ids.size());
    int64_t preceding[64];
    for (int64_t byte = 0; byte < int64_t(ids.size()); ++byte) {
        const int64_t position = start + byte;
        for (int64_t back = 0; back < longest; ++back) {
            const int64_t there = position - back;
            preceding[back] = there < 0        ? BOE_ID
                              : there >= start ? ids[size_t(there - start)]
                                               : one.ids[size_t(there % size)];
        }
        const size_t begin = pass_.ngram_rows.size();
        pass_.ngram_rows.resize(begin + size_t(tables));
        hashes.rows(preceding, pass_.ngram_rows.data() + begin);
    }
    for (int64_t byte = 0; byte < int64_t(ids.size()); ++byte)
        one.ids[size_t((start + byte) % size)] = ids[size_t(byte)];
}

inline void Decoder::lay_out(Row &one, const std::vector<int64_t> &ids, const std::vector<char> &ends) {
    const BLT &blt = model_.blt;
    const int64_t count = int64_t(ids.size()), start = one.progress.newest_byte + 1, last = start + count - 1;
    const int64_t first_number = int64_t(pass_.bytes.size());
    RowPosition after = one.progress;
    one.encoder.reach(last / PAGE, pages_.encoder);
    one.decoder.reach(last / PAGE, pages_.decoder);
    for (int64_t byte = 0; byte < count; ++byte) {
        const int64_t position = start + byte;
        if (ends[size_t(byte)]) {
            const int64_t number = ++after.newest_patch;
            one.global.reach(number / PAGE, pages_.global);
            one.readable.reach(number, pages_.readable);
            pass_.patches.push_back({&one.open, after.patch_start, position, start, first_number, pass_.num_patch_bytes,
                                     one.readable.page(number)});
            pass_.global.push_back({&one.global, number});
            pass_.num_patch_bytes += position - after.patch_start + 1;
            after.patch_start = position + 1;
        }
        const float *patch = after.newest_patch < 0 ? nullptr : one.readable.page(after.newest_patch);
        const int64_t ngrams = int64_t(pass_.bytes.size()) * blt.hashes.num_tables();
        pass_.bytes.push_back({ids[size_t(byte)], position, &one.open, true, patch, ngrams});
        pass_.encoder.push_back({&one.encoder, position});
        pass_.decoder.push_back({&one.decoder, position});
    }
    lay_out_ngrams(one, ids, start);
    int64_t kept_from = one.progress.patch_start;
    if (count > max_rollback_) {  // too much to be taken back: only the patch that stays open is kept
        kept_from = after.patch_start;
        for (int64_t byte = 0; byte < count; ++byte)
            pass_.bytes[size_t(first_number + byte)].is_kept = start + byte >= kept_from;
    }
    one.open.need(std::max<int64_t>(1, last - kept_from + 1), one.progress.patch_start, start, blt.dim());
    after.newest_byte = last;
    one.progress = after;
}

inline void Decoder::release(Row &one) {
    const BLT &blt = model_.blt;
    const auto drop = [&](PageTable &table, const Stack &stack, PagePool &pool) {
        const int64_t reach = one.progress.newest_byte - max_rollback_ - stack.window + 1;
        if (stack.window && reach > 0) table.drop_before(reach / PAGE, pool);
    };
    drop(one.encoder, blt.encoder, pages_.encoder);
    drop(one.decoder, blt.decoder, pages_.decoder);
    one.readable.drop_before(one.progress.newest_patch - max_rollback_, pages_.readable);
}

inline void Decoder::read(const std::vector<int64_t> &rows, const std::vector<const std::vector<int64_t> *> &ids,
                          const std::vector<const std::vector<char> *> &ends, Wanted wanted, float *logits) {
    BLTPass &pass = pass_;
    pass.bytes.clear();
    pass.ngram_rows.clear();
    pass.predicted.clear();
    pass.patches.clear();
    pass.encoder.clear();
    pass.decoder.clear();
    pass.global.clear();
    pass.num_patch_bytes = 0;
    for (size_t number = 0; number < rows.size(); ++number) {
        lay_out(row(rows[number]), *ids[number], *ends[number]);
        if (wanted == Wanted::LAST) pass.predicted.push_back(int64_t(pass.bytes.size()) - 1);
    }
    if (wanted == Wanted::ALL)
        for (int64_t at = 0; at < int64_t(pass.bytes.size()); ++at) pass.predicted.push_back(at);
    pass.need(model_.blt, work_);
    pool_.run(team_size(int64_t(pass.bytes.size())),
              [&](const Team &team) { run_blt(team, model_.blt, pass, work_, logits, times_); });
    for (int64_t name : rows) release(row(name));
}

inline void Decoder::forward(Wanted wanted, float *logits) {
    require(state_ == State::HEARD, "there is nothing to forward: no bytes have been read by the patcher");
    std::vector<const std::vector<int64_t> *> ids;
    std::vector<const std::vector<char> *> ends;
    can_rewind_ = true;
    for (int64_t name : reading_) {
        Row &one = row(name);
        one.began_document = one.pending[0] == BOS_ID;
        if (one.began_document) pages_.restart_blt(one);
        one.before = one.progress;
        ids.push_back(&one.pending);
        ends.push_back(&one.ends);
        can_rewind_ = can_rewind_ && int64_t(one.pending.size()) <= max_rollback_;
    }
    read(reading_, ids, ends, wanted, logits);
    state_ = State::READ;
}

inline void Decoder::draft(const Reading &reading, float *logits) {
    check(reading);
    require(state_ != State::HEARD, "forward what the patcher has read before drafting");
    std::vector<int64_t> rows(reading.rows, reading.rows + reading.num_rows);
    std::vector<std::vector<int64_t>> ids;
    int64_t at = 0, most = 0;
    for (int64_t number = 0; number < reading.num_rows; ++number) {
        ids.emplace_back(reading.ids + at, reading.ids + at + reading.counts[number]);
        at += reading.counts[number];
        most = std::max(most, reading.counts[number]);
        require(ids.back()[0] != BOS_ID, "a BOS cannot be drafted");
    }
    require(num_drafted_ + most <= max_rollback_, "at most " + std::to_string(max_rollback_) + " bytes can be drafted");
    for (int64_t name : rows) {
        const auto is_it = [&](const auto &pair) { return pair.first == name; };
        if (std::none_of(before_draft_.begin(), before_draft_.end(), is_it))
            before_draft_.emplace_back(name, row(name).progress);
    }
    num_drafted_ += most;
    std::vector<std::vector<char>> no_ends;
    for (const auto &one : ids) no_ends.emplace_back(one.size(), char(0));
    std::vector<const std::vector<int64_t> *> id_lists;
    std::vector<const std::vector<char> *> end_lists;
    for (size_t number = 0; number < ids.size(); ++number)
        id_lists.push_back(&ids[number]), end_lists.push_back(&no_ends[number]);
    can_rewind_ = false;
    read(rows, id_lists, end_lists, Wanted::ALL, logits);
}

inline void Decoder::discard_draft() {
    for (const auto &[name, progress] : before_draft_)
        if (row(name).is_active) row(name).progress = progress;
    before_draft_.clear();
    num_drafted_ = 0;
}

inline void Decoder::rewind(const int64_t *taken_back, int64_t num_rows) {
    require(state_ == State::READ && can_rewind_, "only what was read last can be taken back, once, and at most " +
                                                      std::to_string(max_rollback_) + " bytes of it");
    require(num_rows == int64_t(reading_.size()),
            "taken back: one number for each of the " + std::to_string(reading_.size()) + " rows that read");
    for (int64_t number = 0; number < num_rows; ++number) {
        const Row &one = row(reading_[size_t(number)]);
        const int64_t count = int64_t(one.pending.size()), most = one.began_document ? count - 1 : count;
        require(taken_back[number] >= 0 && taken_back[number] <= most,
                "row " + std::to_string(reading_[size_t(number)]) + ": can take back 0 to " + std::to_string(most) +
                    " bytes, got " + std::to_string(taken_back[number]));
    }
    for (int64_t number = 0; number < num_rows; ++number) {
        Row &one = row(reading_[size_t(number)]);
        const int64_t kept = int64_t(one.pending.size()) - taken_back[number];
        RowPosition progress = one.before;
        for (int64_t byte = 0; byte < kept; ++byte) {
            ++progress.newest_byte;
            if (!one.ends[size_t(byte)]) continue;
            ++progress.newest_patch;
            progress.patch_start = progress.newest_byte + 1;
        }
        one.progress = progress;
        one.heard -= taken_back[number];
        one.patcher = one.patchers[size_t(kept)];
    }
    can_rewind_ = false;
}

inline int64_t Decoder::num_bytes_heard() const {
    int64_t total = 0;
    if (state_ == State::HEARD)
        for (int64_t name : reading_) total += int64_t(rows_[size_t(name)]->pending.size());
    return total;
}

inline void Decoder::memory(int64_t *bytes) const {
    bytes[0] = pages_.entropy.bytes();
    bytes[1] = pages_.encoder.bytes();
    for (const auto &one : rows_) bytes[1] += one->open.states.bytes();
    bytes[2] = pages_.global.bytes();
    bytes[3] = pages_.decoder.bytes() + pages_.readable.bytes();
}

}  // namespace blt

// Rows that have each been read up to some byte, and can go on, each on its own.
//
// Entropy model and patcher read bytes first (does a patch end here?), then the BLT reads them (forward). What was read
// last can be rewound; bytes can also be read as a draft, which ends no patch and is discarded again.
#pragma once
#include <mutex>

#include "row.h"
#include "sampler.h"

namespace blt {

struct Model {
    BLT blt;
    EntropyModel entropy_model;
    bool has_entropy_model = false;

    int64_t vocabulary() const { return blt.output.outputs; }
};

class Decoder {
  public:
    // What is to be read: `counts[r]` bytes of each row, one row after another.
    struct Reading {
        const int64_t *rows, *counts, *ids;
        int64_t num_rows;

        int64_t num_bytes() const {
            int64_t total = 0;
            for (int64_t at = 0; at < num_rows; ++at) total += counts[at];
            return total;
        }
    };
    enum class Wanted {
        ALL,
        LAST,
        NONE
    };  // of which bytes logits are wanted

    Decoder(const Model &model, const PatchRule &rule, int64_t max_rollback, int num_threads);

    void start(int64_t count, int64_t *rows);
    void leave(const int64_t *rows, int64_t count);

    // Entropy model and patcher read; where `given` is set, it says where patches end, and neither is asked.
    void advance_patcher(const Reading &reading, const uint8_t *given, float *entropy_logits, uint8_t *ends);
    // The BLT reads what the patcher has read.
    void forward(Wanted wanted, float *logits);
    void draft(const Reading &reading, float *logits);
    void discard_draft();
    void rewind(const int64_t *taken_back, int64_t num_rows);

    // A row that is continued: bytes are chosen from its logits and read.
    struct GenerationRow {
        enum Stopped : int32_t {
            NOT = 0,
            EOS = 1,
            LENGTH = 2,
            BROKEN = 3
        };  // BROKEN: the logits are no numbers

        int64_t row;
        Sampling sampling;
        int64_t chosen;  // written and not read yet; −1: the logits lead on
        int64_t
            num_ahead;   // how many bytes are drafted at once, at most: more after right drafts, fewer after wrong ones
        float *logits;   // of what follows the bytes that were read
        uint8_t *bytes;  // where to write
        const uint8_t *forced = nullptr;  // bytes to read in place of what is chosen, for measurements
        int64_t count = 0;                // bytes written
        Stopped stopped = NOT;
    };
    // Bytes that the entropy model holds for likely are read together with the chosen one, and then checked.
    struct Drafting {
        int64_t max_draft;
        float min_probability;
    };
    // Continues rows until one of them stops, or has written `max_bytes`; returns the number of passes. Of many rows,
    // some may have written nothing yet. What is written does not depend on drafts: one is right only if it is what is
    // chosen.
    int64_t generate(std::vector<GenerationRow> &rows, int64_t max_bytes, Drafting drafting);

    int64_t num_bytes_heard() const;
    // Memory of the rows: entropy model, local encoder, global transformer, local decoder.
    void memory(int64_t *bytes) const;
    // Seconds spent so far in entropy model, local encoder, patches with the global transformer, and local decoder.
    const PartTimes &times() const { return times_; }
    const Model &model() const { return model_; }
    std::mutex &lock() { return lock_; }

  private:
    enum class State {
        NOTHING,
        HEARD,
        READ
    };

    void check_rows(const int64_t *rows, int64_t num_rows) const;
    void check(const Reading &reading) const;
    void begin_reading(const int64_t *rows, int64_t num_rows);
    void step_patchers(const Reading &reading, const uint8_t *given, float *entropy_logits, uint8_t *ends);
    void hear(const Reading &reading, float *logits);
    void choose(GenerationRow &one);
    void draft_ahead(std::vector<GenerationRow *> &rows, int64_t max_bytes, Drafting drafting);
    std::vector<GenerationRow *> leave_out_patch_ends(std::vector<GenerationRow *> rows);
    int64_t verify_drafts(GenerationRow &one, const float *logits);
    void read(const std::vector<int64_t> &rows, const std::vector<const std::vector<int64_t> *> &ids,
              const std::vector<const std::vector<char> *> &ends, Wanted wanted, float *logits);
    void lay_out(Row &row, const std::vector<int64_t> &ids, const std::vector<char> &ends);
    void lay_out_ngrams(Row &row, const std::vector<int64_t> &ids, int64_t start);
    void release(Row &row);
    Row &row(int64_t number) { return *rows_[size_t(number)]; }
    int team_size(int64_t num) const;

    const Model &model_;
    PatchRule rule_;
    int64_t max_rollback_;
    ThreadPool &pool_;
    std::mutex lock_;
    PagePools pages_;
    Workspace work_;
    EntropyPass entropy_pass_;
    BLTPass pass_;
    PartTimes times_;
    std::vector<std::unique_ptr<Row>> rows_;
    State state_ = State::NOTHING;
    std::vector<int64_t> reading_;  // rows that advance_patcher, or that have read last
    bool can_rewind_ = false;
    std::vector<std::pair<int64_t, RowPosition>> before_draft_;
    int64_t num_drafted_ = 0;
    Sampler sampler_;
    std::vector<float> written_logits_, draft_logits_;
};

}  // namespace blt

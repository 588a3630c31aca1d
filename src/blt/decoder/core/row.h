// All that a row remembers in order to go on.
#pragma once
#include "blt.h"
#include "entropy_model.h"
#include "patcher.h"

namespace blt {

// How far a row has come in its document.
struct RowPosition {
    int64_t newest_byte = -1;   // position; −1: none
    int64_t newest_patch = -1;  // number of the newest complete patch; −1: none
    int64_t patch_start = 0;    // position of the first byte of the patch that is open, or that the next byte opens
};

struct Row {
    bool is_active = false;
    Patcher patcher;
    int64_t heard = -1;  // position of the newest byte that entropy model and patcher have read
    RowPosition progress;
    PageTable entropy, encoder, decoder, global, readable;
    OpenPatch open;
    std::vector<int64_t> ids;  // a ring by position, as long as the longest n-gram and what can be taken back

    // What entropy model and patcher have read and the BLT has not, and the patcher before it and after each byte.
    std::vector<int64_t> pending;
    std::vector<char> ends;
    std::vector<Patcher> patchers;
    int64_t waits = 0;  // passes that have left it out since its pending bytes were read; 0: none

    // What the BLT has read last, for taking back.
    RowPosition before;
    bool began_document = false;
};

// Memory of the pages of all rows.
struct PagePools {
    PagePool entropy, encoder, decoder, global, readable;

    PagePools(const BLT &blt, const EntropyModel *entropy_model)
        : entropy(entropy_model ? entropy_model->stack.page_size() : 1),
          encoder(blt.encoder.page_size()),
          decoder(blt.decoder.page_size()),
          global(blt.global.page_size()),
          readable(blt.readable_size()) {}

    void restart_blt(Row &row) {
        row.encoder.clear(encoder);
        row.decoder.clear(decoder);
        row.global.clear(global);
        row.readable.clear(readable);
        row.progress = RowPosition{};
    }
    void restart(Row &row) {
        restart_blt(row);
        row.entropy.clear(entropy);
        row.heard = -1;
        row.patcher = Patcher{};
        row.pending.clear();
        row.ends.clear();
        row.patchers.clear();
        row.waits = 0;
    }
};

}  // namespace blt

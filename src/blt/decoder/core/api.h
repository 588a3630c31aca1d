// The decoder for other languages: plain C, a status from every call, and the text of the last error of this thread.
//
// A model points to its owner's tables (embeddings); its matrices are packed once, when it is made. Strings of calls on
// one decoder exclude each other; no call needs a lock of the caller's.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum blt_status {
    BLT_OK = 0,
    BLT_INVALID = 1,
    BLT_OUT_OF_MEMORY = 2,
    BLT_FAILED = 3,
    BLT_BROKEN_MODEL = 4
};
enum blt_stored {
    BLT_FLOAT32 = 0,
    BLT_BFLOAT16 = 1,
    BLT_INT8 = 2,
    BLT_INT4 = 3
};
enum blt_wanted {
    BLT_ALL = 0,
    BLT_LAST = 1,
    BLT_NONE = 2
};

typedef struct {
    const void
        *data;  // outputs × inputs, row by row; int4: two inputs a byte, the first in the low nibble, stored as w + 8
    const float *scales;           // int8: one per output
    const uint16_t *block_scales;  // int4: bfloat16, one per output and block of 32 inputs
    int64_t outputs, inputs;
    int32_t stored;
} blt_matrix;

typedef struct {
    const float *weight;
    int64_t width;
    float epsilon;
} blt_norm;

typedef struct {
    blt_norm attention_norm, feed_forward_norm;
    blt_matrix query, key, value, output, gate, up, down;
} blt_layer;

typedef struct {
    const blt_layer *layers;
    const float *frequencies;               // of RoPE: half as many as a head is wide
    int64_t num_layers, num_heads, window;  // window 0: all positions are seen
} blt_stack;

typedef struct {
    blt_norm query_norm, source_norm;
    blt_matrix query, key, value, output;
} blt_cross_attention;

typedef struct {
    blt_matrix bytes;
    blt_stack stack;
    blt_norm norm;
    blt_matrix output;
} blt_entropy_spec;

typedef struct {
    blt_matrix bytes, ngrams;
    const int64_t *ngram_sizes;
    const uint64_t *primes;
    int64_t num_ngram_sizes, num_functions, num_ngram_rows;
    blt_stack encoder, global, decoder;
    blt_matrix to_queries, to_global, from_global;  // to_global without data: there is none
    blt_cross_attention pooling;
    const blt_cross_attention *reading;
    int64_t num_reading, queries_per_patch;
    float residual_scale;
    blt_norm norm;
    blt_matrix output;
    const blt_entropy_spec *entropy_model;  // may be null
} blt_model_spec;

typedef struct {
    int32_t kind;  // 0 entropy, 1 entropy-rise, 2 entropy-and-rise, 3 space, 4 static, 5 byte
    float threshold, rise_threshold;
    int64_t length, max_length;  // max_length 0: none
} blt_rule;

typedef struct {
    const int64_t *rows, *counts, *ids;  // counts[r] ids of each row, one row after another
    int64_t num_rows, num_ids;
} blt_reading;

// A row that is continued: how its bytes are chosen, and how far that has come.
typedef struct {
    double temperature;   // 0: always the likeliest byte
    double top_p, min_p;  // 0: among all bytes
    int64_t top_k;        // 0: among all bytes
    uint64_t random_state;
    int64_t room;              // bytes that may still be written
    int64_t chosen;            // written and not read yet; -1: the logits lead on
    int64_t num_ahead;         // how many bytes are drafted at once, at most
    int32_t keeps_utf8, utf8;  // whether only bytes may come that keep UTF-8, and what has been read of a character
    int32_t stopped;           // 0 no, 1 by EOS, 2 by length, 3 by logits that are no numbers
} blt_sampling;

typedef struct {
    const int64_t *rows;
    blt_sampling *samplings;
    float *logits;          // rows × vocabulary: of what follows the bytes that were read
    uint8_t *bytes;         // rows × max_bytes
    int64_t *counts;        // bytes written, of each row
    const uint8_t *forced;  // rows × max_bytes, or null; these are read in place of what is chosen: for measurements
    int64_t num_rows, max_bytes, max_draft;
    float min_probability;  // bytes are drafted while the entropy model holds them for at least so likely
} blt_generation;

typedef struct blt_model blt_model;
typedef struct blt_decoder blt_decoder;

const char *blt_last_error(void);
const char *blt_kernels(void);  // what the products were compiled for

int32_t blt_model_new(const blt_model_spec *spec, blt_model **model);
void blt_model_free(blt_model *model);
void blt_model_bytes(const blt_model *model, int64_t *bytes);  // of the packed matrices: BLT, entropy model

// The model must outlive its decoders.
int32_t blt_decoder_new(const blt_model *model, const blt_rule *rule, int64_t max_rollback, int32_t num_threads,
                        blt_decoder **decoder);
void blt_decoder_free(blt_decoder *decoder);
int32_t blt_decoder_start(blt_decoder *decoder, int64_t count, int64_t *rows);
int32_t blt_decoder_leave(blt_decoder *decoder, const int64_t *rows, int64_t count);

// ends: given, or found if `gives_ends` is 0. Logits may be null where none are wanted.
int32_t blt_decoder_read(blt_decoder *decoder, const blt_reading *reading, int32_t wanted, int32_t gives_ends,
                         uint8_t *ends, float *logits);
int32_t blt_decoder_advance_patcher(blt_decoder *decoder, const blt_reading *reading, uint8_t *ends,
                                    float *entropy_logits);
int32_t blt_decoder_forward(blt_decoder *decoder, int64_t num_ids, float *logits);
int32_t blt_decoder_draft(blt_decoder *decoder, const blt_reading *reading, float *logits);
int32_t blt_decoder_discard_draft(blt_decoder *decoder);
int32_t blt_decoder_rewind(blt_decoder *decoder, const int64_t *taken_back, int64_t num_rows);
// Continues rows until one of them stops, or has written max_bytes; drafts change nothing but the number of passes.
int32_t blt_decoder_generate(blt_decoder *decoder, const blt_generation *generation, int64_t *num_passes);
int32_t blt_decoder_memory(blt_decoder *decoder,
                           int64_t *bytes);  // entropy model, encoder, global transformer, decoder
int32_t blt_decoder_seconds(blt_decoder *decoder, double *seconds);  // spent so far, in the same order

// The most that this machine allows: bytes read per second from memory of that size, and products per second by one
// matrix.
int32_t blt_reading_rate(int64_t num_bytes, int32_t num_threads, double *rate);
int32_t blt_product_rate(const blt_matrix *matrix, int32_t num_threads, double *rate);

// Names the contents of memory: equal contents, equal names.
uint64_t blt_fingerprint(const void *data, int64_t num_bytes, uint64_t seed);

#ifdef __cplusplus
}
#endif

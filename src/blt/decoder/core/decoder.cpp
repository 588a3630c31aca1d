// The C interface of api.h, and with it the whole decoder as one translation unit.
#include "api.h"

#include <exception>
#include <string>

#include "generation_inline.h"
#include "rates.h"

struct blt_model : blt::Model {};
struct blt_decoder : blt::Decoder {
    using blt::Decoder::Decoder;
};

namespace {

using blt::Source;

thread_local std::string last_error;

using blt::require;

template <class Run>
int32_t guarded(Run &&run) {
    try {
        run();
        return BLT_OK;
    } catch (const std::bad_alloc &) {
        last_error = "not enough memory";
        return BLT_OUT_OF_MEMORY;
    } catch (const std::invalid_argument &error) {
        last_error = error.what();
        return BLT_INVALID;
    } catch (const blt::BrokenModel &error) {
        last_error = error.what();
        return BLT_BROKEN_MODEL;
    } catch (const std::exception &error) {
        last_error = error.what();
        return BLT_FAILED;
    }
}

Source source(const blt_matrix &from, int64_t outputs, int64_t inputs, const std::string &name) {
    const std::string shape = std::to_string(from.outputs) + " × " + std::to_string(from.inputs);
    require(from.data && from.outputs == outputs && from.inputs == inputs,
            name + ": expected " + std::to_string(outputs) + " × " + std::to_string(inputs) + ", got " + shape);
    require(from.stored >= BLT_FLOAT32 && from.stored <= BLT_INT4,
            name + ": stored as an unknown type, " + std::to_string(from.stored));
    require(from.stored != BLT_INT8 || from.scales, name + ": int8 without scales");
    require(from.stored != BLT_INT4 || from.block_scales, name + ": int4 without scales");
    return {from.data, from.scales, from.block_scales, from.outputs, from.inputs, blt::Stored(from.stored)};
}

blt::Norm norm(const blt_norm &from, int64_t width, const std::string &name) {
    require(from.weight && from.width == width,
            name + ": expected " + std::to_string(width) + " weights, got " + std::to_string(from.width));
    return {std::vector<float>(from.weight, from.weight + width), from.epsilon};
}

blt::Table table(const blt_matrix &from, int64_t rows, int64_t dim, const std::string &name) {
    const Source found = source(from, rows, dim, name);
    require(found.stored == blt::Stored::FLOAT32 || found.stored == blt::Stored::BFLOAT16,
            name + ": tables are float32 or bfloat16");
    return {found.data, found.stored, rows, dim};
}

blt::Stack stack(const blt_stack &from, int64_t dim, const std::string &name) {
    require(from.num_layers >= 1 && from.layers && from.frequencies, name + ": at least 1 layer");
    require(from.num_heads >= 1 && dim % (2 * from.num_heads) == 0, name + ": width " + std::to_string(dim) +
                                                                        " is no multiple of 2 × " +
                                                                        std::to_string(from.num_heads) + " heads");
    require(from.window >= 0, name + ": a negative window");
    blt::Stack found;
    found.dim = dim, found.heads = from.num_heads, found.window = from.window,
    found.hidden = from.layers[0].gate.outputs;
    require(found.hidden >= 1, name + ": no hidden state");
    if (from.layers[0].key.stored != BLT_FLOAT32)  // the weights that make keys and values are rounded as well
        found.cache_type = blt::CacheType::INT8;
    found.frequencies.assign(from.frequencies, from.frequencies + dim / from.num_heads / 2);
    for (int64_t index = 0; index < from.num_layers; ++index) {
        const blt_layer &layer = from.layers[index];
        const std::string here = name + ", layer " + std::to_string(index);
        const Source query = source(layer.query, dim, dim, here), key = source(layer.key, dim, dim, here),
                     value = source(layer.value, dim, dim, here);
        found.layers.push_back({norm(layer.attention_norm, dim, here), norm(layer.feed_forward_norm, dim, here),
                                blt::PackedMatrix({&query, &key, &value}),
                                blt::PackedMatrix(source(layer.output, dim, dim, here)),
                                blt::Layer::interleave(source(layer.gate, found.hidden, dim, here),
                                                       source(layer.up, found.hidden, dim, here)),
                                blt::PackedMatrix(source(layer.down, dim, found.hidden, here))});
    }
    return found;
}

blt::CrossAttention cross_attention(const blt_cross_attention &from, int64_t dim, const std::string &name) {
    const Source key = source(from.key, dim, dim, name), value = source(from.value, dim, dim, name);
    return {norm(from.query_norm, dim, name), norm(from.source_norm, dim, name),
            blt::PackedMatrix(source(from.query, dim, dim, name)), blt::PackedMatrix({&key, &value}),
            blt::PackedMatrix(source(from.output, dim, dim, name))};
}

blt::HashNgrams hash_ngrams(const blt_model_spec &spec) {
    require(spec.num_ngram_sizes >= 0 && spec.num_functions >= 0 && spec.num_ngram_rows >= 1,
            "n-grams: a negative number, or tables without rows");
    blt::HashNgrams found;
    found.sizes.assign(spec.ngram_sizes, spec.ngram_sizes + spec.num_ngram_sizes);
    found.primes.assign(spec.primes, spec.primes + spec.num_functions);
    found.num_rows = spec.num_ngram_rows;
    for (int64_t n : found.sizes) require(n >= 2 && n <= 64, "n-grams: lengths from 2 to 64, got " + std::to_string(n));
    return found;
}

void fill(blt::BLT &blt, const blt_model_spec &spec) {
    const int64_t dim = spec.bytes.inputs, vocabulary = spec.bytes.outputs, k = spec.queries_per_patch,
                  wide = spec.from_global.inputs;
    require(dim >= 1 && vocabulary >= 1 && k >= 1 && wide >= 1, "a model without width, vocabulary or queries");
    blt.bytes = table(spec.bytes, vocabulary, dim, "byte embedding");
    blt.hashes = hash_ngrams(spec);
    if (blt.hashes.num_tables())
        blt.ngrams = table(spec.ngrams, blt.hashes.num_tables() * blt.hashes.num_rows, dim, "n-gram embedding");
    blt.queries_per_patch = k, blt.residual_scale = spec.residual_scale;
    blt.encoder = stack(spec.encoder, dim, "local encoder");
    blt.global = stack(spec.global, wide, "global transformer");
    blt.decoder = stack(spec.decoder, dim, "local decoder");
    blt.to_queries = blt::PackedMatrix(source(spec.to_queries, k * dim, dim, "to_queries"));
    blt.pooling = cross_attention(spec.pooling, dim, "encoder's cross-attention");
    blt.has_to_global = spec.to_global.data != nullptr;
    require(blt.has_to_global || k * dim == wide, "to_global: missing, though patches are of another width");
    if (blt.has_to_global) blt.to_global = blt::PackedMatrix(source(spec.to_global, wide, k * dim, "to_global"));
    blt.from_global = blt::PackedMatrix(source(spec.from_global, k * dim, wide, "from_global"));
    for (int64_t index = 0; index < spec.num_reading; ++index)
        blt.reading.push_back(cross_attention(spec.reading[index], dim, "decoder's cross-attention"));
    require(int64_t(blt.reading.size()) <= int64_t(blt.decoder.layers.size()),
            "decoder: more cross-attentions than layers");
    blt.norm = norm(spec.norm, dim, "norm");
    blt.output = blt::PackedMatrix(source(spec.output, vocabulary, dim, "output"));
}

void fill(blt::EntropyModel &entropy_model, const blt_entropy_spec &spec) {
    const int64_t dim = spec.bytes.inputs, vocabulary = spec.bytes.outputs;
    entropy_model.bytes = table(spec.bytes, vocabulary, dim, "entropy model's byte embedding");
    entropy_model.stack = stack(spec.stack, dim, "entropy model");
    entropy_model.norm = norm(spec.norm, dim, "entropy model's norm");
    entropy_model.output = blt::PackedMatrix(source(spec.output, vocabulary, dim, "entropy model's output"));
}

int64_t bytes_of(const blt::Stack &stack) {
    int64_t total = 0;
    for (const blt::Layer &layer : stack.layers)
        total += layer.query_key_value.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    return total;
}

blt::Decoder::Reading checked(const blt_reading &from) {
    const blt::Decoder::Reading found{from.rows, from.counts, from.ids, from.num_rows};
    for (int64_t at = 0; at < from.num_rows; ++at)
        require(from.counts[at] >= 1, "counts: each row reads at least 1 byte");
    require(found.num_bytes() == from.num_ids, "ids: " + std::to_string(from.num_ids) +
                                                   " of them, while the counts add up to " +
                                                   std::to_string(found.num_bytes()));
    return found;
}

blt::Decoder::GenerationRow generation_row(const blt_generation &from, int64_t at, int64_t vocabulary) {
    const blt_sampling &given = from.samplings[at];
    const std::string name = "row " + std::to_string(from.rows[at]);
    require(given.temperature >= 0 && std::isfinite(given.temperature), name + ": a temperature below 0, or none");
    require(given.utf8 >= 0 && given.utf8 < int32_t(blt::Utf8::BROKEN), name + ": an unknown state of UTF-8");
    require(given.stopped == 0 && given.room >= 1, name + ": it has been stopped");
    require(given.chosen < vocabulary && (given.chosen < 0 || given.chosen >= blt::BYTE_OFFSET),
            name + ": its chosen id is no byte's");
    blt::Sampling sampling;
    sampling.temperature = given.temperature, sampling.top_p = given.top_p, sampling.min_p = given.min_p,
    sampling.top_k = given.top_k;
    sampling.random_state = given.random_state, sampling.room = given.room;
    sampling.keeps_utf8 = given.keeps_utf8 != 0, sampling.utf8 = blt::Utf8(given.utf8);
    return {from.rows[at],
            sampling,
            given.chosen,
            std::max<int64_t>(1, given.num_ahead),
            from.logits + at * vocabulary,
            from.bytes + at * from.max_bytes,
            from.forced ? from.forced + at * from.max_bytes : nullptr};
}

void keep(const blt::Decoder::GenerationRow &row, blt_sampling &to) {
    to.random_state = row.sampling.random_state, to.room = row.sampling.room, to.utf8 = int32_t(row.sampling.utf8);
    to.chosen = row.chosen, to.num_ahead = row.num_ahead, to.stopped = row.stopped;
}

template <class Run>
int32_t locked(blt_decoder *decoder, Run &&run) {
    return guarded([&] {
        require(decoder, "there is no decoder");
        std::lock_guard<std::mutex> lock(decoder->lock());
        run();
    });
}

}  // namespace

const char *blt_last_error(void) { return last_error.c_str(); }

const char *blt_kernels(void) {
#if defined(BLT_PORTABLE)
    return "portable";
#elif defined(__AVX512BF16__) && defined(__AVX512VNNI__)
    return "AVX-512 (BF16, VNNI)";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "generic";
#endif
}

int32_t blt_model_new(const blt_model_spec *spec, blt_model **model) {
    return guarded([&] {
        require(spec && model, "there is no model");
        auto found = std::make_unique<blt_model>();
        fill(found->blt, *spec);
        found->has_entropy_model = spec->entropy_model != nullptr;
        if (spec->entropy_model) fill(found->entropy_model, *spec->entropy_model);
        require(!spec->entropy_model || found->entropy_model.output.outputs == found->vocabulary(),
                "entropy model: another vocabulary");
        *model = found.release();
    });
}

void blt_model_free(blt_model *model) { delete model; }

void blt_model_bytes(const blt_model *model, int64_t *bytes) {
    const blt::BLT &blt = model->blt;
    int64_t total = bytes_of(blt.encoder) + bytes_of(blt.global) + bytes_of(blt.decoder) + blt.output.bytes() +
                    blt.to_queries.bytes() + blt.to_global.bytes() + blt.from_global.bytes();
    std::vector<const blt::CrossAttention *> crosses{&blt.pooling};
    for (const blt::CrossAttention &cross : blt.reading) crosses.push_back(&cross);
    for (const blt::CrossAttention *cross : crosses)
        total += cross->query.bytes() + cross->key_value.bytes() + cross->output.bytes();
    bytes[0] = total;
    bytes[1] = bytes_of(model->entropy_model.stack) + model->entropy_model.output.bytes();
}

int32_t blt_decoder_new(const blt_model *model, const blt_rule *rule, int64_t max_rollback, int32_t num_threads,
                        blt_decoder **decoder) {
    return guarded([&] {
        require(model && rule && decoder, "there is no model");
        require(max_rollback >= 1, "max_rollback: at least 1 byte, got " + std::to_string(max_rollback));
        require(num_threads >= 1 && num_threads <= 1024, "threads: from 1 to 1024, got " + std::to_string(num_threads));
        require(rule->kind >= 0 && rule->kind <= 5, "rule: an unknown one, " + std::to_string(rule->kind));
        require(rule->length >= 1 && rule->max_length >= 0, "rule: a length of less than 1 byte");
        const blt::PatchRule found{blt::RuleKind(rule->kind), rule->threshold, rule->rise_threshold, rule->length,
                                   rule->max_length};
        require(!found.needs_entropies() || model->has_entropy_model,
                "rule: it needs entropies, and there is no entropy model");
        *decoder = new blt_decoder(*model, found, max_rollback, num_threads);
    });
}

void blt_decoder_free(blt_decoder *decoder) { delete decoder; }

int32_t blt_decoder_start(blt_decoder *decoder, int64_t count, int64_t *rows) {
    return locked(decoder, [&] { decoder->start(count, rows); });
}

int32_t blt_decoder_leave(blt_decoder *decoder, const int64_t *rows, int64_t count) {
    return locked(decoder, [&] { decoder->leave(rows, count); });
}

int32_t blt_decoder_read(blt_decoder *decoder, const blt_reading *reading, int32_t wanted, int32_t gives_ends,
                         uint8_t *ends, float *logits) {
    return locked(decoder, [&] {
        require(wanted >= BLT_ALL && wanted <= BLT_NONE, "wanted: all, last or none");
        require(logits || wanted == BLT_NONE, "logits: no buffer to write them to");
        require(decoder->num_bytes_heard() == 0, "forward what the patcher has read first");
        decoder->advance_patcher(checked(*reading), gives_ends ? ends : nullptr, nullptr, gives_ends ? nullptr : ends);
        decoder->forward(blt::Decoder::Wanted(wanted), logits);
    });
}

int32_t blt_decoder_advance_patcher(blt_decoder *decoder, const blt_reading *reading, uint8_t *ends,
                                    float *entropy_logits) {
    return locked(decoder, [&] { decoder->advance_patcher(checked(*reading), nullptr, entropy_logits, ends); });
}

int32_t blt_decoder_forward(blt_decoder *decoder, int64_t num_ids, float *logits) {
    return locked(decoder, [&] {
        require(num_ids == decoder->num_bytes_heard(), "logits: the patcher has read " +
                                                           std::to_string(decoder->num_bytes_heard()) + " bytes, not " +
                                                           std::to_string(num_ids));
        decoder->forward(blt::Decoder::Wanted::ALL, logits);
    });
}

int32_t blt_decoder_draft(blt_decoder *decoder, const blt_reading *reading, float *logits) {
    return locked(decoder, [&] { decoder->draft(checked(*reading), logits); });
}

int32_t blt_decoder_discard_draft(blt_decoder *decoder) {
    return locked(decoder, [&] { decoder->discard_draft(); });
}

int32_t blt_decoder_rewind(blt_decoder *decoder, const int64_t *taken_back, int64_t num_rows) {
    return locked(decoder, [&] { decoder->rewind(taken_back, num_rows); });
}

int32_t blt_decoder_generate(blt_decoder *decoder, const blt_generation *generation, int64_t *num_passes) {
    return locked(decoder, [&] {
        require(generation && num_passes, "there is nothing to write to");
        require(generation->max_bytes >= 1 && generation->max_draft >= 0,
                "max_bytes: at least 1, and no negative draft");
        const int64_t vocabulary = decoder->model().vocabulary();
        require(vocabulary == blt::BYTE_OFFSET + 256, "a vocabulary that is not of bytes");
        std::vector<blt::Decoder::GenerationRow> rows;
        for (int64_t at = 0; at < generation->num_rows; ++at)
            rows.push_back(generation_row(*generation, at, vocabulary));
        *num_passes =
            decoder->generate(rows, generation->max_bytes, {generation->max_draft, generation->min_probability});
        for (size_t at = 0; at < rows.size(); ++at)
            keep(rows[at], generation->samplings[at]), generation->counts[at] = rows[at].count;
    });
}

int32_t blt_decoder_memory(blt_decoder *decoder, int64_t *bytes) {
    return locked(decoder, [&] { decoder->memory(bytes); });
}

int32_t blt_decoder_seconds(blt_decoder *decoder, double *seconds) {
    return locked(decoder, [&] { std::copy_n(decoder->times().seconds, int(blt::PartTimes::NUM_PARTS), seconds); });
}

int32_t blt_reading_rate(int64_t num_bytes, int32_t num_threads, double *rate) {
    return guarded([&] {
        require(num_bytes >= 1 && num_threads >= 1, "rate: at least 1 byte and 1 thread");
        *rate = blt::reading_rate(blt::ThreadPool::shared(num_threads), num_bytes);
    });
}

int32_t blt_product_rate(const blt_matrix *matrix, int32_t num_threads, double *rate) {
    return guarded([&] {
        require(matrix && num_threads >= 1, "rate: there is no matrix, or no thread");
        *rate = blt::product_rate(blt::ThreadPool::shared(num_threads),
                                  source(*matrix, matrix->outputs, matrix->inputs, "matrix"));
    });
}

uint64_t blt_fingerprint(const void *data, int64_t num_bytes, uint64_t seed) {
    constexpr int LANES = 32;
    const char *from = static_cast<const char *>(data);
    uint32_t lanes[LANES];
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = uint32_t(seed >> 32 ^ seed) + uint32_t(lane) * 0x9e3779b9u;
    int64_t at = 0;
    for (; at + int64_t(sizeof lanes) <= num_bytes; at += sizeof lanes) {
        uint32_t words[LANES];
        std::memcpy(words, from + at, sizeof words);
        for (int lane = 0; lane < LANES; ++lane) lanes[lane] = (lanes[lane] ^ words[lane]) * 0x85ebca6bu + 0xc2b2ae35u;
    }
    uint64_t found = seed ^ uint64_t(num_bytes) * 0x9e3779b97f4a7c15u;
    for (; at < num_bytes; ++at) found = (found ^ uint8_t(from[at])) * 0x100000001b3u;
    for (int lane = 0; lane < LANES; ++lane) found = (found ^ lanes[lane]) * 0xff51afd7ed558ccdu, found ^= found >> 29;
    return found;
}

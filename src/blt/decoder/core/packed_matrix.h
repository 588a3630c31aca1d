// A matrix laid out for the products of gemv.h: panels of outputs, in which the lanes of a vector are outputs.
//
// A panel holds PANEL outputs, input by input, so that a product reads it from its first byte to its last, and the sum
// of each output is taken in the order of its inputs, however many vectors are multiplied at once.
#pragma once
#include <stdexcept>
#include <vector>

#include "memory.h"
#include "quantize.h"
#include "simd.h"

namespace blt {

constexpr int64_t PANEL = PANEL_VECTORS * LANES;

enum class Stored : int32_t {
    FLOAT32 = 0,
    BFLOAT16 = 1,
    INT8 = 2,
    INT4 = 3
};

// How a product reads its weights and inputs.
enum class Product {
    FLOAT32,
    WIDE_BFLOAT16,  // bfloat16 weights, float32 inputs: exactly the float32 product of the same weights
    BFLOAT16,       // both bfloat16, in pairs
    INT8,           // inputs int8 with a scale per block of 32; a scale per output
    INT4,           // inputs likewise; a scale per output and block
};

// A matrix as its owner has it, row by row: one row per output.
struct Source {
    const void *data = nullptr;
    const float *scales = nullptr;           // int8: one per output
    const uint16_t *block_scales = nullptr;  // int4: bfloat16, one per output and block of 32 inputs
    int64_t outputs = 0, inputs = 0;
    Stored stored = Stored::FLOAT32;

    int64_t blocks() const { return (inputs + BLOCK - 1) / BLOCK; }
};

// One output of a packed matrix: a row of a source, or zeros.
struct Origin {
    const Source *source;
    int64_t row;
};

class PackedMatrix {
    Buffer<uint32_t> data_;
    Buffer<float> scales_;           // per output
    Buffer<uint16_t> block_scales_;  // panel by panel, block by block, output by output

  public:
    Product product = Product::FLOAT32;
    int64_t outputs = 0, inputs = 0, panels = 0;

    int64_t blocks() const { return (inputs + BLOCK - 1) / BLOCK; }
    // Words of 32 bits that an output takes.
    int64_t depth() const {
        switch (product) {
            case Product::FLOAT32:
                return inputs;
            case Product::WIDE_BFLOAT16:
            case Product::BFLOAT16:
                return (inputs + 1) / 2;
            case Product::INT8:
                return blocks() * BLOCK / 4;
            case Product::INT4:
                return blocks() * BLOCK / 8;
        }
        return 0;
    }
    const uint32_t *panel(int64_t index) const { return data_.data() + index * PANEL * depth(); }
    const float *scales() const { return product == Product::INT8 ? scales_.data() : nullptr; }
    const uint16_t *block_scales(int64_t panel) const { return block_scales_.data() + panel * PANEL * blocks(); }
    int64_t bytes() const { return data_.bytes() + scales_.bytes() + block_scales_.bytes(); }

    PackedMatrix() = default;
    explicit PackedMatrix(const Source &source) {
        std::vector<Origin> rows;
        for (int64_t row = 0; row < source.outputs; ++row) rows.push_back({&source, row});
        pack(rows, source.inputs);
    }
    // The rows of several sources, one after another.
    explicit PackedMatrix(std::initializer_list<const Source *> sources) {
        std::vector<Origin> rows;
        for (const Source *source : sources)
            for (int64_t row = 0; row < source->outputs; ++row) rows.push_back({source, row});
        pack(rows, (*sources.begin())->inputs);
    }
    explicit PackedMatrix(const std::vector<Origin> &rows, int64_t num_inputs) { pack(rows, num_inputs); }

  private:
    void pack(const std::vector<Origin> &rows, int64_t num_inputs) {
        outputs = int64_t(rows.size()), inputs = num_inputs, panels = (outputs + PANEL - 1) / PANEL;
        const Stored stored = rows[0].source->stored;
        for (const Origin &origin : rows)
            if (origin.source->stored != stored || origin.source->inputs != inputs)
                throw std::invalid_argument("matrices that are packed as one must agree in type and width");
        product = product_for(rows, stored);
        data_.need(panels * PANEL * depth());
        if (product == Product::INT8) scales_.need(panels * PANEL);
        if (product == Product::INT4) block_scales_.need(panels * PANEL * blocks());
        if (product == Product::INT4)  // what is padded is zero, which is stored as 8
            for (int64_t at = 0; at < data_.size(); ++at) data_[at] = 0x88888888u;
        if (product == Product::INT8 && INT8_OFFSET)
            for (int64_t at = 0; at < data_.size(); ++at) data_[at] = 0x80808080u;
        for (int64_t output = 0; output < outputs; ++output)
            if (rows[size_t(output)].row >= 0) place(output, *rows[size_t(output)].source, rows[size_t(output)].row);
    }

    // AMD multiplies pairs of bfloat16 twice as fast as float32; Intel's AVX-512 does not, and widening is more
    // precise.
    static bool has_fast_bfloat16() {
#if defined(__AVX512BF16__) && !defined(BLT_PORTABLE)
        return __builtin_cpu_is("amd");
#else
        return false;
#endif
    }

    static Product product_for(const std::vector<Origin> &rows, Stored stored) {
        if (stored == Stored::INT8) return Product::INT8;
        if (stored == Stored::INT4) return Product::INT4;
        if (stored == Stored::BFLOAT16) {
            return has_fast_bfloat16() ? Product::BFLOAT16 : Product::WIDE_BFLOAT16;
        }
        for (const Origin &origin : rows) {  // float32 that bfloat16 holds exactly takes half the memory
            if (origin.row < 0) continue;
            const uint32_t *words =
                static_cast<const uint32_t *>(origin.source->data) + origin.row * origin.source->inputs;
            uint32_t low = 0;
            for (int64_t at = 0; at < origin.source->inputs; ++at) low |= words[at] & 0xffff;
            if (low) return Product::FLOAT32;
        }
        return Product::WIDE_BFLOAT16;
    }

    void place(int64_t output, const Source &source, int64_t row) {
        uint32_t *to = data_.data() + output / PANEL * PANEL * depth() + output % PANEL;
        if (product == Product::FLOAT32) {
            const uint32_t *from = static_cast<const uint32_t *>(source.data) + row * inputs;
            for (int64_t at = 0; at < inputs; ++at) to[at * PANEL] = from[at];
        } else if (product == Product::INT8) {
            const int8_t *from = static_cast<const int8_t *>(source.data) + row * inputs;
            scales_[output] = source.scales[row];
            for (int64_t at = 0; at < inputs; ++at) {
                uint32_t &word = to[at / 4 * PANEL];
                const int shift = int(at % 4) * 8;
                word = (word & ~(0xffu << shift)) | uint32_t(uint8_t(from[at] + INT8_OFFSET)) << shift;
            }
        } else if (product == Product::INT4) {
            place_nibbles(to, output, source, row);
        } else {
            for (int64_t at = 0; at < inputs; ++at) {
                uint16_t half;
                if (source.stored == Stored::BFLOAT16)
                    half = static_cast<const uint16_t *>(source.data)[row * inputs + at];
                else
                    half = uint16_t(static_cast<const uint32_t *>(source.data)[row * inputs + at] >> 16);
                to[at / 2 * PANEL] |= uint32_t(half) << (16 * (at % 2));
            }
        }
    }

    // Of each word, the low nibbles are four inputs and the high nibbles the four that follow.
    void place_nibbles(uint32_t *to, int64_t output, const Source &source, int64_t row) {
        const uint8_t *from = static_cast<const uint8_t *>(source.data) + row * blocks() * (BLOCK / 2);
        for (int64_t at = 0; at < inputs; ++at) {
            const uint32_t nibble = (from[at / 2] >> (at % 2 * 4)) & 15u;
            uint32_t &word = to[at / 8 * PANEL];
            const int shift = int(at % 4) * 8 + int(at / 4 % 2) * 4;
            word = (word & ~(15u << shift)) | nibble << shift;
        }
        for (int64_t block = 0; block < blocks(); ++block)
            block_scales_[output / PANEL * PANEL * blocks() + block * PANEL + output % PANEL] =
                source.block_scales[row * blocks() + block];
    }
};

}  // namespace blt

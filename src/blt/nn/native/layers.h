// What a step of decoding is handed: weights, caches and places. `abi.py` holds the same structures.
#pragma once
#include <cstdint>

extern "C" {

enum Kind : int32_t {
    FLOAT32 = 0,
    BFLOAT16 = 1,
    INT8 = 2
};

struct Matrix {
    const void *weight;  // height × width, row by row
    const float *scale;  // one per row, for int8
    int64_t height, width;
    int32_t kind;
};

struct Norm {  // root mean square; none if the weight is null
    const float *weight;
    float epsilon;
};

struct Layer {
    Norm attention_norm;
    Matrix query, key, value, output;
    Norm feed_forward_norm;
    Matrix gate, up, down;
    int64_t num_heads;
};

struct Cache {  // of one layer: rows × heads × slots × head width; position p lies in slot p mod num_slots
    float *keys, *values;
    int64_t num_rows, num_heads, num_slots;
    int64_t window;  // how many positions one sees, itself included
};

struct StepInputs {  // what is computed at once: some positions of some rows
    const int64_t *rows, *positions;
    const float *cos, *sin;  // num × half a head
    int64_t num;
};
}

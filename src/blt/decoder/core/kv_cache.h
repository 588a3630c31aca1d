// What a row keeps of its past, in pages: keys and values of PAGE positions each, or what one patch is read by.
//
// Pages are appended as positions come and go back to their pool once no window reaches them, so that a stack with a
// window takes a constant amount of memory, one without grows by a page at a time, and nothing is ever copied.
#pragma once
#include <memory>
#include <vector>

#include "memory.h"

namespace blt {

constexpr int64_t PAGE = 16;

class PagePool {
    int64_t page_size;  // floats
    std::vector<float *> free_pages;
    std::vector<Buffer<float>> chunks;

  public:
    explicit PagePool(int64_t size) : page_size(round_up(size, 16)) {}

    float *take() {
        if (free_pages.empty()) {
            const int64_t count = page_size >= 1 << 16 ? 1 : 8;
            chunks.emplace_back(count * page_size);
            free_pages.reserve(chunks.size() * 8);  // so that giving back cannot fail
            for (int64_t page = 0; page < count; ++page) free_pages.push_back(chunks.back().data() + page * page_size);
        }
        float *page = free_pages.back();
        free_pages.pop_back();
        return page;
    }
    void give(float *page) { free_pages.push_back(page); }
    int64_t bytes() const { return int64_t(chunks.size()) * (chunks.empty() ? 0 : chunks[0].bytes()); }
};

class PageTable {
    std::vector<float *> pages;
    int64_t first = 0;  // number of the first page that is held

  public:
    float *page(int64_t number) const { return pages[size_t(number - first)]; }
    void reach(int64_t number, PagePool &pool) {
        pages.reserve(size_t(number - first + 1 > 0 ? number - first + 1 : 0));
        while (first + int64_t(pages.size()) <= number) pages.push_back(pool.take());
    }
    void drop_before(int64_t number, PagePool &pool) {
        int64_t count = number - first;
        if (count <= 0) return;
        if (count > int64_t(pages.size())) count = int64_t(pages.size());
        for (int64_t at = 0; at < count; ++at) pool.give(pages[size_t(at)]);
        pages.erase(pages.begin(), pages.begin() + count);
        first += count;
    }
    void clear(PagePool &pool) {
        for (float *page : pages) pool.give(page);
        pages.clear();
        first = 0;
    }
};

// What keys and values are stored as: float32, or int8 with a scale per position and head.
enum class CacheType {
    FLOAT32,
    INT8
};

// The scales of PAGE positions, which follow their int8 keys or values.
inline const float *scales(const int8_t *numbers, int64_t width) {
    return reinterpret_cast<const float *>(numbers + PAGE * width);
}
inline float *scales(int8_t *numbers, int64_t width) { return reinterpret_cast<float *>(numbers + PAGE * width); }

template <class Number>
inline Number *part_of_page(float *page, int64_t bytes) {
    return reinterpret_cast<Number *>(reinterpret_cast<char *>(page) + bytes);
}

// Where a head's keys and values of PAGE positions lie in a page of a stack, in bytes: keys dimension by dimension, so
// that the lanes of a vector are positions; values position by position.
struct HeadLayout {
    int64_t heads, width;
    CacheType type;

    int64_t floats_per_page(int64_t layers) const { return keys(layers, 0) / int64_t(sizeof(float)); }
    int64_t keys(int64_t layer, int64_t head) const { return (layer * heads + head) * 2 * part(); }
    int64_t values(int64_t layer, int64_t head) const { return keys(layer, head) + part(); }

  private:
    int64_t part() const {  // keys, or values
        return type == CacheType::INT8 ? PAGE * (width + int64_t(sizeof(float)))
                                       : PAGE * width * int64_t(sizeof(float));
    }
};

}  // namespace blt

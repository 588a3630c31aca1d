// Memory that vectors are read from: aligned, zeroed, and in huge pages where it is large.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace blt {

inline int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// An array of plain elements that grows but never shrinks; its contents are lost when it grows.
template <class Element>
class Buffer {
    Element *data_ = nullptr;
    int64_t size_ = 0;

  public:
    Buffer() = default;
    explicit Buffer(int64_t size) { need(size); }
    Buffer(Buffer &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Buffer &operator=(Buffer &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    Element *need(int64_t size) {
        if (size <= size_) return data_;
        constexpr int64_t HUGE_PAGE = 2 << 20;
        const int64_t wanted = size * int64_t(sizeof(Element)), alignment = wanted >= HUGE_PAGE ? HUGE_PAGE : 64;
        const int64_t bytes = round_up(wanted, alignment);
        void *found = std::aligned_alloc(size_t(alignment), size_t(bytes));
        if (!found) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (alignment == HUGE_PAGE) madvise(found, size_t(bytes), MADV_HUGEPAGE);
#endif
        std::memset(found, 0, size_t(bytes));
        std::free(data_);
        data_ = static_cast<Element *>(found);
        size_ = size;
        return data_;
    }
    Element *data() { return data_; }
    const Element *data() const { return data_; }
    int64_t size() const { return size_; }
    int64_t bytes() const { return size_ * int64_t(sizeof(Element)); }
    Element &operator[](int64_t at) { return data_[at]; }
    const Element &operator[](int64_t at) const { return data_[at]; }
};

}  // namespace blt

// What the functions of the interface return, and how a failure leaves a parallel region.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>

enum Status : int32_t {
    SUCCESS = 0,
    OUT_OF_MEMORY = 1,
    UNSUPPORTED = 2,  // compiled without what the function needs
    BAD_INDEX = 3,    // an index tensor breaks its contract; nothing was written
};

namespace {

// No exception may leave a parallel region, nor one iteration of a shared loop: each runs under `guard`, and the first
// failure is thrown again once the region is over.
class Failure {
    std::atomic<bool> failed{false};

  public:
    template <class Work>
    void guard(Work work) {
        try {
            work();
        } catch (const std::exception &) {  // vectors throw bad_alloc and length_error
            failed.store(true, std::memory_order_relaxed);
        }
    }
    void rethrow() const {
        if (failed.load(std::memory_order_relaxed)) throw std::bad_alloc();
    }
};

// Runs what may throw; the caller is C.
template <class Work>
int32_t status_of(Work work) {
    try {
        return work();
    } catch (const std::exception &) {
        return OUT_OF_MEMORY;
    }
}

}  // namespace

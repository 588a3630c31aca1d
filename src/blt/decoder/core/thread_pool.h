// Threads that compute one thing together: all run the same function, and meet at barriers.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace blt {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#endif
}

constexpr int FEW_SPINS = 100,
              SPINS = 2000;  // looks before a waiting thread counts its time, and before it lets others run

// Threads wait here awake, since a layer takes less time than falling asleep; where cores are scarce they yield.
class SpinBarrier {
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<int> round{0};

  public:
    // Adds the seconds of a long wait to `waited`; short ones are not looked at.
    void wait(int num_threads, double &waited) {
        const int mine = round.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) == num_threads - 1) {
            arrived.store(0, std::memory_order_relaxed);
            round.store(mine + 1, std::memory_order_release);
            return;
        }
        for (int tries = 0; tries < FEW_SPINS; ++tries) {
            if (round.load(std::memory_order_acquire) != mine) return;
            relax();
        }
        const auto start = std::chrono::steady_clock::now();
        for (int tries = 0; round.load(std::memory_order_acquire) == mine; ++tries) {
            if (tries < SPINS)
                relax();
            else
                std::this_thread::yield();
        }
        waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
};

// One thread's view of the team that it computes with.
struct Team {
    int index, size;
    SpinBarrier *barrier;
    double *waited;

    void wait() const {
        if (size > 1) barrier->wait(size, *waited);
    }
    // This thread's part [first, last) of `count` things.
    void share(int64_t count, int64_t &first, int64_t &last) const {
        first = count * index / size;
        last = count * (index + 1) / size;
    }
};

class ThreadPool {
    using Job = std::function<void(const Team &)>;

    std::vector<std::thread> workers;
    std::mutex mutex, running;
    std::condition_variable awake;
    alignas(64) std::atomic<int64_t> jobs{0};  // how many have been given out
    alignas(64) std::atomic<int> left{0};      // workers that have not finished the newest one
    std::atomic<bool> is_over{false};
    const Job *job = nullptr;
    int team_size = 1;
    SpinBarrier barrier;
    struct alignas(64) Waited {
        double seconds = 0;
    };
    std::vector<Waited> waited;
    int64_t alone_for = 0, patience = 2;  // where others have the cores, jobs run on one thread for a while

    // A team that waits for much of a job waits for cores that others have: then one thread is faster.
    void judge(double seconds) {
        double most = 0;
        for (Waited &one : waited) most = std::max(most, one.seconds), one.seconds = 0;
        if (most > 0.3 * seconds) {
            alone_for = patience;
            patience = std::min<int64_t>(2 * patience, 1024);
        } else {
            patience = std::max<int64_t>(2, patience / 2);
        }
    }

    void work(int index) {
        for (int64_t seen = 0;;) {
            for (int tries = 0; jobs.load(std::memory_order_acquire) == seen && tries < 20000; ++tries) {
                if (tries < SPINS)
                    relax();
                else if (tries % 16 == 0)
                    std::this_thread::yield();
            }
            if (jobs.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex);
                awake.wait(lock, [&] { return is_over.load() || jobs.load() != seen; });
            }
            if (is_over.load()) return;
            ++seen;
            if (index < team_size) (*job)(Team{index, team_size, &barrier, &waited[size_t(index)].seconds});
            left.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

  public:
    explicit ThreadPool(int num_threads) : waited(size_t(num_threads)) {
        for (int index = 1; index < num_threads; ++index) workers.emplace_back([this, index] { work(index); });
    }
    ~ThreadPool() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            is_over = true;
            jobs.fetch_add(1);
        }
        awake.notify_all();
        for (auto &worker : workers) worker.join();
    }
    int num_threads() const { return int(workers.size()) + 1; }

    // Runs `what` on `size` threads, of which the caller is the first; it must not throw.
    void run(int size, const Job &what) {
        std::lock_guard<std::mutex> alone(running);
        team_size = std::max(1, std::min(size, num_threads()));
        if (team_size > 1 && alone_for > 0) --alone_for, team_size = 1;
        if (team_size == 1) {
            what(Team{0, 1, nullptr, nullptr});
            return;
        }
        const auto start = std::chrono::steady_clock::now();
        job = &what;
        left.store(int(workers.size()), std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex);
            jobs.fetch_add(1, std::memory_order_release);
        }
        awake.notify_all();
        what(Team{0, team_size, &barrier, &waited[0].seconds});
        const auto done = std::chrono::steady_clock::now();
        for (int tries = 0; left.load(std::memory_order_acquire) > 0; ++tries) {
            if (tries < SPINS)
                relax();
            else
                std::this_thread::yield();
        }
        const auto end = std::chrono::steady_clock::now();
        waited[0].seconds += std::chrono::duration<double>(end - done).count();
        judge(std::chrono::duration<double>(end - start).count());
    }

    // The pool of that many threads, shared by all decoders of this process; a forked process starts its own.
    static ThreadPool &shared(int num_threads) {
        static std::mutex guard;
        static std::vector<std::unique_ptr<ThreadPool>> *pools = new std::vector<std::unique_ptr<ThreadPool>>;
        static long owner = -1;
        std::lock_guard<std::mutex> lock(guard);
#if defined(__unix__) || defined(__APPLE__)
        if (owner != long(getpid())) {
            pools = new std::vector<std::unique_ptr<ThreadPool>>;  // the parent's threads do not exist here
            owner = long(getpid());
        }
#endif
        for (auto &pool : *pools)
            if (pool->num_threads() == num_threads) return *pool;
        pools->push_back(std::make_unique<ThreadPool>(num_threads));
        return *pools->back();
    }
};

}  // namespace blt

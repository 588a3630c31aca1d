// Whether a byte completes a patch, by any of the six rules.
#pragma once
#include <cstdint>

namespace blt {

constexpr int64_t BOE_ID = 0, BOS_ID = 1, EOS_ID = 2, BYTE_OFFSET = 4;

enum class RuleKind : int32_t {
    ENTROPY = 0,
    ENTROPY_RISE = 1,
    ENTROPY_AND_RISE = 2,
    SPACE = 3,
    STATIC = 4,
    EVERY_BYTE = 5
};

struct PatchRule {
    RuleKind kind = RuleKind::EVERY_BYTE;
    float threshold = 0, rise_threshold = 0;  // in nats
    int64_t length = 1;                       // bytes per patch of the static rule
    int64_t max_length = 0;                   // 0: patches may be of any length

    bool needs_entropies() const { return int32_t(kind) <= int32_t(RuleKind::ENTROPY_AND_RISE); }
};

inline bool is_space_like(int64_t id) {
    const int64_t byte = id - BYTE_OFFSET;
    return !((byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
             (byte >= 0x80 && byte <= 0xBF));
}

struct Patcher {
    int64_t previous_id = EOS_ID;
    float previous_entropy = 0;
    int64_t since_boundary = 0;  // bytes read since the last BOS or EOS, or since the start of the row
    int64_t open_length = 0;     // bytes read since the last patch end

    bool step(const PatchRule &rule, int64_t id, float entropy) {
        const bool is_boundary = id == BOS_ID || id == EOS_ID;
        since_boundary = is_boundary ? 0 : since_boundary + 1;
        ++open_length;
        const bool ends =
            is_boundary || completes(rule, id, entropy) || (rule.max_length && open_length == rule.max_length);
        previous_id = id;
        previous_entropy = entropy;
        if (ends) open_length = 0;
        return ends;
    }

  private:
    bool completes(const PatchRule &rule, int64_t id, float entropy) const {
        const float rise = entropy - previous_entropy;
        const bool has_risen = previous_id != EOS_ID;  // else there is no entropy to rise from
        switch (rule.kind) {
            case RuleKind::ENTROPY:
                return entropy > rule.threshold;
            case RuleKind::ENTROPY_RISE:
                return has_risen && rise > rule.threshold;
            case RuleKind::ENTROPY_AND_RISE:
                return has_risen && rise > rule.rise_threshold && entropy > rule.threshold;
            case RuleKind::SPACE:
                return is_space_like(id) && !is_space_like(previous_id);
            case RuleKind::STATIC:
                return since_boundary % rule.length == 0;
            case RuleKind::EVERY_BYTE:
                return true;
        }
        return true;
    }
};

}  // namespace blt

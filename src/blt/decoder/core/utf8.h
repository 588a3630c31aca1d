// Which bytes may follow so that the whole stays UTF-8 (RFC 3629: shortest forms, no surrogates, to U+10FFFF).
#pragma once
#include <cstdint>

namespace blt {

// What has been read of a character: nothing, or what lacks so many more bytes, or a first byte that narrows the
// second.
enum class Utf8 : int32_t {
    BETWEEN = 0,
    ONE_MORE,
    TWO_MORE,
    THREE_MORE,
    AFTER_E0,
    AFTER_ED,
    AFTER_F0,
    AFTER_F4,
    BROKEN
};

inline Utf8 next_utf8(Utf8 state, int byte) {
    const auto within = [&](int first, int last, Utf8 next) {
        return byte >= first && byte <= last ? next : Utf8::BROKEN;
    };
    switch (state) {
        case Utf8::ONE_MORE:
            return within(0x80, 0xBF, Utf8::BETWEEN);
        case Utf8::TWO_MORE:
            return within(0x80, 0xBF, Utf8::ONE_MORE);
        case Utf8::THREE_MORE:
            return within(0x80, 0xBF, Utf8::TWO_MORE);
        case Utf8::AFTER_E0:
            return within(0xA0, 0xBF, Utf8::ONE_MORE);  // below: overlong
        case Utf8::AFTER_ED:
            return within(0x80, 0x9F, Utf8::ONE_MORE);  // above: surrogates
        case Utf8::AFTER_F0:
            return within(0x90, 0xBF, Utf8::TWO_MORE);  // below: overlong
        case Utf8::AFTER_F4:
            return within(0x80, 0x8F, Utf8::TWO_MORE);  // above: beyond U+10FFFF
        default:
            break;
    }
    if (byte <= 0x7F) return Utf8::BETWEEN;
    if (byte < 0xC2 || byte > 0xF4) return Utf8::BROKEN;
    if (byte <= 0xDF) return Utf8::ONE_MORE;
    if (byte == 0xE0) return Utf8::AFTER_E0;
    if (byte == 0xED) return Utf8::AFTER_ED;
    if (byte <= 0xEF) return Utf8::TWO_MORE;
    if (byte == 0xF0) return Utf8::AFTER_F0;
    return byte == 0xF4 ? Utf8::AFTER_F4 : Utf8::THREE_MORE;
}

inline int lacking_bytes(Utf8 state) {
    constexpr int LACKING[] = {0, 1, 2, 3, 2, 2, 3, 3};
    return LACKING[int(state)];
}

}  // namespace blt

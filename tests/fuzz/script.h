/* A script: bytes that say what happens. Whatever they are, they say something; after their end there are zeros. */
#ifndef WP_FUZZ_SCRIPT_H
#define WP_FUZZ_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct script {
    const uint8_t *at;
    const uint8_t *end;
};

static inline bool script_is_over(const struct script *script)
{
    return script->at == script->end;
}

static inline uint8_t take_byte(struct script *script)
{
    return script->at < script->end ? *script->at++ : 0;
}

/* One of 0 to `below` - 1, which is at most 65,536. */
static inline uint32_t take_below(struct script *script, uint32_t below)
{
    uint32_t n = take_byte(script);
    if (below > 256) {
        n = n << 8 | take_byte(script);
    }
    return n % below;
}

static inline uint64_t take_word(struct script *script)
{
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) {
        word = word << 8 | take_byte(script);
    }
    return word;
}

/* What somebody may write where `old` is: near to it, or to an end of the range, or anything. */
static inline uint64_t take_value(struct script *script, uint64_t old)
{
    switch (take_byte(script) % 10) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return 0;
    case 3:
        return UINT64_MAX;
    case 4:
        return take_byte(script);
    case 5:
        return old ^ UINT64_C(1) << take_byte(script) % 64;
    case 6:
        return UINT64_C(1) << take_byte(script) % 64;
    case 7:
        return old + (UINT64_C(1) << take_byte(script) % 64);
    case 8:
        return old - (UINT64_C(1) << take_byte(script) % 64);
    default:
        return take_word(script);
    }
}

#endif

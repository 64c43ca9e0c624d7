/* A pool among broken workers, by scripts of random bytes: the same play as `make fuzz`, for some seconds. */
#include "../fuzz/hostile.h"

#define PLAYS 2500
#define LONGEST 2048

static void test_random_plays(void)
{
    static uint8_t bytes[LONGEST];
    for (uint64_t play_number = 0; play_number < SCALED(PLAYS); play_number++) {
        struct dice dice = new_dice(play_number);
        size_t size = roll(&dice, LONGEST);
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)roll(&dice, 256);
        }
        play(bytes, size);
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(test_random_plays);
    return check_end();
}

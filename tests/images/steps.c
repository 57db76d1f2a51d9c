/* The workload of images that hold next to nothing: counts, and says with each count a digest over all
 * of its memory, which depends on every step before. `steps N` ends after N steps, without pauses. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORDS = 64 * 1024 };
static uint64_t memory[WORDS];

static uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    return x;
}

int main(int argc, char **argv) {
    long last = argc > 1 ? atol(argv[1]) : 0;
    struct timespec pause = {0, 50 * 1000 * 1000};
    uint64_t digest = 1;

    for (long tick = 1; last == 0 || tick <= last; tick++) {
        for (int i = 0; i < 64; i++) {
            digest = mix(digest + (uint64_t)i);
            memory[digest % WORDS] ^= digest;
        }
        for (int i = 0; i < WORDS; i++) {
            digest = mix(digest ^ memory[i]);
        }
        printf("tick %ld hash %016llx%016llx\n", tick, (unsigned long long)digest, (unsigned long long)mix(digest));
        fflush(stdout);
        if (last == 0) {
            nanosleep(&pause, NULL);
        }
    }
    return 0;
}

// Read bandwidth by a loop of its own, to check the figure that `sparkherd bench engine` reports: two threads sum 1 GiB each.
// Prints GB/s, the median of five.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { THREADS = 2, RUNS = 5 };
static const size_t BYTES = (size_t)2 << 30;
static uint64_t *memory;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *sum(void *part) {
    size_t words = BYTES / sizeof *memory / THREADS;
    const uint64_t *from = memory + (size_t)part * words;
    uint64_t lanes[32] = {0};
    for (size_t word = 0; word < words; word += 32)
        for (size_t lane = 0; lane < 32; lane++) lanes[lane] += from[word + lane];
    for (size_t lane = 1; lane < 32; lane++) lanes[0] += lanes[lane];
    return (void *)lanes[0];
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    madvise(memory, BYTES, MADV_HUGEPAGE);
    memset(memory, 1, BYTES);
    double rates[RUNS];
    uint64_t check = 0;
    for (int run = 0; run < RUNS; run++) {
        double begin = now();
        pthread_t threads[THREADS];
        for (size_t part = 0; part < THREADS; part++)
            if (pthread_create(&threads[part], NULL, sum, (void *)part) != 0) return 1;
        for (int part = 0; part < THREADS; part++) {
            void *total;
            pthread_join(threads[part], &total);
            check += (uint64_t)total;
        }
        rates[run] = (double)BYTES / (now() - begin) / 1e9;
    }
    qsort(rates, RUNS, sizeof *rates, ascending);
    printf("%.2f\n", rates[RUNS / 2]);
    return check == 0;
}

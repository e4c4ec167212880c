/* Preloaded to a program, moves its time of day by the seconds that are written in the file CLOCK_MOVED. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    const char *name = getenv("CLOCK_MOVED");
    if (failed || clock != CLOCK_REALTIME || !name)
        return failed;
    FILE *file = fopen(name, "r");
    long moved = 0;
    if (file) {
        if (fscanf(file, "%ld", &moved) == 1)
            now->tv_sec += moved;
        fclose(file);
    }
    return 0;
}

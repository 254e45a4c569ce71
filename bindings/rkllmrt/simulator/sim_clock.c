/* Pace: how long a step takes, and waiting for it on absolute deadlines so that sleeping late never adds up. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void clock_setup(Clock *clock) {
    const char *mode = getenv("RKLLM_SIM_CLOCK"), *speed = getenv("RKLLM_SIM_SPEED");
    *clock = (Clock){.speed = 1.0, .noise = 0x9e3779b9u};
    clock->virtual_time = mode && strcmp(mode, "virtual") == 0;
    if (speed && atof(speed) > 0) clock->speed = atof(speed);
    clock->deadline_ns = clock->idle_since_ns = now_ns();
}

void clock_begin(Clock *clock) {
    int64_t now = now_ns();
    double rested_ms = (double)(now - clock->idle_since_ns) / 1e6 * clock->speed;
    if (!clock->virtual_time) clock->busy_ms = clock->busy_ms > rested_ms ? clock->busy_ms - rested_ms : 0;
    clock->deadline_ns = now;
}

void clock_end(Clock *clock) { clock->idle_since_ns = now_ns(); }

static void wait_until(int64_t deadline_ns) {
    struct timespec deadline = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) != 0) {
    }
}

void clock_plain(Clock *clock, double ms) {
    if (ms <= 0) return;
    clock->deadline_ns += (int64_t)(ms / clock->speed * 1e6);
    if (!clock->virtual_time) wait_until(clock->deadline_ns);
}

double clock_step(Clock *clock, const Pace *pace, double ms) {
    if (ms <= 0) return 0;
    clock->noise = clock->noise * 1664525u + 1013904223u;
    ms *= 1 + pace->jitter * ((double)(clock->noise >> 8) / (1 << 23) - 1);
    if (pace->thermal_after_s > 0 && clock->busy_ms > pace->thermal_after_s * 1e3) ms *= pace->thermal_factor;
    clock->busy_ms += ms;
    clock_plain(clock, ms);
    return ms / clock->speed;
}

void clock_outside(Clock *clock, int64_t spent_ns) { clock->deadline_ns += spent_ns; }

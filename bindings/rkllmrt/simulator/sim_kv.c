/* The KV cache: which tokens are in it, and how many of a new prompt it already holds. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

void kv_put(Kv *kv, uint32_t hash) {
    if (kv->n == kv->cap) {
        kv->cap = kv->cap ? kv->cap * 2 : 1024;
        kv->at = sim_grow(kv->at, (size_t)kv->cap * sizeof *kv->at);
    }
    kv->at[kv->n++] = hash;
}

void kv_cut(Kv *kv, int n) {
    if (n < kv->n) kv->n = n;
    if (kv->history > kv->n) kv->history = kv->n;
    if (kv->reusable > kv->n) kv->reusable = kv->n;
}

void kv_free(Kv *kv) {
    free(kv->at);
    *kv = (Kv){0};
}

bool kv_remove(Kv *kv, int start, int end) {
    if (start < 0 || end <= start || end > kv->n) return false;
    memmove(kv->at + start, kv->at + end, (size_t)(kv->n - end) * sizeof *kv->at);
    kv_cut(kv, kv->n - (end - start));
    return true;
}

int kv_match(const Kv *kv, const uint32_t *tokens, int n, const Model *model) {
    if (!model->reuse) return 0;
    int limit = kv->reusable < n ? kv->reusable : n, same = 0;
    while (same < limit && kv->at[same] == tokens[same]) same++;
    if (same == n) return same;
    /* Where the old text ended and the new one goes on, a real vocabulary often merges over the border. */
    if (model->joins_unstable && same == kv->reusable && same > 0) same--;
    return same - same % model->granularity;
}

void kv_shift(Kv *kv, int window, int keep) {
    if (kv->n < window) return;
    if (keep > window / 2) keep = window / 2;
    if (keep < 0) keep = 0;
    int drop = (kv->n - keep) / 2;
    kv_remove(kv, keep, keep + (drop > 0 ? drop : 1));
}

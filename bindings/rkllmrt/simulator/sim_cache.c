/* Prompt-cache files: of the real size, written and read at a real speed, refused by another model or release. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20 };

typedef struct {
    char magic[16];
    uint32_t fingerprint, release, n_tokens, kv_bytes;
} Header;

static const char MAGIC[16] = "RKLLM-SIM-CACHE";

static Header header_of(const Sim *sim, int n) {
    Header header = {.fingerprint = sim->model.fingerprint, .n_tokens = (uint32_t)n};
    header.kv_bytes = (uint32_t)sim->model.kv_bytes;
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.release = sim_hash(sim->release.version, strlen(sim->release.version), 3);
    return header;
}

static size_t file_bytes(const Header *header) { return sizeof *header + (size_t)header->n_tokens * header->kv_bytes; }

/* Keys and values do not compress: neither does the filling, or a compressing disk would flatter. */
static bool write_filling(FILE *file, size_t bytes) {
    uint32_t *block = sim_alloc(BLOCK), noise = 1;
    for (size_t i = 0; i < BLOCK / sizeof *block; i++) block[i] = noise = noise * 1664525u + 1013904223u;
    bool good = true;
    for (; good && bytes; bytes -= bytes < BLOCK ? bytes : BLOCK) {
        size_t part = bytes < BLOCK ? bytes : BLOCK;
        good = fwrite(block, 1, part, file) == part;
    }
    free(block);
    return good;
}

static void wait_transfer(Sim *sim, size_t bytes, double mb_s) {
    if (mb_s > 0) clock_plain(&sim->clock, (double)bytes / 1e3 / mb_s);
}

int cache_save(Sim *sim, const char *path) {
    const Kv *kv = &sim->columns[0].kv;
    Header header = header_of(sim, kv->reusable);
    size_t used = sizeof header + (size_t)kv->reusable * sizeof *kv->at, total = file_bytes(&header);
    FILE *file = fopen(path && *path ? path : "./prompt_cache.bin", "we");
    if (!file) {
        log_line('E', "failed to open prompt cache file %s for writing", path);
        return -1;
    }
    bool good = fwrite(&header, sizeof header, 1, file) == 1;
    size_t n = (size_t)kv->reusable;
    good = good && (!n || fwrite(kv->at, sizeof *kv->at, n, file) == n);
    if (good && sim->model.cache_sparse) good = fflush(file) == 0 && ftruncate(fileno(file), (off_t)total) == 0;
    else if (good) good = write_filling(file, total - used);
    good = fclose(file) == 0 && good;
    wait_transfer(sim, total, sim->model.pace.cache_save_mb_s);
    if (!good) log_line('E', "failed to write prompt cache file");
    return good ? 0 : -1;
}

static bool read_file(Sim *sim, FILE *file, Kv *kv, size_t *total) {
    Header header, wanted = header_of(sim, 0);
    struct stat status;
    if (fread(&header, sizeof header, 1, file) != 1 || fstat(fileno(file), &status) != 0) return false;
    wanted.n_tokens = header.n_tokens;
    *total = file_bytes(&header);
    if (memcmp(&header, &wanted, sizeof header) != 0 || (size_t)status.st_size != *total) return false;
    for (uint32_t i = 0; i < header.n_tokens; i++) {
        uint32_t hash;
        if (fread(&hash, sizeof hash, 1, file) != 1) return false;
        kv_put(kv, hash);
    }
    kv->reusable = kv->n;
    return kv->n <= sim->settings.max_context_len;
}

int cache_load(Sim *sim, const char *path) {
    if (!path || sim->cache_loaded) {
        log_line('E', path ? "a prompt cache is loaded already, release it first" : "no prompt cache path");
        return -1;
    }
    Kv kv = {0};
    size_t total = 0;
    FILE *file = fopen(path, "re");
    bool good = file && read_file(sim, file, &kv, &total);
    if (file) fclose(file);
    if (!good) {
        kv_free(&kv);
        log_line('E', "failed to load prompt cache file %s", path);
        return -1;
    }
    clock_begin(&sim->clock);
    wait_transfer(sim, total, sim->model.pace.cache_load_mb_s);
    clock_end(&sim->clock);
    sim->loaded = kv;
    sim->cache_loaded = true;
    for (int i = 0; sim->model.cache_replaces && i < sim->n_columns; i++) kv_cut(&sim->columns[i].kv, 0);
    return 0;
}

int cache_release(Sim *sim) {
    kv_free(&sim->loaded);
    sim->cache_loaded = false;
    return 0;
}

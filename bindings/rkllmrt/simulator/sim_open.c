/* From init to destroy, and the calls that change a session between runs. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Literals that others look for in the file: the real library carries the first two as well. */
__attribute__((used)) static const char MARKER[] = "rkllm-simulator: a simulation of librkllmrt.so, no NPU is used";

static bool driver_is_old(const char *version) {
    int major = 0, minor = 0, patch = 0;
    sscanf(version, "%d.%d.%d", &major, &minor, &patch);
    return major * 10000 + minor * 100 + patch < 907;
}

static void log_versions(const Sim *sim, const char *path) {
    log_line('I', "rkllm-runtime version: %s, rknpu driver version: %s, platform: %s", sim->release.version,
             sim->model.driver, sim->model.platform);
    if (driver_is_old(sim->model.driver))
        log_line('W', "Warning: Your rknpu driver version is too low, please upgrade to 0.9.7");
    if (sim->release.group >= 2) log_line('I', "loading rkllm model from %s", path);
}

static bool settings_fit(const Sim *sim) {
    const Settings *settings = &sim->settings;
    if (settings->max_context_len > sim->model.max_context) {
        log_line('E', "max_context[%d] must be less than the model's max_context_limit[%d]", settings->max_context_len,
                 sim->model.max_context);
        return false;
    }
    if (settings->max_context_len <= 0) {
        log_line('E', "max_context[%d] must be positive", settings->max_context_len);
        return false;
    }
    if (sim->release.group >= 2 && settings->cpus_num < sim->model.npu_core_num) {
        log_line('E', "The number of enabled CPUs must be greater than or equal to the number of NPU cores.");
        return false;
    }
    if (settings->n_batch < 1 || settings->n_batch > SIM_MAX_BATCH) {
        log_line('E', "The n_batch must be between 1 and 100, but got %d", settings->n_batch);
        return false;
    }
    if (settings->use_cross_attn && !sim->model.cross_attention)
        return log_line('E', "the model has no cross attention"), false;
    return true;
}

static bool load(Sim *sim, bool *null_handle) {
    char why[SIM_PATH + 320] = "no model path";
    const char *path = sim->settings.model_path;
    int64_t begin = now_ns();
    bool readable = path && model_read(&sim->model, path, why, sizeof why);
    log_versions(sim, path ? path : "(null)");
    if (!readable) return log_line('E', "%s", why), false;
    vocabulary_open(&sim->vocabulary, sim->model.vocab_size, sim->model.eos_text);
    log_banner(sim);
    if (!settings_fit(sim)) return false;
    Fault fault = rule_fault(&sim->model, ON_INIT, span(""), 0);
    fault_strike(&fault, &sim->clock);
    *null_handle = fault.kind == FAULT_NULL;
    bool too_large = sim->model.batch == BATCH_REFUSES && sim->settings.n_batch > 1;
    if (fault.kind == FAULT_FAIL || fault.kind == FAULT_ERROR || too_large) {
        printf("E RKNN: failed to malloc npu memory, size: %d, flags: 0x2\n", 536870912);
        return false;
    }
    clock_plain(&sim->clock, sim->model.pace.load_ms);
    sim->init_ms = (double)(now_ns() - begin) / 1e6;
    if (sim->clock.virtual_time) sim->init_ms = sim->model.pace.load_ms / sim->clock.speed;
    return true;
}

static void release(Sim *sim) {
    for (int i = 0; i < sim->n_columns; i++) {
        Column *column = &sim->columns[i];
        kv_free(&column->kv);
        text_free(&column->prompt);
        text_free(&column->answer);
        tokens_free(&column->tokens);
        free(column->input);
    }
    for (int i = 0; i < sim->n_loras; i++) free(sim->loras[i]);
    Text *texts[] = {&sim->system, &sim->prefix, &sim->postfix, &sim->tools, &sim->tool_mark, &sim->turn};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) text_free(texts[i]);
    kv_free(&sim->loaded);
    vocabulary_close(&sim->vocabulary);
    model_free(&sim->model);
    free(sim->columns);
    free(sim);
}

Sim *sim_open(const Release *about, const Settings *settings, const Client *client, void *adapter, bool *null_handle) {
    const char *level = getenv("RKLLM_LOG_LEVEL");
    Sim *sim = sim_alloc(sizeof *sim);
    sim->release = *about;
    sim->settings = *settings;
    sim->client = *client;
    sim->adapter = adapter;
    sim->log_level = level ? atoi(level) : 0;
    clock_setup(&sim->clock);
    if (!load(sim, null_handle) || *null_handle) {
        if (!*null_handle) log_line('E', "rkllm_init failed");
        release(sim);
        return NULL;
    }
    if (about->group == 1) sim->model.reuse = 0;
    sim->n_columns = settings->n_batch;
    sim->columns = sim_alloc((size_t)sim->n_columns * sizeof *sim->columns);
    return sim;
}

int sim_close(Sim *sim) {
    if (sim_busy(sim)) return -1;
    if (sim->thread_started) pthread_join(sim->thread, NULL);
    Fault fault = rule_fault(&sim->model, ON_DESTROY, span(""), sim->run_number);
    fault_strike(&fault, &sim->clock);
    release(sim);
    return 0;
}

int sim_clear(Sim *sim, int keep_system, const int *start, const int *end) {
    if (sim_busy(sim)) return -1;
    if (start || end) {
        if (!start || !end || !sim->paused || sim->paused_history) {
            log_line('E', "start_pos and end_pos are only valid when keep_history == 0 and the generation has been paused by "
                          "returning 1 in the callback!");
            return -1;
        }
        bool good = true;
        for (int i = 0; i < sim->n_columns; i++) good &= kv_remove(&sim->columns[i].kv, start[i], end[i]);
        return good ? 0 : -1;
    }
    for (int i = 0; i < sim->n_columns; i++) {
        Kv *kv = &sim->columns[i].kv;
        kv_cut(kv, keep_system ? kv->system_n : 0);
        if (kv->history) kv->history = kv->n;
        kv->reusable = 0; /* measured on 1.3.0: what is kept is computed again all the same */
    }
    sim->paused = false;
    return 0;
}

int sim_load_lora(Sim *sim, const char *path, const char *name) {
    FILE *file = path && name ? fopen(path, "re") : NULL;
    if (!file || sim->n_loras == SIM_MAX_LORA || sim_busy(sim)) {
        if (file) fclose(file);
        log_line('E', "failed to load lora adapter %s", path ? path : "(null)");
        return -1;
    }
    fclose(file);
    sim->loras[sim->n_loras++] = strdup(name);
    return 0;
}

/* Speeds of real models on an RK3588, and three artificial ones.
 *
 * Source of the rows: Rockchip's benchmark table (w8a8, prompt of 128 tokens, 64 new ones, clocks fixed at maximum):
 * time to first token and tokens per second. The table says nothing about other lengths; the shape chosen here is a
 * floor of 1.25 decode steps, a quadratic part of prefill that adds half at 4,096 tokens, and a decode that is 35 %
 * slower at 4,096 tokens of context.
 */
#include "sim.h"

#include <string.h>

typedef struct {
    const char *name;
    double ttft_ms, tokens_per_s, memory_mb;
    int vocab_size, embd_size, layers, kv_bytes, max_context, chat_template, thinking;
} Measured;

static const Measured MEASURED[] = {
    {"qwen2-0.5b", 145.90, 41.58, 670, 151936, 896, 24, 12288, 4096, TEMPLATE_CHATML, 0},
    {"qwen2.5-1.5b", 378.31, 16.69, 1689, 151936, 1536, 28, 28672, 4096, TEMPLATE_CHATML, 0},
    {"qwen3-0.6b", 199.09, 32.91, 791, 151936, 1024, 28, 114688, 4096, TEMPLATE_CHATML, 1},
    {"qwen3-vl-2b", 383.62, 14.98, 1869, 151936, 2048, 28, 114688, 4096, TEMPLATE_CHATML, 0},
    {"tinyllama-1.1b", 243.93, 24.43, 1094, 32000, 2048, 22, 22528, 2048, TEMPLATE_ZEPHYR, 0},
    {"gemma2-2b", 598.41, 10.37, 2779, 256000, 2304, 26, 106496, 4096, TEMPLATE_GEMMA, 0},
    {"minicpm4-0.5b", 135.29, 45.34, 535, 73448, 1024, 24, 12288, 4096, TEMPLATE_CHATML, 0},
    {"phi3-3.8b", 1017.28, 7.45, 3758, 32064, 3072, 32, 393216, 4096, TEMPLATE_PHI, 0},
    {"chatglm3-6b", 1352.94, 4.98, 5986, 65024, 4096, 28, 28672, 4096, TEMPLATE_NONE, 0},
};

static const struct {
    const char *name;
    Pace pace;
} ARTIFICIAL[] = {
    {"instant", {.thermal_factor = 1}},
    /* The pace at which other servers were measured: the same prefill whatever the prompt. */
    {"origin", {.floor_ms = 295, .decode_ms = 64.14, .batch_slope = 0.25, .thermal_factor = 1}},
    /* A third party's measurement of prefix reuse on an Orange Pi 5 Max with runtime 1.3.0. */
    {"cached-prefix", {.floor_ms = 97, .prefill_ms = 3.92, .decode_ms = 60, .batch_slope = 0.25, .thermal_factor = 1}},
};

enum { TABLE_PROMPT = 128, TABLE_CONTEXT = 160, FULL_CONTEXT = 4096 };

static Pace pace_of(const Measured *row) {
    double step = 1000 / row->tokens_per_s, slower = 0.35 / FULL_CONTEXT;
    Pace pace = {.floor_ms = 1.25 * step, .batch_slope = 0.25, .jitter = 0.015};
    pace.decode_ms = step / (1 + slower * TABLE_CONTEXT);
    pace.decode_slope_ms = pace.decode_ms * slower;
    double quad = 0.5 / FULL_CONTEXT;
    pace.prefill_ms = (row->ttft_ms - pace.floor_ms) / (TABLE_PROMPT + quad * TABLE_PROMPT * TABLE_PROMPT);
    pace.prefill_quad_ms = pace.prefill_ms * quad;
    pace.thermal_after_s = 300;
    pace.thermal_factor = 1.12;
    pace.load_ms = row->memory_mb / 0.5;
    pace.cache_save_mb_s = 150;
    pace.cache_load_mb_s = 400;
    return pace;
}

static void take_facts(Model *model, const Measured *row) {
    model->vocab_size = row->vocab_size;
    model->embd_size = row->embd_size;
    model->layers = row->layers;
    model->kv_bytes = row->kv_bytes;
    model->max_context = row->max_context;
    model->chat_template = row->chat_template;
    model->thinking = row->thinking;
    strcpy(model->eos_text, template_eos(row->chat_template));
}

bool profile_apply(Model *model, const char *name, bool only_pace) {
    for (size_t i = 0; i < sizeof ARTIFICIAL / sizeof *ARTIFICIAL; i++) {
        if (strcmp(name, ARTIFICIAL[i].name) != 0) continue;
        model->pace = ARTIFICIAL[i].pace;
        strcpy(model->profile, name);
        return true;
    }
    for (size_t i = 0; i < sizeof MEASURED / sizeof *MEASURED; i++) {
        if (strcmp(name, MEASURED[i].name) != 0) continue;
        model->pace = pace_of(&MEASURED[i]);
        if (!only_pace) take_facts(model, &MEASURED[i]);
        strcpy(model->profile, name);
        return true;
    }
    return false;
}

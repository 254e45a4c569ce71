/* Read a simulated model: a text file of `key: value` lines and rules. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KEY_TEXT, KEY_INT, KEY_NUMBER, KEY_SWITCH } KeyKind;

typedef struct {
    const char *name;
    KeyKind kind;
    size_t offset;
    double low, high;    /* KEY_INT and KEY_NUMBER; high of KEY_TEXT: room */
    const char *choices; /* KEY_SWITCH: names separated by '|', the index is the value */
} Key;

#define TEXT(key, member) {key, KEY_TEXT, offsetof(Model, member), 0, sizeof(((Model *)0)->member), NULL}
#define INT(key, member, low, high) {key, KEY_INT, offsetof(Model, member), low, high, NULL}
#define NUMBER(key, member, high) {key, KEY_NUMBER, offsetof(Model, pace.member), 0, high, NULL}
#define SWITCH(key, member, choices) {key, KEY_SWITCH, offsetof(Model, member), 0, 0, choices}

static const Key KEYS[] = {
    TEXT("name", name),
    TEXT("platform", platform),
    TEXT("dtype", dtype),
    TEXT("toolkit_version", toolkit),
    TEXT("driver_version", driver),
    TEXT("eos", eos_text),
    TEXT("fault_state", fault_state),
    INT("npu_core_num", npu_core_num, 1, 3),
    INT("max_context", max_context, 32, 1 << 20),
    INT("vocab_size", vocab_size, 128, 1 << 20),
    INT("embd_size", embd_size, 1, 1 << 16),
    INT("layers", layers, 1, 1000),
    INT("kv_bytes_per_token", kv_bytes, 4, 1 << 24),
    INT("reuse_granularity", granularity, 1, 1 << 16),
    INT("fail_after_abort", fail_after_abort, 0, 1 << 20),
    NUMBER("floor_ms", floor_ms, 1e9),
    NUMBER("prefill_ms_per_token", prefill_ms, 1e6),
    NUMBER("prefill_ms_per_token_squared", prefill_quad_ms, 1e6),
    NUMBER("decode_ms_per_token", decode_ms, 1e6),
    NUMBER("decode_ms_per_context_token", decode_slope_ms, 1e6),
    NUMBER("batch_slope", batch_slope, 100),
    NUMBER("jitter", jitter, 1),
    NUMBER("thermal_after_s", thermal_after_s, 1e9),
    NUMBER("thermal_factor", thermal_factor, 100),
    NUMBER("load_ms", load_ms, 1e9),
    NUMBER("cache_save_mb_s", cache_save_mb_s, 1e9),
    NUMBER("cache_load_mb_s", cache_load_mb_s, 1e9),
    SWITCH("template", chat_template, "none|chatml|llama3|gemma|phi|zephyr"),
    SWITCH("thinking", thinking, "no|yes"),
    SWITCH("tokenizer", tokenizer, "none|internal"),
    SWITCH("embedding", embedding, "none|internal"),
    SWITCH("cross_attention", cross_attention, "no|yes"),
    SWITCH("eos_text", eos_as_text, "null|text"),
    SWITCH("split_utf8", split_raw, "waiting|raw"),
    SWITCH("joins", joins_unstable, "stable|unstable"),
    SWITCH("reuse", reuse, "no|yes"),
    SWITCH("reuse_generated", reuse_generated, "no|yes"),
    SWITCH("reuse_aborted", reuse_aborted, "no|yes"),
    SWITCH("modes_reuse", modes_reuse, "no|yes"),
    SWITCH("cache_load_replaces", cache_replaces, "no|yes"),
    SWITCH("cache_stays", cache_stays, "no|yes"),
    SWITCH("batch", batch, "works|asserts|refuses"),
    SWITCH("aborted_run_saves", aborted_saves, "no|yes"),
    SWITCH("cache_file", cache_sparse, "full|sparse"),
    SWITCH("late_events", late_events, "no|yes"),
    SWITCH("stop_at_think_end", stop_at_think_end, "no|yes"),
};

static bool set_number(Model *model, const Key *key, const char *value) {
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end || !(number >= key->low && number <= key->high)) return false;
    char *place = (char *)model + key->offset;
    if (key->kind == KEY_NUMBER) *(double *)place = number;
    else if (number != (int)number) return false;
    else *(int *)place = (int)number;
    return true;
}

static bool set_switch(Model *model, const Key *key, const char *value) {
    size_t len = strlen(value);
    int index = 0;
    for (const char *at = key->choices; at; at = strchr(at, '|'), index++) {
        at += *at == '|';
        if (strncmp(at, value, len) == 0 && (at[len] == '|' || !at[len]) && len) {
            *(int *)((char *)model + key->offset) = index;
            return true;
        }
    }
    return false;
}

static bool set_key(Model *model, const char *name, const char *value, char *why, size_t room) {
    if (strcmp(name, "profile") == 0) {
        if (profile_apply(model, value, false)) return true;
        return snprintf(why, room, "unknown profile '%.40s'", value), false;
    }
    for (const Key *key = KEYS; key < KEYS + sizeof KEYS / sizeof *KEYS; key++) {
        if (strcmp(name, key->name) != 0) continue;
        bool good;
        if (key->kind == KEY_SWITCH) good = set_switch(model, key, value);
        else if (key->kind == KEY_TEXT) good = *value && strlen(value) < (size_t)key->high;
        else good = set_number(model, key, value);
        if (good && key->kind == KEY_TEXT) strcpy((char *)model + key->offset, value);
        /* The end-of-text mark follows the template unless the file says otherwise afterwards. */
        if (good && strcmp(name, "template") == 0) strcpy(model->eos_text, template_eos(model->chat_template));
        if (!good && key->choices) snprintf(why, room, "'%s' is one of %s, not '%.40s'", name, key->choices, value);
        else if (!good) snprintf(why, room, "'%s' cannot be '%.40s'", name, value);
        return good;
    }
    return snprintf(why, room, "unknown key '%.40s'", name), false;
}

static bool is_rule(const char *line) {
    static const char *const WORDS[] = {"when ", "on ", "every ", "always"};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strncmp(line, WORDS[i], strlen(WORDS[i])) == 0) return true;
    return false;
}

static bool read_line(Model *model, char *line, char *why, size_t room) {
    Span trimmed = span_trim((Span){line, strlen(line)});
    line += trimmed.at - line;
    line[trimmed.len] = '\0';
    if (!*line || *line == '#') return true;
    if (is_rule(line)) {
        model->rules = sim_grow(model->rules, (size_t)(model->n_rules + 1) * sizeof *model->rules);
        return rule_parse(line, &model->rules[model->n_rules++], why, room);
    }
    char *colon = strchr(line, ':');
    if (!colon) return snprintf(why, room, "expected 'key: value' or a rule"), false;
    *colon = '\0';
    Span value = span_trim(span(colon + 1));
    colon[1 + (value.at - colon - 1) + (long)value.len] = '\0';
    return set_key(model, line, value.at, why, room);
}

static void set_defaults(Model *model) {
    *model = (Model){
        .name = "simulated", .platform = "RK3588", .dtype = "W8A8", .toolkit = "", .driver = "0.9.8",
        .npu_core_num = 3, .max_context = 4096, .vocab_size = 151936, .embd_size = 1536, .layers = 28,
        .kv_bytes = 28672, .chat_template = TEMPLATE_CHATML, .tokenizer = 1, .embedding = 1,
        .joins_unstable = 1, .granularity = 1, .reuse = 1, .reuse_generated = 1, .reuse_aborted = 1, .cache_stays = 1,
        .cache_replaces = 1,
    };
    strcpy(model->eos_text, template_eos(model->chat_template));
    profile_apply(model, "instant", true);
}

static bool read_lines(Model *model, FILE *file, const char *path, char *why, size_t room) {
    char *line = NULL, reason[256];
    size_t cap = 0;
    int number = 0;
    bool good = true;
    while (good && getline(&line, &cap, file) >= 0) {
        line[strcspn(line, "\r\n")] = '\0';
        number++;
        good = number == 1 ? strcmp(line, "rkllm-simulator 1") == 0 : read_line(model, line, reason, sizeof reason);
        if (!good && number == 1) snprintf(why, room, "%s: unsupported model file", path);
        else if (!good) snprintf(why, room, "%s:%d: %s", path, number, reason);
    }
    free(line);
    if (number == 0) snprintf(why, room, "%s: the model file is empty", path);
    return good && number > 0;
}

/* A relative fault_state lies beside the model file. */
static void place_state_file(Model *model, const char *path) {
    const char *slash = strrchr(path, '/');
    char name[SIM_PATH];
    if (!model->fault_state[0] || model->fault_state[0] == '/' || !slash) return;
    strcpy(name, model->fault_state);
    int folder = (int)(slash - path);
    if (folder + 1 + strlen(name) < sizeof model->fault_state)
        snprintf(model->fault_state, sizeof model->fault_state, "%.*s/%.*s", folder, path, SIM_PATH - folder - 2, name);
}

bool model_read(Model *model, const char *path, char *why, size_t room) {
    set_defaults(model);
    FILE *file = fopen(path, "re");
    if (!file) return snprintf(why, room, "failed to open model file %s", path), false;
    bool good = read_lines(model, file, path, why, room);
    fclose(file);
    const char *profile = getenv("RKLLM_SIM_PROFILE");
    if (good && profile && *profile && !profile_apply(model, profile, true)) {
        snprintf(why, room, "RKLLM_SIM_PROFILE: unknown profile '%.40s'", profile);
        good = false;
    }
    place_state_file(model, path);
    uint32_t facts[] = {(uint32_t)model->vocab_size, (uint32_t)model->layers, (uint32_t)model->kv_bytes};
    model->fingerprint = sim_hash(facts, sizeof facts, sim_hash(model->name, strlen(model->name), 0));
    return good;
}

void model_free(Model *model) {
    for (int i = 0; i < model->n_rules; i++) {
        free(model->rules[i].phrase);
        free(model->rules[i].reply);
    }
    free(model->rules);
    model->rules = NULL;
    model->n_rules = 0;
}

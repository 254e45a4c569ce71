/* Drives one library through its C interface by a script on the command line; compiled once per ABI group.
 *
 *     driver LIBRARY MODEL word argument... word argument...
 *
 * Every callback and every return value becomes one JSON line on the descriptor EVENTS_FD, written at once, so that nothing
 * is lost when the library ends the process. Texts are in hexadecimal: they may be no valid UTF-8.
 */
#include "rkllm_abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int events_fd = 3;
static void *library;
static LLMHandle handle;
static RKLLMParam param;
static RKLLMInferParam infer;
__attribute__((unused)) static const char *role = "user";
__attribute__((unused)) static int thinking;
static int abort_after = -1, pause_after = -1, n_columns = 1, seen, quiet;
static long counted;
static int tokenizer_wanted, embed_wanted;

#define CALL(name) ((__typeof__(&name))dlsym(library, #name))

static void say(const char *format, ...) {
    char line[8192];
    __builtin_va_list arguments;
    __builtin_va_start(arguments, format);
    int n = vsnprintf(line, sizeof line - 1, format, arguments);
    __builtin_va_end(arguments);
    line[n++] = '\n';
    if (write(events_fd, line, (size_t)n) != n) _exit(90);
}

static const char *hex(const char *text, char *out) {
    if (!text) return "null";
    char *at = out;
    *at++ = '"';
    for (; *text; text++) at += sprintf(at, "%02x", (unsigned char)*text);
    strcpy(at, "\"");
    return out;
}

static const char *state_name(int state) {
    static const char *const NAMES[] = {"normal", "waiting", "finish", "error", "hidden"};
    return NAMES[state];
}

static int tell(RKLLMResult *results, void *userdata, int state) {
    char text[512];
    if (quiet) return counted += state == RKLLM_RUN_NORMAL, 0;
    for (int i = 0; i < n_columns && state != RKLLM_RUN_FINISH && state != RKLLM_RUN_ERROR; i++) {
        RKLLMResult *r = &results[i];
        say("{\"event\": \"%s\", \"column\": %d, \"text\": %s, \"id\": %d, \"user\": %ld, \"rows\": %d, \"size\": %d, \"first\": %.6f}",
            state_name(state), i, hex(r->text, text), r->token_id, (long)userdata, r->last_hidden_layer.num_tokens,
            r->last_hidden_layer.embd_size, r->last_hidden_layer.hidden_states ? (double)r->last_hidden_layer.hidden_states[0] : 0.0);
#if RKLLM_ABI_GROUP >= 2
        const RKLLMResultLogits *l = &r->logits;
        if (l->logits) {
            const float *row = l->logits + (size_t)(l->num_tokens - 1) * (size_t)l->vocab_size;
            int best = 0;
            for (int k = 0; k < l->vocab_size; k++) best = row[k] > row[best] ? k : best;
            say("{\"event\": \"logits\", \"rows\": %d, \"size\": %d, \"best\": %d}", l->num_tokens, l->vocab_size, best);
        }
#endif
    }
    if (state == RKLLM_RUN_ERROR) say("{\"event\": \"error\"}");
    if (state == RKLLM_RUN_FINISH) {
#if RKLLM_ABI_GROUP >= 4
        RKLLMPerfStat *p = &results[0].perf;
        say("{\"event\": \"finish\", \"prefill_ms\": %f, \"prefill_tokens\": %d, \"generate_ms\": %f, \"generate_tokens\": %d, \"mb\": %f}",
            (double)p->prefill_time_ms, p->prefill_tokens, (double)p->generate_time_ms, p->generate_tokens, (double)p->memory_usage_mb);
#else
        say("{\"event\": \"finish\"}");
#endif
    }
    if (state <= RKLLM_RUN_WAITING) seen++;
    if (state == RKLLM_RUN_NORMAL && seen == abort_after) say("{\"event\": \"aborting\", \"status\": %d}", CALL(rkllm_abort)(handle));
    return state == RKLLM_RUN_NORMAL && seen == pause_after;
}

#if RKLLM_ABI_GROUP >= 4
static int callback(RKLLMResult *results, void *userdata, LLMCallState state) { return tell(results, userdata, (int)state); }
#else
static void callback(RKLLMResult *results, void *userdata, LLMCallState state) { (void)tell(results, userdata, (int)state); }
#endif

#if RKLLM_ABI_GROUP >= 5
static int tokenize(void *userdata, const char *text, int32_t length, int32_t *tokens, int32_t room) {
    int n = 0;
    for (; n < length && n < room; n++) tokens[n] = (unsigned char)text[n];
    say("{\"event\": \"tokenize\", \"user\": %ld, \"n\": %d}", (long)userdata, n);
    return n;
}

static int embed(void *userdata, int32_t *tokens, uint64_t n, void *rows, uint64_t bytes) {
    memset(rows, 0, bytes);
    say("{\"event\": \"embed\", \"user\": %ld, \"n\": %d, \"bytes\": %d, \"first\": %d}", (long)userdata, (int)n, (int)bytes, tokens[0]);
    return 0;
}
#endif

static int init(void) {
#if RKLLM_ABI_GROUP >= 5
    RKLLMCallback all = {.result_callback = callback, .result_userdata = (void *)7L};
    if (tokenizer_wanted) all.tokenizer_callback = tokenize, all.tokenizer_userdata = (void *)8L;
    if (embed_wanted) all.embed_callback = embed, all.embed_userdata = (void *)9L;
    return CALL(rkllm_init)(&handle, &param, &all);
#else
    return CALL(rkllm_init)(&handle, &param, callback);
#endif
}

static void *abort_later(void *milliseconds) {
    long ms = (long)milliseconds;
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
    say("{\"event\": \"aborting\", \"status\": %d}", CALL(rkllm_abort)(handle));
    return NULL;
}

static void run(RKLLMInput *inputs, long userdata) {
    seen = 0;
    int status = CALL(rkllm_run)(handle, inputs, &infer, (void *)userdata);
    say("{\"event\": \"run\", \"status\": %d}", status);
    abort_after = pause_after = -1;
}

static RKLLMInput blank(RKLLMInputType type) {
    RKLLMInput input;
    memset(&input, 0, sizeof input);
    input.input_type = type;
#if RKLLM_ABI_GROUP >= 4
    input.role = role;
    input.enable_thinking = thinking;
#endif
    return input;
}

static void run_prompts(const char *text, long userdata) {
    RKLLMInput inputs[100];
    char *copy = strdup(text), *at = copy;
    for (int i = 0; i < n_columns; i++) {
        inputs[i] = blank(RKLLM_INPUT_PROMPT);
        inputs[i].prompt_input = n_columns > 1 ? strsep(&at, "|") : copy;
    }
    run(inputs, userdata);
    free(copy);
}

static void run_ids(const char *list) {
    static int32_t ids[4096];
    RKLLMInput input = blank(RKLLM_INPUT_TOKEN);
    size_t n = 0;
    for (char *end; *list; list = *end ? end + 1 : end) ids[n++] = (int32_t)strtol(list, &end, 10);
    input.token_input = (RKLLMTokenInput){ids, n};
    run(&input, 0);
}

static void run_rows(long n, long size) {
    RKLLMInput input = blank(RKLLM_INPUT_EMBED);
    float *rows = malloc((size_t)(n * size) * sizeof *rows);
    for (long i = 0; i < n * size; i++) rows[i] = (float)i / 10;
    input.embed_input = (RKLLMEmbedInput){rows, (size_t)n};
    run(&input, 0);
    free(rows);
}

static void run_image(const char *text, long items, long size) {
    enum { TOKENS = 6 };
    RKLLMInput input = blank(RKLLM_INPUT_MULTIMODAL);
    float *rows = calloc((size_t)(items * TOKENS * size), sizeof *rows);
    char *copy = strdup(text);
    input.multimodal_input.prompt = copy;
#if RKLLM_ABI_GROUP >= 5
    input.multimodal_input.image.image_embed = rows;
    input.multimodal_input.image.n_image_tokens = TOKENS;
    input.multimodal_input.image.n_image = (size_t)items;
#else
    input.multimodal_input.image_embed = rows;
    input.multimodal_input.n_image_tokens = TOKENS;
#if RKLLM_ABI_GROUP >= 3
    input.multimodal_input.n_image = (size_t)items;
#endif
#endif
    run(&input, 0);
    free(rows);
    free(copy);
}

static void run_async(const char *text) {
    static RKLLMInput input;
    input = blank(RKLLM_INPUT_PROMPT);
    input.prompt_input = text;
    say("{\"event\": \"started\", \"status\": %d}", CALL(rkllm_run_async)(handle, &input, &infer, NULL));
    say("{\"event\": \"running\", \"status\": %d}", CALL(rkllm_is_running)(handle));
    while (CALL(rkllm_is_running)(handle) == 1) sched_yield();
}

static void load_lora(const char *path) {
    RKLLMLoraAdapter adapter = {.lora_adapter_path = path, .lora_adapter_name = "mine", .scale = 1};
    say("{\"event\": \"lora\", \"status\": %d}", CALL(rkllm_load_lora)(handle, &adapter));
}

static void save_to(const char *path) {
    static RKLLMPromptCacheParam cache;
    cache = (RKLLMPromptCacheParam){.save_prompt_cache = 1, .prompt_cache_path = path};
    infer.prompt_cache_params = &cache;
}

static void use_lora(const char *name) {
    static RKLLMLoraParam lora;
    lora.lora_adapter_name = name;
    infer.lora_params = *name ? &lora : NULL;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure(const char *text) {
    quiet = 1;
    counted = 0;
    double begin = seconds();
    RKLLMInput input = blank(RKLLM_INPUT_PROMPT);
    input.prompt_input = text;
    CALL(rkllm_run)(handle, &input, &infer, NULL);
    quiet = 0;
    say("{\"event\": \"rate\", \"tokens\": %ld, \"seconds\": %f}", counted, seconds() - begin);
}

/* ---- the words of a script; each returns how many arguments it took, -1 for a word it does not know ---- */
static int before_init(const char *word, char **a) {
    if (!strcmp(word, "context")) return param.max_context_len = atoi(a[0]), 1;
    if (!strcmp(word, "max")) return param.max_new_tokens = atoi(a[0]), 1;
    if (!strcmp(word, "special")) return param.skip_special_token = !atoi(a[0]), 1;
    if (!strcmp(word, "callbacks")) return tokenizer_wanted = embed_wanted = 1, 0;
#if RKLLM_ABI_GROUP <= 4
    if (!strcmp(word, "no-tags")) return param.img_start = NULL, 0;
#else
    if (!strcmp(word, "ignore-eos")) return param.ignore_eos_token = true, 0;
#endif
#if RKLLM_ABI_GROUP >= 2
    if (!strcmp(word, "keep")) return param.n_keep = atoi(a[0]), 1;
    if (!strcmp(word, "cpus")) return param.extend_param.enabled_cpus_num = (int8_t)atoi(a[0]), 1;
#endif
#if RKLLM_ABI_GROUP >= 4
    if (!strcmp(word, "batch")) return param.extend_param.n_batch = (uint8_t)(n_columns = atoi(a[0])), 1;
    if (!strcmp(word, "cross")) return param.extend_param.use_cross_attn = 1, 0;
#endif
    return -1;
}

static int of_group(const char *word, char **a) {
#if RKLLM_ABI_GROUP >= 2
    if (!strcmp(word, "history")) return infer.keep_history = atoi(a[0]), 1;
    if (!strcmp(word, "template")) {
        say("{\"event\": \"template\", \"status\": %d}", CALL(rkllm_set_chat_template)(handle, a[0], a[1], a[2]));
        return 3;
    }
#endif
#if RKLLM_ABI_GROUP == 2 || RKLLM_ABI_GROUP == 3
    if (!strcmp(word, "clear")) return say("{\"event\": \"clear\", \"status\": %d}", CALL(rkllm_clear_kv_cache)(handle, atoi(a[0]))), 1;
#elif RKLLM_ABI_GROUP >= 4
    int sizes[100] = {0}, from[100], to[100];
    if (!strcmp(word, "clear"))
        return say("{\"event\": \"clear\", \"status\": %d}", CALL(rkllm_clear_kv_cache)(handle, atoi(a[0]), NULL, NULL)), 1;
    if (!strcmp(word, "range")) {
        for (int i = 0; i < 100; i++) from[i] = atoi(a[0]), to[i] = atoi(a[1]);
        return say("{\"event\": \"range\", \"status\": %d}", CALL(rkllm_clear_kv_cache)(handle, 0, from, to)), 2;
    }
    if (!strcmp(word, "size")) {
        CALL(rkllm_get_kv_cache_size)(handle, sizes);
        return say("{\"event\": \"size\", \"n\": %d}", sizes[0]), 0;
    }
    if (!strcmp(word, "tools"))
        return say("{\"event\": \"tools\", \"status\": %d}", CALL(rkllm_set_function_tools)(handle, "", a[0], "tool_response")), 1;
    if (!strcmp(word, "attend")) {
        float numbers[4] = {0};
        int32_t positions[1] = {0};
        RKLLMCrossAttnParam given = {numbers, numbers, numbers, positions, 1};
        return say("{\"event\": \"attend\", \"status\": %d}", CALL(rkllm_set_cross_attn_params)(handle, &given)), 0;
    }
    if (!strcmp(word, "role")) return role = a[0], 1;
    if (!strcmp(word, "think")) return thinking = atoi(a[0]), 1;
#endif
#if RKLLM_ABI_GROUP >= 5
    if (!strcmp(word, "run-max")) return infer.max_new_tokens = atoi(a[0]), 1;
#endif
    (void)word, (void)a;
    return -1;
}

static int after_init(const char *word, char **a) {
    pthread_t thread;
    if (!strcmp(word, "run")) return run_prompts(a[0], 0), 1;
    if (!strcmp(word, "run-as")) return run_prompts(a[1], atol(a[0])), 2;
    if (!strcmp(word, "async")) return run_async(a[0]), 1;
    if (!strcmp(word, "ids")) return run_ids(a[0]), 1;
    if (!strcmp(word, "rows")) return run_rows(atol(a[0]), atol(a[1])), 2;
    if (!strcmp(word, "image")) return run_image(a[0], atol(a[1]), atol(a[2])), 3;
    if (!strcmp(word, "measure")) return measure(a[0]), 1;
    if (!strcmp(word, "mode")) return infer.mode = (RKLLMInferMode)atoi(a[0]), 1;
    if (!strcmp(word, "abort-after")) return abort_after = atoi(a[0]), 1;
    if (!strcmp(word, "pause-after")) return pause_after = atoi(a[0]), 1;
    if (!strcmp(word, "save")) return save_to(a[0]), 1;
    if (!strcmp(word, "lora")) return load_lora(a[0]), 1;
    if (!strcmp(word, "use-lora")) return use_lora(a[0]), 1;
    if (!strcmp(word, "abort-in")) return pthread_create(&thread, NULL, abort_later, (void *)atol(a[0])), pthread_detach(thread), 1;
    if (!strcmp(word, "load")) return say("{\"event\": \"load\", \"status\": %d}", CALL(rkllm_load_prompt_cache)(handle, a[0])), 1;
    if (!strcmp(word, "release")) return say("{\"event\": \"release\", \"status\": %d}", CALL(rkllm_release_prompt_cache)(handle)), 0;
    if (!strcmp(word, "abort")) return say("{\"event\": \"aborting\", \"status\": %d}", CALL(rkllm_abort)(handle)), 0;
    return of_group(word, a);
}

int main(int argc, char **argv) {
    int at = 3, taken = 0;
    if (getenv("EVENTS_FD")) events_fd = atoi(getenv("EVENTS_FD"));
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) return fputs(dlerror(), stderr), 91;
    param = CALL(rkllm_createDefaultParam)();
    param.model_path = argv[2];
    for (; at < argc && (taken = before_init(argv[at], argv + at + 1)) >= 0; at += 1 + taken) {
    }
    int status = init();
    say("{\"event\": \"init\", \"status\": %d, \"null\": %s}", status, handle ? "false" : "true");
    for (; status == 0 && handle && at < argc; at += 1 + taken)
        if ((taken = after_init(argv[at], argv + at + 1)) < 0) return fprintf(stderr, "unknown word %s\n", argv[at]), 92;
    if (status == 0 && handle) say("{\"event\": \"destroy\", \"status\": %d}", CALL(rkllm_destroy)(handle));
    return 0;
}

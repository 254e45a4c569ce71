/* A library with the runtime's interface that writes down what it is given and plays events from a script.
 *
 * Compiled by the tests against the simulator's header, with
 *   -DRKLLM_ABI_GROUP=1..6   the layout
 *   -DSKEWED_DEFAULTS        defaults that are not the documented ones
 *
 * The script: t token, T token even after an abort (the step in progress), n token with NULL text, w part of a character, u foreign (late) event, f FINISH, e ERROR,
 * h hidden states, l logits, k ask the tokenizer, b ask for embeddings, . wait for `recorder_go`.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "rkllm_abi.h"

#define OPEN __attribute__((visibility("default")))

OPEN char recorder_log[65536];
OPEN char recorder_script[256] = "ttf";
OPEN int recorder_init_status, recorder_init_null, recorder_run_status, recorder_call_status;
OPEN int recorder_batch = 1, recorder_aborts, recorder_answers[64], recorder_answered;
OPEN int recorder_abort_waits;
OPEN sem_t recorder_waits, recorder_go, recorder_go_abort;

/* The place of the version string; the tests write it into the file. */
OPEN const char recorder_stated[] = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

static int handle_object;
static atomic_int aborted;
static void *first_userdata;

__attribute__((constructor)) static void prepare(void) {
    sem_init(&recorder_waits, 0, 0);
    sem_init(&recorder_go, 0, 0);
    sem_init(&recorder_go_abort, 0, 0);
}

static void record(const char *format, ...) {
    size_t used = strlen(recorder_log);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(recorder_log + used, sizeof recorder_log - used, format, arguments);
    va_end(arguments);
}

static const char *shown(const char *string) { return string ? string : "NULL"; }

#define INT(struct_, field) record(#field "=%lld\n", (long long)(struct_)->field)
#define FLOAT(struct_, field) record(#field "=%.6g\n", (double)(struct_)->field)
#define STRING(struct_, field) record(#field "=%s\n", shown((struct_)->field))

RKLLMParam rkllm_createDefaultParam(void) {
    RKLLMParam param;
    memset(&param, 0xA5, sizeof param); /* the real one does not clear reserved either */
    param.model_path = NULL;
    param.max_context_len = 512;
    param.max_new_tokens = -1;
    param.top_k = 40;
    param.top_p = 0.9f;
    param.temperature = 0.8f;
    param.repeat_penalty = 1.1f;
    param.frequency_penalty = param.presence_penalty = 0;
    param.mirostat = 0;
    param.mirostat_tau = 5;
    param.mirostat_eta = 0.1f;
    param.skip_special_token = true;
    param.is_async = false;
    param.extend_param.base_domain_id = 0;
#if RKLLM_ABI_GROUP <= 4
    param.img_start = param.img_end = param.img_content = "";
#endif
#if RKLLM_ABI_GROUP >= 2
    param.n_keep = -1;
    param.extend_param.embed_flash = 1;
    param.extend_param.enabled_cpus_num = 4;
#endif
#if RKLLM_ABI_GROUP >= 4
    param.extend_param.n_batch = 1;
    param.extend_param.use_cross_attn = 0;
#endif
#if RKLLM_ABI_GROUP >= 5
    param.ignore_eos_token = false;
#endif
#ifdef SKEWED_DEFAULTS
    param.top_p = 0.5f;
#endif
    return param;
}

static LLMResultCallback on_result;
#if RKLLM_ABI_GROUP >= 5
static RKLLMCallback callbacks;

int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    callbacks = *callback;
    on_result = callback->result_callback;
    record("tokenizer=%d\nembedder=%d\n", callback->tokenizer_callback != NULL, callback->embed_callback != NULL);
#else
int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
    on_result = callback;
#endif
    STRING(param, model_path);
    INT(param, max_context_len);
    INT(param, max_new_tokens);
    INT(param, top_k);
    FLOAT(param, top_p);
    FLOAT(param, temperature);
    FLOAT(param, repeat_penalty);
    FLOAT(param, frequency_penalty);
    FLOAT(param, presence_penalty);
    INT(param, mirostat);
    FLOAT(param, mirostat_tau);
    FLOAT(param, mirostat_eta);
    INT(param, skip_special_token);
    INT(param, is_async);
    INT(&param->extend_param, base_domain_id);
#if RKLLM_ABI_GROUP <= 4
    STRING(param, img_start);
    STRING(param, img_end);
    STRING(param, img_content);
#endif
#if RKLLM_ABI_GROUP >= 2
    INT(param, n_keep);
    INT(&param->extend_param, embed_flash);
    INT(&param->extend_param, enabled_cpus_num);
    INT(&param->extend_param, enabled_cpus_mask);
#endif
#if RKLLM_ABI_GROUP >= 4
    INT(&param->extend_param, n_batch);
    INT(&param->extend_param, use_cross_attn);
    recorder_batch = param->extend_param.n_batch;
#endif
#if RKLLM_ABI_GROUP >= 5
    INT(param, ignore_eos_token);
#endif
    record("reserved=%02x\n", param->extend_param.reserved[50]);
    if (recorder_init_status == 0 && !recorder_init_null)
        *handle = &handle_object;
    return recorder_init_status;
}

static void record_input(const RKLLMInput *input) {
#if RKLLM_ABI_GROUP >= 4
    STRING(input, role);
    INT(input, enable_thinking);
#endif
    INT(input, input_type);
    if (input->input_type == RKLLM_INPUT_PROMPT)
        STRING(input, prompt_input);
    if (input->input_type == RKLLM_INPUT_TOKEN)
        for (size_t i = 0; i < input->token_input.n_tokens; i++)
            record("id=%d\n", input->token_input.input_ids[i]);
    if (input->input_type == RKLLM_INPUT_EMBED)
        record("embed=%zu:%g\n", input->embed_input.n_tokens, (double)input->embed_input.embed[1]);
    if (input->input_type != RKLLM_INPUT_MULTIMODAL)
        return;
    const RKLLMMultiModalInput *many = &input->multimodal_input;
    STRING(many, prompt);
#if RKLLM_ABI_GROUP <= 4
    record("image=%zu:%g\n", many->n_image_tokens, (double)many->image_embed[1]);
#if RKLLM_ABI_GROUP >= 3
    record("images=%zu of %zux%zu\n", many->n_image, many->image_width, many->image_height);
#endif
#else
    if (many->image.n_image)
        record("image=%zu:%g\n", many->image.n_image_tokens, (double)many->image.image_embed[1]);
    record("images=%zu of %zux%zu\n", many->image.n_image, many->image.image_width, many->image.image_height);
    record("tags=%s|%s|%s\n", many->image.image_start, many->image.image_end, many->image.image_content);
    record("video_tags=%s|%s|%s\n", many->video.video_start, many->video.video_end, many->video.video_content);
    if (many->video.n_video)
        record("video=%zu:%zu:%zu:%g of %zux%zu\n", many->video.n_frame_tokens, many->video.n_frame_per_video,
               many->video.n_video, (double)many->video.video_embed[1], many->video.frame_width,
               many->video.frame_height);
#endif
#if RKLLM_ABI_GROUP >= 6
    record("audio_tags=%s|%s|%s\n", many->audio.audio_start, many->audio.audio_end, many->audio.audio_content);
    if (many->audio.n_audio)
        record("audio=%zu:%zu:%g\n", many->audio.n_audio_tokens, many->audio.n_audio,
               (double)many->audio.audio_embed[1]);
#endif
}

static void record_infer(const RKLLMInferParam *infer) {
    INT(infer, mode);
    if (infer->lora_params)
        STRING(infer->lora_params, lora_adapter_name);
    if (infer->prompt_cache_params) {
        INT(infer->prompt_cache_params, save_prompt_cache);
        FILE *file = fopen(infer->prompt_cache_params->prompt_cache_path, "w");
        if (file)
            fclose(file);
    }
#if RKLLM_ABI_GROUP >= 2
    INT(infer, keep_history);
#endif
#if RKLLM_ABI_GROUP >= 5
    record("run_max_new_tokens=%d\n", infer->max_new_tokens);
    if (infer->sampling_params)
        record("sampling=%d %.6g %.6g %.6g %.6g %.6g %d %.6g %.6g\n", infer->sampling_params->top_k,
               (double)infer->sampling_params->top_p, (double)infer->sampling_params->temperature,
               (double)infer->sampling_params->repeat_penalty, (double)infer->sampling_params->frequency_penalty,
               (double)infer->sampling_params->presence_penalty, infer->sampling_params->mirostat,
               (double)infer->sampling_params->mirostat_tau, (double)infer->sampling_params->mirostat_eta);
#endif
}

/* One event to the caller; its answer, 0 where the release has none. */
static int tell(RKLLMResult *result, void *userdata, int state) {
    int answer = 0;
#if RKLLM_ABI_GROUP >= 4
    answer = on_result(result, userdata, (LLMCallState)state);
#else
    on_result(result, userdata, (LLMCallState)state);
#endif
    if (recorder_answered < 64)
        recorder_answers[recorder_answered++] = answer;
    return answer;
}

#if RKLLM_ABI_GROUP >= 5
static void ask_tokenizer(void) {
    int32_t ids[4] = {-7, -7, -7, -7};
    int count = callbacks.tokenizer_callback(callbacks.tokenizer_userdata, "Z\xc3\xbcrich!", 7, ids, 4);
    record("tokens=%d:%d,%d\n", count, ids[0], ids[1]);
}

static void ask_embedder(void) {
    int32_t ids[2] = {11, 12};
    float rows[6] = {0};
    int status = callbacks.embed_callback(callbacks.embed_userdata, ids, 2, rows, sizeof rows);
    record("rows=%d:%g,%g\n", status, (double)rows[0], (double)rows[5]);
}
#endif

static int play(char event, void *userdata, int number) {
    static float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const char *const texts[] = {"zero", "one", "two", "three", "four", "five", "six"};
    static RKLLMResult buffers[2][8]; /* used in turn: a result does not always lie at the same place */
    RKLLMResult *results = buffers[number % 2];
    memset(results, 0, sizeof buffers[0]);
    for (int i = 0; i < 8; i++) {
        results[i].text = event == 't' || event == 'T' ? texts[(number + i) % 7] : NULL;
        results[i].token_id = event == 'n' && recorder_batch > 1 ? -1 : number + 100 * i;
    }
    RKLLMResultLastHiddenLayer hidden = {numbers, 3, 2};
    if (event == 'h') {
        results[0].last_hidden_layer = hidden;
        return tell(results, userdata, RKLLM_ABI_GROUP == 1 ? 4 : RKLLM_RUN_NORMAL);
    }
#if RKLLM_ABI_GROUP >= 2
    if (event == 'l') {
        RKLLMResultLogits logits = {numbers, 4, 3};
        results[0].logits = logits;
        return tell(results, userdata, RKLLM_RUN_NORMAL);
    }
#endif
#if RKLLM_ABI_GROUP >= 4
    if (event == 'f') {
        RKLLMPerfStat perf = {1.5f, 7, 2.5f, 9, 3.5f};
        results[0].perf = perf;
        results[0].text = (const char *)1; /* undefined at FINISH: reading it would crash */
    }
#endif
#if RKLLM_ABI_GROUP >= 5
    if (event == 'k' || event == 'b') {
        event == 'k' ? ask_tokenizer() : ask_embedder();
        return 0;
    }
#endif
    if (event == 'w')
        results[0].text = (const char *)1; /* bytes that are no character yet: not to be read */
    if (event == 'u')
        return tell(results, first_userdata, RKLLM_RUN_NORMAL);
    int state = event == 'w' ? RKLLM_RUN_WAITING : event == 'f' ? RKLLM_RUN_FINISH : event == 'e' ? RKLLM_RUN_ERROR : 0;
    return tell(results, userdata, state);
}

int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    (void)handle;
    aborted = 0;
    if (!first_userdata)
        first_userdata = userdata;
    for (int i = 0; i < recorder_batch; i++)
        record_input(&input[i]);
    record_infer(infer);
    if (recorder_run_status)
        return recorder_run_status;
    int number = 0;
    for (const char *event = recorder_script; *event; event++) {
        if (*event == '.') {
            sem_post(&recorder_waits);
            sem_wait(&recorder_go);
            continue;
        }
        if (aborted && !strchr("feT", *event))
            continue;
        if (play(*event, userdata, number++) == 1)
            return 0;
    }
    return 0;
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata) {
    return rkllm_run(handle, input, infer, userdata);
}

int rkllm_abort(LLMHandle handle) {
    (void)handle;
    recorder_aborts++;
    aborted = 1;
    if (recorder_abort_waits) {
        sem_post(&recorder_waits);
        sem_wait(&recorder_go_abort);
    }
    return recorder_call_status;
}

int rkllm_is_running(LLMHandle handle) { return handle ? 1 : -1; }

int rkllm_destroy(LLMHandle handle) {
    record("destroy=%d\n", handle == &handle_object);
    return recorder_call_status;
}

int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *adapter) {
    (void)handle;
    STRING(adapter, lora_adapter_path);
    STRING(adapter, lora_adapter_name);
    FLOAT(adapter, scale);
    return recorder_call_status;
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *path) {
    (void)handle;
    record("load_cache=%s\n", shown(path));
    return recorder_call_status;
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    record("release_cache=%d\n", handle != NULL);
    return recorder_call_status;
}

#if RKLLM_ABI_GROUP >= 4
int rkllm_clear_kv_cache(LLMHandle handle, int keep, int *start, int *end) {
    (void)handle;
    record("clear=%d", keep);
    for (int i = 0; i < recorder_batch && start && end; i++)
        record(" %d-%d", start[i], end[i]);
    record(start || end ? "\n" : " all\n");
    return recorder_call_status;
}

int rkllm_get_kv_cache_size(LLMHandle handle, int *sizes) {
    (void)handle;
    for (int i = 0; i < recorder_batch; i++)
        sizes[i] = 40 + i;
    return recorder_call_status;
}

int rkllm_set_function_tools(LLMHandle handle, const char *system, const char *tools, const char *mark) {
    (void)handle;
    record("tools=%s|%s|%s\n", shown(system), shown(tools), shown(mark));
    return recorder_call_status;
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *params) {
    (void)handle;
    record("cross=%g %g %g %d %d\n", (double)params->encoder_k_cache[1], (double)params->encoder_v_cache[1],
           (double)params->encoder_mask[1], params->encoder_pos[1], params->num_tokens);
    return recorder_call_status;
}
#elif RKLLM_ABI_GROUP >= 2
int rkllm_clear_kv_cache(LLMHandle handle, int keep) {
    (void)handle;
    record("clear=%d\n", keep);
    return recorder_call_status;
}
#endif

#if RKLLM_ABI_GROUP >= 2
int rkllm_set_chat_template(LLMHandle handle, const char *system, const char *prefix, const char *postfix) {
    (void)handle;
    record("template=%s|%s|%s\n", shown(system), shown(prefix), shown(postfix));
    return recorder_call_status;
}
#endif

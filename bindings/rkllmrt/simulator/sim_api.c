/* The exported functions: from the structs of one ABI group to the simulator's own, and back.
 *
 * The only file that knows rkllm_abi.h. Compiled once per release with RKLLM_ABI_GROUP and RKLLM_SIM_VERSION.
 */
#include "rkllm_abi.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef RKLLM_SIM_VERSION
#error "RKLLM_SIM_VERSION is the release to imitate, as a string"
#endif

__attribute__((used)) static const char SDK_VERSION[] =
    "RKLLM SDK (version: " RKLLM_SIM_VERSION " | target: Linux | build: rkllm-simulator)";
__attribute__((used)) static const char RKNN_VERSION[] = "rknn llm lib version: 2.3.3b0 (rkllm-simulator)";

typedef struct {
    LLMResultCallback result;
#if RKLLM_ABI_GROUP >= 5
    RKLLMCallback all;
#endif
} Adapter;

typedef struct {
    Sim *sim;
    RKLLMInput *input;
    RKLLMInferParam *infer;
    void *userdata;
} Call;

/* ---- results ---- */
static int deliver(Sim *sim, void *userdata, const Output *outputs, int n, const Perf *perf, State state) {
    const Adapter *adapter = sim->adapter;
    RKLLMResult results[SIM_MAX_BATCH];
    memset(results, 0, (size_t)n * sizeof *results);
    for (int i = 0; i < n; i++) {
        results[i].text = outputs[i].text;
        const Output *output = &outputs[i];
        results[i].token_id = output->token_id;
        if (output->hidden)
            results[i].last_hidden_layer =
                (RKLLMResultLastHiddenLayer){output->hidden, output->embd_size, output->n_tokens};
#if RKLLM_ABI_GROUP >= 2
        if (output->logits)
            results[i].logits = (RKLLMResultLogits){output->logits, output->vocab_size, output->n_tokens};
#endif
    }
#if RKLLM_ABI_GROUP >= 4
    if (perf)
        results[0].perf = (RKLLMPerfStat){perf->prefill_ms, perf->prefill_tokens, perf->generate_ms,
                                          perf->generate_tokens, perf->memory_mb};
    return adapter->result(results, userdata, (LLMCallState)state);
#else
    (void)perf;
    adapter->result(results, userdata, (LLMCallState)state);
    return 0;
#endif
}

/* ---- init ---- */
#if RKLLM_ABI_GROUP >= 2
/* Like the real one: a mask is chosen for 8 and for 4 CPUs, otherwise it stays what was in memory. */
static uint32_t default_mask(uint32_t garbage) {
    const char *cpus = getenv("RKLLM_SIM_CPUS");
    int n = cpus ? atoi(cpus) : 8;
    return n == 8 ? 0xF0 : n == 4 ? 0x0F : garbage;
}
#endif

RKLLMParam rkllm_createDefaultParam(void) {
    RKLLMParam param;
    memset(&param, 0xA5, sizeof param); /* the real one does not clear what it does not set */
    param.model_path = NULL;
    param.max_context_len = 512;
    param.max_new_tokens = -1;
    param.top_k = 40;
    param.top_p = 0.9f;
    param.temperature = 0.8f;
    param.repeat_penalty = 1.1f;
    param.frequency_penalty = param.presence_penalty = 0;
    param.mirostat = 0;
    param.mirostat_tau = 5.0f;
    param.mirostat_eta = 0.1f;
    param.skip_special_token = true;
    param.is_async = false;
    param.extend_param.base_domain_id = 0;
#if RKLLM_ABI_GROUP <= 4
    param.img_start = param.img_end = param.img_content = "";
#else
    param.ignore_eos_token = false;
#endif
#if RKLLM_ABI_GROUP >= 2
    param.n_keep = -1;
    param.extend_param.embed_flash = 1;
    param.extend_param.enabled_cpus_num = 4;
    param.extend_param.enabled_cpus_mask = default_mask(param.extend_param.enabled_cpus_mask);
#endif
#if RKLLM_ABI_GROUP >= 4
    param.extend_param.n_batch = 1;
    param.extend_param.use_cross_attn = 0;
#endif
    return param;
}

static Settings settings_of(const RKLLMParam *param) {
    Settings settings = {
        .model_path = param->model_path,
        .max_context_len = param->max_context_len,
        .max_new_tokens = param->max_new_tokens,
        .skip_special_token = param->skip_special_token,
        .is_async = param->is_async,
        .n_batch = 1,
        .n_keep = -1,
        .base_domain_id = param->extend_param.base_domain_id,
        .sampling = {param->top_k, param->top_p, param->temperature, param->repeat_penalty, param->frequency_penalty,
                     param->presence_penalty, param->mirostat, param->mirostat_tau, param->mirostat_eta},
    };
#if RKLLM_ABI_GROUP <= 4
    /* NULL kills every real release up to 1.2.3: the strings are measured without a look. */
    const char *const tags[] = {param->img_start, param->img_end, param->img_content};
    for (int i = 0; i < 3; i++) (void)*(const volatile char *)tags[i];
#else
    settings.ignore_eos_token = param->ignore_eos_token;
#endif
#if RKLLM_ABI_GROUP >= 2
    settings.n_keep = param->n_keep;
    settings.embed_flash = param->extend_param.embed_flash;
    settings.cpus_num = param->extend_param.enabled_cpus_num;
    settings.cpus_mask = param->extend_param.enabled_cpus_mask;
#endif
#if RKLLM_ABI_GROUP >= 4
    settings.n_batch = param->extend_param.n_batch;
    settings.use_cross_attn = param->extend_param.use_cross_attn;
#endif
    return settings;
}

#if RKLLM_ABI_GROUP >= 5
static int tokenize(Sim *sim, const char *text, int len, int32_t *ids, int room) {
    const RKLLMCallback *all = &((Adapter *)sim->adapter)->all;
    return all->tokenizer_callback(all->tokenizer_userdata, text, len, ids, room);
}

static int embed(Sim *sim, int32_t *ids, uint64_t n, float *out, uint64_t bytes) {
    const RKLLMCallback *all = &((Adapter *)sim->adapter)->all;
    return all->embed_callback(all->embed_userdata, ids, n, out, bytes);
}
#endif

static int init(LLMHandle *handle, RKLLMParam *param, const Adapter *callbacks, Client client) {
    if (!handle || !param || !callbacks->result) return -1;
    Release release = {RKLLM_SIM_VERSION, RKLLM_ABI_GROUP};
    Settings settings = settings_of(param);
    Adapter *adapter = sim_alloc(sizeof *adapter);
    *adapter = *callbacks;
    client.deliver = deliver;
    bool null_handle = false;
    Sim *sim = sim_open(&release, &settings, &client, adapter, &null_handle);
    if (!sim) free(adapter);
    if (sim || null_handle) *handle = sim;
    return sim || null_handle ? 0 : -1;
}

#if RKLLM_ABI_GROUP >= 5
int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback) {
    if (!callback) return -1;
    Adapter adapter = {.result = callback->result_callback, .all = *callback};
    Client client = {0};
    if (callback->tokenizer_callback) client.tokenize = tokenize;
    if (callback->embed_callback) client.embed = embed;
    return init(handle, param, &adapter, client);
}
#else
int rkllm_init(LLMHandle *handle, RKLLMParam *param, LLMResultCallback callback) {
    return init(handle, param, &(Adapter){.result = callback}, (Client){0});
}
#endif

int rkllm_destroy(LLMHandle handle) {
    if (!handle) return -1;
    Adapter *adapter = ((Sim *)handle)->adapter;
    if (sim_close(handle) != 0) return -1;
    free(adapter);
    return 0;
}

/* ---- runs ---- */
static void read_media(const RKLLMMultiModalInput *from, Input *to) {
    to->prompt = from->prompt;
#if RKLLM_ABI_GROUP <= 4
    to->media[0] = (Media){"<image>", from->image_embed, from->n_image_tokens, from->image_embed != NULL};
#if RKLLM_ABI_GROUP >= 3
    to->media[0].n_items = from->n_image;
#endif
#else
    to->media[0] = (Media){"<image>", from->image.image_embed, from->image.n_image_tokens, from->image.n_image};
    size_t per_video = from->video.n_frame_tokens * from->video.n_frame_per_video;
    to->media[1] = (Media){"<video>", from->video.video_embed, per_video, from->video.n_video};
#if RKLLM_ABI_GROUP >= 6
    to->media[2] = (Media){"<audio>", from->audio.audio_embed, from->audio.n_audio_tokens, from->audio.n_audio};
#endif
#endif
}

static Input input_of(const RKLLMInput *from) {
    Input to = {.kind = (int)from->input_type};
#if RKLLM_ABI_GROUP >= 4
    to.role = from->role;
    to.thinking = from->enable_thinking;
#endif
    switch (from->input_type) {
    case RKLLM_INPUT_PROMPT: to.prompt = from->prompt_input; break;
    case RKLLM_INPUT_TOKEN: to.ids = from->token_input.input_ids, to.n = from->token_input.n_tokens; break;
    case RKLLM_INPUT_EMBED: to.embed = from->embed_input.embed, to.n = from->embed_input.n_tokens; break;
    case RKLLM_INPUT_MULTIMODAL: read_media(&from->multimodal_input, &to); break;
    default: break;
    }
    return to;
}

static Infer infer_of(const RKLLMInferParam *from, Sampling *sampling) {
    Infer to = {.mode = (int)from->mode};
    if (from->lora_params) to.lora = from->lora_params->lora_adapter_name;
    if (from->prompt_cache_params && from->prompt_cache_params->save_prompt_cache) {
        to.save_cache = true;
        to.cache_path = from->prompt_cache_params->prompt_cache_path;
    }
#if RKLLM_ABI_GROUP >= 2
    to.keep_history = from->keep_history;
#endif
#if RKLLM_ABI_GROUP >= 5
    to.max_new_tokens = from->max_new_tokens;
    const RKLLMSamplingParam *s = from->sampling_params;
    if (s) {
        *sampling = (Sampling){s->top_k, s->top_p, s->temperature, s->repeat_penalty, s->frequency_penalty,
                               s->presence_penalty, s->mirostat, s->mirostat_tau, s->mirostat_eta};
        to.sampling = sampling;
    }
#else
    (void)sampling;
#endif
    return to;
}

/* The run must have been claimed. Structs are read here, so an asynchronous caller has to keep them alive. */
static int run_claimed(const Call *call) {
    Input inputs[SIM_MAX_BATCH];
    Sampling sampling;
    Infer infer = infer_of(call->infer, &sampling);
    for (int i = 0; i < call->sim->n_columns; i++) inputs[i] = input_of(&call->input[i]);
    void *userdata = call->userdata;
#if RKLLM_ABI_GROUP >= 5
    if (!userdata) userdata = ((Adapter *)call->sim->adapter)->all.result_userdata;
#endif
    return sim_run(call->sim, inputs, &infer, userdata);
}

int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer_params, void *userdata) {
    if (!handle || !input || !infer_params || !sim_claim(handle)) return -1;
    return run_claimed(&(Call){handle, input, infer_params, userdata});
}

static void *run_in_thread(void *argument) {
    run_claimed(argument);
    free(argument);
    return NULL;
}

int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer_params, void *userdata) {
    Sim *sim = handle;
    if (!handle || !input || !infer_params || !sim_claim(sim)) return -1;
    if (sim->thread_started) pthread_join(sim->thread, NULL);
    Call *call = sim_alloc(sizeof *call);
    *call = (Call){sim, input, infer_params, userdata};
    sim->thread_started = pthread_create(&sim->thread, NULL, run_in_thread, call) == 0;
    if (sim->thread_started) return 0;
    free(call);
    atomic_store(&sim->phase, IDLE);
    return -1;
}

int rkllm_abort(LLMHandle handle) { return handle ? sim_abort(handle) : -1; }

int rkllm_is_running(LLMHandle handle) { return handle ? sim_busy(handle) : -1; }

/* ---- between runs ---- */
int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *lora_adapter) {
    if (!handle || !lora_adapter) return -1;
    return sim_load_lora(handle, lora_adapter->lora_adapter_path, lora_adapter->lora_adapter_name);
}

int rkllm_load_prompt_cache(LLMHandle handle, const char *prompt_cache_path) {
    return handle && !sim_busy(handle) ? cache_load(handle, prompt_cache_path) : -1;
}

int rkllm_release_prompt_cache(LLMHandle handle) {
    return handle && !sim_busy(handle) ? cache_release(handle) : -1;
}

#if RKLLM_ABI_GROUP >= 4
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos) {
    return handle ? sim_clear(handle, keep_system_prompt, start_pos, end_pos) : -1;
}

int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes) {
    if (!handle || !cache_sizes) return -1;
    const Sim *sim = handle;
    for (int i = 0; i < sim->n_columns; i++) cache_sizes[i] = sim->columns[i].kv.n;
    return 0;
}

int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                             const char *tool_response_str) {
    return handle && tools ? sim_set_tools(handle, system_prompt, tools, tool_response_str) : -1;
}

int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *given) {
    Sim *sim = handle;
    if (!sim || !given || !sim->settings.use_cross_attn) return -1;
    bool complete = given->encoder_k_cache && given->encoder_v_cache && given->encoder_mask && given->encoder_pos;
    if (!complete || given->num_tokens < 1) return -1;
    sim->cross_attn_set = true;
    return 0;
}
#elif RKLLM_ABI_GROUP >= 2
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt) {
    return handle ? sim_clear(handle, keep_system_prompt, NULL, NULL) : -1;
}
#endif

#if RKLLM_ABI_GROUP >= 2
int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                            const char *prompt_postfix) {
    return handle ? sim_set_template(handle, system_prompt, prompt_prefix, prompt_postfix) : -1;
}
#endif

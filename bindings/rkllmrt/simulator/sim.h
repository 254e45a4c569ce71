/* What the parts of the simulator know of each other. Nothing here depends on the ABI group: only sim_api.c does.
 *
 * Who owns what: sim_text (growable bytes), sim_clock (pace and waiting), sim_model (the .sim file), sim_rules (its
 * rules and faults), sim_tokens (text to tokens), sim_prompt (reading a rendered prompt), sim_answer and sim_tools
 * (what to say), sim_template (the runtime's own chat template), sim_kv (prefix reuse), sim_cache (prompt-cache
 * files), sim_modes (hidden states, logits), sim_run (one generation), sim_open (init to destroy), sim_log (lines).
 */
#ifndef SIM_H
#define SIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_MAX_BATCH = 100, SIM_MAX_MEDIA = 3, SIM_MAX_LORA = 16, SIM_PATH = 1024 };

/* ---- sim_text: bytes that grow, always followed by a NUL; allocation failure ends the process ---- */
typedef struct {
    char *at;
    size_t len, cap;
} Text;

typedef struct {
    const char *at;
    size_t len;
} Span;

void *sim_alloc(size_t bytes);
void *sim_grow(void *old, size_t bytes);
void text_add(Text *text, const char *bytes, size_t len);
void text_puts(Text *text, const char *string);
void text_printf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(Text *text);
Span span(const char *string);
/* First place of needle in hay, ignoring ASCII case; NULL when absent or the needle is empty. */
const char *span_find(Span hay, const char *needle);
const char *span_find_exact(Span hay, const char *needle);
const char *span_find_last(Span hay, const char *needle);
bool span_is(Span a, const char *word); /* equal, ignoring ASCII case */
Span span_trim(Span a);
uint32_t sim_hash(const void *bytes, size_t len, uint32_t seed);

/* ---- sim_clock: pace in milliseconds, time in nanoseconds of CLOCK_MONOTONIC ---- */
typedef struct {
    double floor_ms;            /* first token when nothing has to be computed */
    double prefill_ms;          /* per token */
    double prefill_quad_ms;     /* per (end^2 - start^2) of the positions computed */
    double decode_ms;           /* per token with an empty context */
    double decode_slope_ms;     /* more per token of context */
    double batch_slope;         /* a step of n columns costs 1 + (n-1) * slope steps */
    double jitter;              /* +- this part of every step */
    double thermal_after_s;     /* busy seconds until the clock steps down; 0 never */
    double thermal_factor;      /* all times are multiplied by it from then on */
    double load_ms;
    double cache_save_mb_s, cache_load_mb_s; /* 0: as fast as the disk */
} Pace;

typedef struct {
    bool virtual_time; /* RKLLM_SIM_CLOCK=virtual: add the times up, do not sleep */
    double speed;      /* RKLLM_SIM_SPEED: every time is divided by it */
    int64_t deadline_ns;
    double busy_ms; /* scheduled, before speed; cools down while idle */
    int64_t idle_since_ns;
    uint32_t noise;
} Clock;

int64_t now_ns(void);
void clock_setup(Clock *clock);
void clock_begin(Clock *clock); /* a run begins: deadlines count from now */
void clock_end(Clock *clock);   /* a run ends: cooling begins */
/* Wait for one step; returns its length in ms, jitter and thermal step and speed applied. */
double clock_step(Clock *clock, const Pace *pace, double ms);
void clock_plain(Clock *clock, double ms);          /* the same without jitter and heat */
void clock_outside(Clock *clock, int64_t spent_ns); /* time spent in a callback moves the schedule */

/* ---- sim_rules ---- */
typedef enum {
    FAULT_NONE, FAULT_ABORT, FAULT_SEGV, FAULT_EXIT, FAULT_HANG, FAULT_STALL, FAULT_ERROR, FAULT_FAIL, FAULT_ENDLESS,
    FAULT_GARBAGE, FAULT_LEAK, FAULT_ABORT_CRASH, FAULT_NO_FINISH, FAULT_NULL,
} FaultKind;

typedef struct {
    FaultKind kind;
    int after;     /* tokens given out before it strikes; -1: in prefill */
    double amount; /* ms or MB, where the kind has one */
    int first;     /* only the first N times; 0: always */
} Fault;

typedef enum { ON_MATCH, ON_RUN, ON_EVERY, ON_ALWAYS, ON_INIT, ON_DESTROY } Occasion;

typedef struct {
    Occasion occasion;
    char *phrase; /* ON_MATCH */
    int number;   /* ON_RUN, ON_EVERY */
    char *reply;  /* NULL: none */
    Fault fault;
    int struck;
} Rule;

struct Model;
/* Parse one rule line into rule; false with a reason in why. */
bool rule_parse(const char *line, Rule *rule, char *why, size_t room);
const char *rule_reply(const struct Model *model, Span message, int run);
/* The fault that strikes now, already counted; kind FAULT_NONE when none does. */
Fault rule_fault(struct Model *model, Occasion occasion, Span message, int run);
/* Carry out a fault that ends or blocks the process; returns for every other kind. */
void fault_strike(const Fault *fault, Clock *clock);

/* ---- sim_model ---- */
typedef enum { TEMPLATE_NONE, TEMPLATE_CHATML, TEMPLATE_LLAMA3, TEMPLATE_GEMMA, TEMPLATE_PHI, TEMPLATE_ZEPHYR } Template;
typedef enum { BATCH_WORKS, BATCH_ASSERTS, BATCH_REFUSES } Batch;

typedef struct Model {
    char name[64], platform[16], dtype[24], toolkit[24], driver[16], eos_text[40], profile[32], fault_state[SIM_PATH];
    int npu_core_num, max_context, vocab_size, embd_size, layers, kv_bytes, chat_template;
    int thinking, tokenizer, embedding, cross_attention;
    int eos_as_text, split_raw, joins_unstable, granularity;
    int reuse, reuse_generated, reuse_aborted, modes_reuse, cache_replaces, cache_stays, aborted_saves, cache_sparse;
    int batch; /* a Batch */
    int fail_after_abort, late_events, stop_at_think_end;
    Pace pace;
    Rule *rules;
    int n_rules;
    uint32_t fingerprint;
} Model;

/* Read a .sim file; false with "path:line: reason" in why. */
bool model_read(Model *model, const char *path, char *why, size_t room);
void model_free(Model *model);
/* Pace and facts of a named profile; facts are left alone when only_pace. */
bool profile_apply(Model *model, const char *name, bool only_pace);

/* ---- sim_tokens ---- */
typedef struct {
    uint32_t hash; /* identity of the piece: what the KV compares */
    int32_t id;
    uint32_t start; /* byte offset in the text it came from */
    uint16_t len;
    bool special;
} Token;

typedef struct {
    Token *at;
    int n, cap;
} Tokens;

typedef struct {
    int size;
    char (*pieces)[8]; /* by id: the last short piece seen, so that ids given back can be read */
    char eos_text[40];
} Vocabulary;

void vocabulary_open(Vocabulary *vocabulary, int size, const char *eos_text);
void vocabulary_close(Vocabulary *vocabulary);
void tokens_add(Tokens *tokens, Token token);
void tokens_free(Tokens *tokens);
/* Append the tokens of text; offsets count from text. */
void tokens_of(Vocabulary *vocabulary, Span text, Tokens *out);
/* The id of a piece of text that is no special token. */
int32_t token_plain_id(const Vocabulary *vocabulary, uint32_t hash);
int32_t token_eos(const Vocabulary *vocabulary);
uint32_t token_hash_of_id(const Vocabulary *vocabulary, int32_t id);
/* The text of an id seen before, NULL otherwise. */
const char *token_piece(const Vocabulary *vocabulary, int32_t id);
bool utf8_incomplete(const char *bytes, size_t len);

/* ---- sim_json: enough of JSON to find tools in a prompt ---- */
/* The value that begins at span.at, after blanks; len 0 when it is not valid JSON. */
Span json_value(Span text);
/* Visit the members of an object or the items of an array: *at starts at the container's text and moves on. */
typedef struct {
    Span key; /* without quotes; empty in an array */
    Span value;
} JsonMember;
bool json_next(Span container, size_t *at, JsonMember *member);
Span json_member(Span object, const char *key); /* len 0: absent */
Span json_string(Span value);                   /* the inside of a string, escapes kept; len 0: no string */
void json_quote(Text *out, Span raw);

/* ---- sim_prompt ---- */
typedef struct {
    Span whole;
    Span user;    /* last message of the user */
    Span context; /* everything before it */
    Span result;  /* what a tool answered after it; len 0: none */
    Span tail;    /* what the assistant's open turn already says */
} Prompt;

Prompt prompt_read(Span text, const char *tool_mark);

/* ---- sim_tools ---- */
/* Append a tool call that does what the user asks, if a tool in context can; false otherwise. */
bool tools_call(Span context, Span user, Text *out);
/* Append a sentence about a tool's result. */
void tools_conclude(Span user, Span result, Text *out);

/* ---- sim_kv ---- */
typedef struct {
    uint32_t *at;
    int n, cap;
    int history;     /* positions that belong to a conversation with keep_history=1 */
    int system_n;    /* positions of the system part */
    int reusable;    /* positions that a new prompt may match */
} Kv;

void kv_put(Kv *kv, uint32_t hash);
void kv_cut(Kv *kv, int n);
void kv_free(Kv *kv);
/* Drop [start, end); false when that is no range of the KV. */
bool kv_remove(Kv *kv, int start, int end);
/* Number of leading tokens that need no computing. */
int kv_match(const Kv *kv, const uint32_t *tokens, int n, const Model *model);
/* Make room for one more position in a window; keep positions survive at the start. */
void kv_shift(Kv *kv, int window, int keep);

/* ---- sim_open, sim_run: the session ---- */
typedef struct {
    int top_k;
    float top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty;
    int mirostat;
    float mirostat_tau, mirostat_eta;
} Sampling;

typedef struct {
    const char *version;
    int group; /* 1 = A .. 6 = F */
} Release;

typedef struct {
    const char *model_path;
    int max_context_len, max_new_tokens, n_keep, base_domain_id, embed_flash, cpus_num, n_batch, use_cross_attn;
    uint32_t cpus_mask;
    bool skip_special_token, ignore_eos_token, is_async;
    Sampling sampling;
} Settings;

typedef enum { INPUT_PROMPT, INPUT_TOKEN, INPUT_EMBED, INPUT_MULTIMODAL } InputKind;
typedef enum { MODE_GENERATE, MODE_HIDDEN, MODE_LOGITS } Mode;

typedef struct {
    const char *mark; /* placeholder in the prompt, "<image>" */
    const float *embed;
    size_t n_tokens, n_items;
} Media;

typedef struct {
    int kind;
    const char *role;
    bool thinking;
    const char *prompt;
    const int32_t *ids;
    const float *embed;
    size_t n;
    Media media[SIM_MAX_MEDIA];
} Input;

typedef struct {
    int mode, keep_history, max_new_tokens;
    const char *lora;
    bool save_cache;
    const char *cache_path;
    const Sampling *sampling; /* NULL: as at init */
} Infer;

typedef struct {
    const char *text;
    int32_t token_id;
    const float *hidden, *logits;
    int embd_size, vocab_size, n_tokens;
} Output;

typedef struct {
    float prefill_ms;
    int prefill_tokens;
    float generate_ms;
    int generate_tokens;
    float memory_mb;
} Perf;

typedef enum { STATE_NORMAL, STATE_WAITING, STATE_FINISH, STATE_ERROR, STATE_HIDDEN } State;

typedef enum { IDLE, RUNNING, ABORTING } Phase;

struct Sim;
typedef struct {
    /* Deliver n outputs; the answer 1 pauses. perf is NULL but at FINISH. */
    int (*deliver)(struct Sim *sim, void *userdata, const Output *outputs, int n, const Perf *perf, State state);
    /* Tokenise or embed outside; NULL where the release or the caller has none. */
    int (*tokenize)(struct Sim *sim, const char *text, int len, int32_t *ids, int room);
    int (*embed)(struct Sim *sim, int32_t *ids, uint64_t n, float *out, uint64_t bytes);
} Client;

typedef struct {
    Kv kv;
    Text prompt;      /* rendered */
    Text answer;
    Tokens tokens;    /* of the answer */
    int next;         /* index of the next token of the answer */
    uint32_t undecoded; /* hash of the last token: enters the KV with the next step */
    bool has_undecoded, done;
    int generated;    /* answer tokens that are in the KV */
    char pending[16];
    size_t pending_n;
    char shown[72];
    uint32_t *input; /* hashes of the prompt's tokens */
    int n_input;
    int reused;
} Column;

typedef struct Sim {
    Release release;
    Settings settings;
    Client client;
    void *adapter; /* sim_api's callbacks */
    Model model;
    Vocabulary vocabulary;
    Clock clock;
    int log_level;
    double init_ms;

    Column *columns;
    int n_columns;
    bool raw_template;
    Text system, prefix, postfix, tools, tool_mark;
    Text turn; /* the last rendered turn and its answer, for role "tool" */
    char *loras[SIM_MAX_LORA];
    int n_loras;
    bool cross_attn_set;
    Kv loaded; /* tokens of the prompt-cache file */
    bool cache_loaded;

    int run_number, aborts;
    bool last_aborted, paused;
    int paused_history;
    Fault fault;
    bool garbage, endless, abort_crash, no_finish, embed_failed;
    int emitted, limit;
    double prefill_ms, generate_ms;
    int prefill_tokens;
    int64_t first_token_ns;
    uint32_t lora_seed;
    char late_text[72];
    int32_t late_id;
    void *late_userdata;
    bool late;
    pthread_t thread;
    bool thread_started;
    atomic_int phase; /* of type Phase: one word, so that an abort can never hit the run after the one it meant */
} Sim;

/* Returns NULL when init fails; *null_handle says that the fault "init ok, handle NULL" was asked for. */
Sim *sim_open(const Release *release, const Settings *settings, const Client *client, void *adapter, bool *null_handle);
int sim_close(Sim *sim);
/* Take the one run a handle can have; false while another one has it. sim_run gives it back. */
bool sim_claim(Sim *sim);
int sim_run(Sim *sim, const Input *inputs, const Infer *infer, void *userdata);
int sim_abort(Sim *sim);
bool sim_busy(const Sim *sim);
bool sim_aborted(const Sim *sim);
int sim_clear(Sim *sim, int keep_system, const int *start, const int *end);
int sim_load_lora(Sim *sim, const char *path, const char *name);
int sim_set_template(Sim *sim, const char *system, const char *prefix, const char *postfix);
int sim_set_tools(Sim *sim, const char *system, const char *tools, const char *mark);

/* Render one PROMPT input as the runtime's own template would; false when the role refuses the text. */
bool template_render(Sim *sim, Column *column, const Input *input, bool first_turn, size_t *system_bytes);
const char *template_eos(int chat_template);

/* Turn an input into column->input (hashes) and column->prompt (readable); false logs the reason. */
bool input_read(Sim *sim, Column *column, const Input *input, bool first_turn);
/* Rows of n tokens from the caller, where the model has none of its own; false when that fails. */
bool embed_outside(Sim *sim, const uint32_t *hashes, int n);
/* Fill answer and tokens of a column. */
void answer_make(Sim *sim, Column *column, const Input *input, const Infer *infer);
/* Milliseconds to compute positions start to end. */
double prefill_cost(const Pace *pace, int start, int end);
/* Hidden states or logits of all tokens of the prompt: one callback. */
int mode_run(Sim *sim, const Infer *infer, void *userdata);
/* End a run: one FINISH with perf. */
int finish_run(Sim *sim, const Infer *infer, void *userdata);
/* Next output of a column; whether it is a state WAITING is in *waiting. */
Output column_step(Sim *sim, Column *column, bool *waiting);
void column_reset(Column *column);

int cache_save(Sim *sim, const char *path);
int cache_load(Sim *sim, const char *path);
int cache_release(Sim *sim);

/* ---- sim_log: lines as the runtime prints them, on stdout through stdio ---- */
void log_line(char level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_banner(const Sim *sim);
void log_perf(const Sim *sim, const Perf *perf);
float memory_peak_mb(void);
/* RKLLM_SIM_TRACE=FILE: one JSON line per run, for benches that compare with the time of the slot. */
void trace_run(const Sim *sim, int64_t entry_ns, int64_t return_ns, const Perf *perf);
/* RKLLM_SIM_PROMPTS=FILE: a JSON line when a run begins, with the user's last message, and one when it ends. */
void trace_begin(const Sim *sim, Span user);
void trace_end(const Sim *sim);

#endif

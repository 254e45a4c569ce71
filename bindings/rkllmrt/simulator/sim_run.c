/* One run: prefill, a step per token, and exactly one FINISH (unless a fault or a pause comes in between). */
#include "sim.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

double prefill_cost(const Pace *pace, int start, int end) {
    double before = start, after = end;
    return pace->prefill_ms * (after - before) + pace->prefill_quad_ms * (after * after - before * before);
}

bool sim_claim(Sim *sim) {
    int idle = IDLE;
    return atomic_compare_exchange_strong(&sim->phase, &idle, RUNNING);
}

bool sim_busy(const Sim *sim) { return atomic_load(&sim->phase) != IDLE; }

bool sim_aborted(const Sim *sim) { return atomic_load_explicit(&sim->phase, memory_order_relaxed) == ABORTING; }

int sim_abort(Sim *sim) {
    int running = RUNNING;
    if (sim->abort_crash && sim_busy(sim)) raise(SIGSEGV);
    if (!atomic_compare_exchange_strong(&sim->phase, &running, ABORTING) && running == IDLE) sim->paused = false;
    return 0;
}

/* ---- delivering ---- */
static bool is_strike(FaultKind kind) { return kind >= FAULT_ABORT && kind <= FAULT_ERROR; }

static int deliver(Sim *sim, void *userdata, const Output *outputs, bool waiting) {
    bool timed = sim->model.pace.decode_ms > 0;
    int64_t before = timed ? now_ns() : 0;
    State state = waiting ? STATE_WAITING : STATE_NORMAL;
    int answer = sim->client.deliver(sim, userdata, outputs, sim->n_columns, NULL, state);
    if (timed) clock_outside(&sim->clock, now_ns() - before);
    return answer;
}

static void deliver_late(Sim *sim) {
    if (!sim->late) return;
    Output outputs[SIM_MAX_BATCH] = {{.text = sim->late_text, .token_id = sim->late_id}};
    sim->late = false;
    sim->client.deliver(sim, sim->late_userdata, outputs, sim->n_columns, NULL, STATE_NORMAL);
}

static int deliver_error(Sim *sim, void *userdata) {
    Output outputs[SIM_MAX_BATCH] = {{0}};
    sim->client.deliver(sim, userdata, outputs, sim->n_columns, NULL, STATE_ERROR);
    return -1;
}

/* ---- the end of a run ---- */
static void settle_kv(Sim *sim, const Infer *infer) {
    for (int i = 0; i < sim->n_columns; i++) {
        Column *column = &sim->columns[i];
        Kv *kv = &column->kv;
        kv->history = infer->keep_history && sim->release.group > 1 ? kv->n : 0;
        kv->reusable = kv->n;
        if (!sim->model.reuse_generated) kv->reusable = kv->n > column->generated ? kv->n - column->generated : 0;
        if (sim_aborted(sim) && !sim->model.reuse_aborted) kv->reusable = 0;
    }
    if (!sim->model.cache_stays) sim->loaded.reusable = 0;
}

static void remember_turn(Sim *sim) {
    Column *column = sim->columns;
    sim->turn.len = 0;
    text_add(&sim->turn, column->prompt.at ? column->prompt.at : "", column->prompt.len);
    text_add(&sim->turn, column->answer.at ? column->answer.at : "", column->answer.len);
    text_puts(&sim->turn, sim->model.chat_template == TEMPLATE_NONE ? "\n" : sim->model.eos_text);
    text_puts(&sim->turn, "\n");
}

int finish_run(Sim *sim, const Infer *infer, void *userdata) {
    Output outputs[SIM_MAX_BATCH] = {{0}};
    settle_kv(sim, infer);
    remember_turn(sim);
    sim->last_aborted = sim_aborted(sim);
    sim->aborts += sim->last_aborted;
    if (infer->save_cache && (!sim->last_aborted || sim->model.aborted_saves)) cache_save(sim, infer->cache_path);
    Perf perf = {.prefill_ms = (float)sim->prefill_ms, .prefill_tokens = sim->prefill_tokens};
    perf.generate_ms = (float)sim->generate_ms;
    perf.generate_tokens = sim->emitted > 0 ? sim->emitted - 1 : 0;
    perf.memory_mb = memory_peak_mb();
    if (sim->last_aborted && sim->model.late_events && sim->emitted > 0) {
        sim->late = true;
        sim->late_userdata = userdata;
        sim->late_id = 0;
        strcpy(sim->late_text, " late");
    }
    if (!sim->no_finish) sim->client.deliver(sim, userdata, outputs, sim->n_columns, &perf, STATE_FINISH);
    log_perf(sim, &perf);
    return 0;
}

/* ---- steps ---- */
static Output end_of_text(Sim *sim, Column *column) {
    bool goes_on = sim->endless || sim->settings.ignore_eos_token;
    bool shows = sim->model.eos_as_text && !sim->settings.skip_special_token && sim->model.tokenizer;
    column->next = 0;
    column->done = !goes_on;
    Output output = {.text = shows ? sim->model.eos_text : NULL, .token_id = token_eos(&sim->vocabulary)};
    if (column->done && sim->n_columns > 1) output = (Output){.token_id = -1};
    return output;
}

static bool is_hidden(const Sim *sim, const char *piece, const Token *token) {
    if (!token->special || !sim->settings.skip_special_token) return false;
    return piece[1] == '|' || strncmp(piece, sim->model.eos_text, token->len) == 0;
}

Output column_step(Sim *sim, Column *column, bool *waiting) {
    *waiting = false;
    if (column->done) return (Output){.token_id = -1};
    if (column->next >= column->tokens.n) return end_of_text(sim, column);
    const Token *token = &column->tokens.at[column->next++];
    const char *piece = column->answer.at + token->start;
    column->undecoded = token->hash ^ sim->lora_seed;
    column->has_undecoded = true;
    if (!sim->model.tokenizer || is_hidden(sim, piece, token)) return (Output){.token_id = token->id};
    memcpy(column->shown, column->pending, column->pending_n);
    memcpy(column->shown + column->pending_n, piece, token->len);
    size_t len = column->pending_n + token->len;
    column->shown[len] = '\0';
    column->pending_n = 0;
    if (!sim->model.split_raw && len < sizeof column->pending && utf8_incomplete(column->shown, len)) {
        memcpy(column->pending, column->shown, column->pending_n = len);
        *waiting = true;
        return (Output){.token_id = token->id};
    }
    return (Output){.text = column->shown, .token_id = token->id};
}

/* Decode the token given out last: it enters the KV, and the window moves on when it is full. */
static void decode_last(Sim *sim, Column *column) {
    if (!column->has_undecoded) return;
    int keep = sim->settings.n_keep < 0 ? column->n_input : sim->settings.n_keep;
    kv_shift(&column->kv, sim->settings.max_context_len, keep);
    kv_put(&column->kv, column->undecoded);
    column->generated++;
    column->has_undecoded = false;
    if (!sim->model.embedding && !embed_outside(sim, &column->undecoded, 1)) sim->embed_failed = true;
}

static void wait_step(Sim *sim) {
    const Pace *pace = &sim->model.pace;
    int longest = 0;
    for (int i = 0; i < sim->n_columns; i++) {
        decode_last(sim, &sim->columns[i]);
        if (sim->columns[i].kv.n > longest) longest = sim->columns[i].kv.n;
    }
    double ms = pace->decode_ms + pace->decode_slope_ms * longest;
    sim->generate_ms += clock_step(&sim->clock, pace, ms * (1 + pace->batch_slope * (sim->n_columns - 1)));
}

typedef enum { GO_ON, ENDED, PAUSED } Outcome;

static Outcome give_out(Sim *sim, void *userdata) {
    Output outputs[SIM_MAX_BATCH];
    bool waiting = false, all_done = true;
    for (int i = 0; i < sim->n_columns; i++) {
        bool column_waits;
        outputs[i] = column_step(sim, &sim->columns[i], &column_waits);
        /* An array has one state: a column that waits for more bytes is a NORMAL result without text. */
        waiting = column_waits && sim->n_columns == 1;
        all_done &= sim->columns[i].done;
    }
    sim->emitted++;
    int answer = deliver(sim, userdata, outputs, waiting);
    if (sim->emitted == 1) sim->first_token_ns = now_ns();
    if (all_done || sim_aborted(sim) || sim->emitted >= sim->limit) return ENDED;
    return answer == 1 && sim->release.group >= 4 ? PAUSED : GO_ON;
}

static int generate(Sim *sim, const Infer *infer, void *userdata) {
    Outcome outcome = sim_aborted(sim) ? ENDED : GO_ON;
    while (outcome == GO_ON) {
        if (is_strike(sim->fault.kind) && sim->fault.after == sim->emitted) {
            if (sim->fault.kind == FAULT_ERROR) return deliver_error(sim, userdata);
            fault_strike(&sim->fault, &sim->clock);
        }
        /* The first token comes out of the prefill; a resumed run begins with a step. */
        if (sim->emitted > 0 || sim->paused) wait_step(sim);
        sim->paused = false;
        if (sim->embed_failed) return deliver_error(sim, userdata);
        outcome = sim_aborted(sim) ? ENDED : give_out(sim, userdata);
    }
    if (!sim->clock.virtual_time && sim->emitted > 0) sim->generate_ms = (double)(now_ns() - sim->first_token_ns) / 1e6;
    if (outcome == ENDED) return finish_run(sim, infer, userdata);
    sim->paused = true;
    sim->paused_history = infer->keep_history;
    for (int i = 0; i < sim->n_columns; i++) sim->columns[i].kv.reusable = sim->columns[i].kv.n;
    return 0;
}

/* ---- before the first token ---- */
/* Put the prompt into the KV of a column, keeping what it shares with it; returns the cost in ms. */
static double fill_kv(Sim *sim, Column *column, bool keep_history, bool may_reuse) {
    Kv *kv = &column->kv;
    int base = keep_history ? kv->history : 0, same = 0;
    if (base == 0 && may_reuse) {
        int from_file = kv_match(&sim->loaded, column->input, column->n_input, &sim->model);
        same = kv_match(kv, column->input, column->n_input, &sim->model);
        if (from_file > same) {
            kv_cut(kv, 0);
            for (same = 0; same < from_file; same++) kv_put(kv, sim->loaded.at[same]);
        }
    }
    kv_cut(kv, base + same);
    for (int i = same; i < column->n_input; i++) kv_put(kv, column->input[i]);
    column->reused = same;
    sim->prefill_tokens += column->n_input - same;
    return prefill_cost(&sim->model.pace, base + same, base + column->n_input);
}

static bool choose_lora(Sim *sim, const char *name) {
    sim->lora_seed = 0;
    if (!name) return true;
    for (int i = 0; i < sim->n_loras; i++)
        if (strcmp(sim->loras[i], name) == 0) return sim->lora_seed = sim_hash(name, strlen(name), 4), true;
    log_line('E', "lora adapter %s is not loaded", name);
    return false;
}

static void apply_fault(Sim *sim) {
    const Fault *fault = &sim->fault;
    sim->garbage = fault->kind == FAULT_GARBAGE;
    sim->endless = fault->kind == FAULT_ENDLESS;
    sim->abort_crash = fault->kind == FAULT_ABORT_CRASH;
    sim->no_finish = fault->kind == FAULT_NO_FINISH;
    if (fault->kind != FAULT_LEAK) return;
    size_t bytes = (size_t)(fault->amount * (1 << 20));
    volatile char *leaked = malloc(bytes);
    for (size_t i = 0; leaked && i < bytes; i += 512) leaked[i] = 1; /* touched, or it would cost no memory */
}

static bool read_inputs(Sim *sim, const Input *inputs, bool keep_history) {
    bool fits = true;
    sim->fault = (Fault){0};
    for (int i = 0; i < sim->n_columns; i++) {
        Column *column = &sim->columns[i];
        int base = keep_history ? column->kv.history : 0;
        column_reset(column);
        if (!input_read(sim, column, &inputs[i], base == 0)) return false;
        fits &= base + column->n_input < sim->settings.max_context_len;
        Span text = {column->prompt.at ? column->prompt.at : "", column->prompt.len};
        Prompt prompt = prompt_read(text, sim->tool_mark.len ? sim->tool_mark.at : "");
        if (i == 0) trace_begin(sim, prompt.user);
        if (!sim->fault.kind) sim->fault = rule_fault(&sim->model, ON_MATCH, prompt.user, sim->run_number);
    }
    if (!fits && sim->release.group == 1)
        log_line('E', "meet unkown shape, op name: matmul_qkv_rkllm_spilt_0, matmul run failed");
    return fits;
}

/* 1.2.3 has the first assertion: logits of token input within a conversation. Users report others in batches. */
static void check_assertion(const Sim *sim, const Input *inputs, const Infer *infer) {
    if (sim->model.batch == BATCH_ASSERTS && sim->n_columns > 1) fault_strike(&(Fault){.kind = FAULT_ABORT}, NULL);
    if (infer->mode != MODE_LOGITS || !infer->keep_history || inputs->kind != INPUT_TOKEN) return;
    if (strcmp(sim->release.version, "1.2.3") == 0) fault_strike(&(Fault){.kind = FAULT_ABORT}, NULL);
}

static int start(Sim *sim, const Input *inputs, const Infer *infer, void *userdata) {
    bool keep_history = infer->keep_history && sim->release.group > 1;
    int refuse = sim->model.fail_after_abort; /* every so many aborts the next run is refused */
    bool after_abort = sim->last_aborted && refuse && sim->aborts % refuse == 0;
    sim->run_number++;
    sim->last_aborted = false;
    sim->fault = (Fault){0};
    apply_fault(sim);
    if (after_abort || !choose_lora(sim, infer->lora) || infer->mode < 0 || infer->mode > MODE_LOGITS) return -1;
    if (infer->mode == MODE_LOGITS && sim->release.group == 1) return -1;
    if (sim->settings.use_cross_attn && !sim->cross_attn_set) {
        log_line('E', "use_cross_attn is set but rkllm_set_cross_attn_params was not called");
        return -1;
    }
    if (!read_inputs(sim, inputs, keep_history) || sim->fault.kind == FAULT_FAIL) return -1;
    check_assertion(sim, inputs, infer);
    apply_fault(sim);
    deliver_late(sim);
    if (is_strike(sim->fault.kind) && sim->fault.after < 0) {
        if (sim->fault.kind == FAULT_ERROR) return deliver_error(sim, userdata);
        fault_strike(&sim->fault, &sim->clock);
    }
    for (int i = 0; i < sim->n_columns; i++) answer_make(sim, &sim->columns[i], &inputs[i], infer);
    if (infer->mode != MODE_GENERATE && !sim->model.modes_reuse) return mode_run(sim, infer, userdata);
    bool may_reuse = inputs->kind != INPUT_EMBED || strcmp(sim->release.version, "1.2.3") >= 0;
    double cost = 0;
    for (int i = 0; i < sim->n_columns; i++) cost += fill_kv(sim, &sim->columns[i], keep_history, may_reuse);
    double waited = clock_step(&sim->clock, &sim->model.pace, sim->model.pace.floor_ms + cost);
    sim->prefill_ms = sim->clock.virtual_time ? waited : (double)(now_ns() - sim->first_token_ns) / 1e6;
    if (!sim->prefill_tokens) sim->prefill_ms = 0;
    if (infer->mode != MODE_GENERATE) return mode_run(sim, infer, userdata);
    return generate(sim, infer, userdata);
}

int sim_run(Sim *sim, const Input *inputs, const Infer *infer, void *userdata) {
    int64_t entry = now_ns();
    int limit = infer->max_new_tokens > 0 ? infer->max_new_tokens : sim->settings.max_new_tokens;
    sim->embed_failed = false;
    sim->limit = limit > 0 ? limit : INT_MAX;
    sim->emitted = sim->prefill_tokens = 0;
    sim->prefill_ms = sim->generate_ms = 0;
    sim->first_token_ns = entry; /* until there is one */
    clock_begin(&sim->clock);
    int status = sim->paused ? generate(sim, infer, userdata) : start(sim, inputs, infer, userdata);
    clock_end(&sim->clock);
    Perf perf = {.prefill_ms = (float)sim->prefill_ms, .prefill_tokens = sim->prefill_tokens};
    perf.generate_ms = (float)sim->generate_ms;
    trace_run(sim, entry, now_ns(), &perf);
    trace_end(sim);
    atomic_store(&sim->phase, IDLE);
    return status;
}

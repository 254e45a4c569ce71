/* Hidden states and logits: deterministic numbers, one row per token of the prompt, in one callback. */
#include "sim.h"

#include <stdlib.h>

enum { LARGEST_VOCABULARY = 1 << 18, MOST_FLOATS = 1 << 27 };

static float noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (1 << 23) - 1;
}

/* Every token has a direction of its own, mixed with what came before it, as attention would. */
static void fill_hidden(const Column *column, float *rows, int size) {
    for (int row = 0; row < column->n_input; row++) {
        uint32_t state = column->input[row];
        for (int i = 0; i < size; i++) {
            float before = row ? rows[(size_t)(row - 1) * (size_t)size + (size_t)i] : 0;
            rows[(size_t)row * (size_t)size + (size_t)i] = noise(&state) + 0.25f * before;
        }
    }
}

/* The highest value of a row is at the token that follows: the prompt's next, at the end the answer's first. */
static void fill_logits(const Sim *sim, const Column *column, float *rows, int size) {
    for (int row = 0; row < column->n_input; row++) {
        float *at = rows + (size_t)row * (size_t)size;
        uint32_t state = column->input[row];
        for (int i = 0; i < size; i++) at[i] = noise(&state);
        bool last = row + 1 == column->n_input;
        int32_t next = last ? (column->tokens.n ? column->tokens.at[0].id : token_eos(&sim->vocabulary))
                            : token_plain_id(&sim->vocabulary, column->input[row + 1] ^ sim->lora_seed);
        if (next < size) at[next] = 12;
    }
}

int mode_run(Sim *sim, const Infer *infer, void *userdata) {
    Column *column = sim->columns;
    bool hidden = infer->mode == MODE_HIDDEN;
    int size = hidden ? sim->model.embd_size : sim->model.vocab_size;
    if (sim->n_columns > 1 || (!hidden && size > LARGEST_VOCABULARY) || (long)column->n_input * size > MOST_FLOATS) {
        log_line('E', "this mode asks for too much memory: %d rows of %d values", column->n_input, size);
        return -1;
    }
    const Pace *pace = &sim->model.pace;
    int first = 0; /* row */
    if (sim->model.modes_reuse) {
        first = column->reused;
    } else {
        sim->prefill_tokens = column->n_input;
        sim->prefill_ms = clock_step(&sim->clock, pace, pace->floor_ms + prefill_cost(pace, 0, column->n_input));
    }
    float *rows = sim_alloc((size_t)column->n_input * (size_t)size * sizeof *rows);
    if (hidden) fill_hidden(column, rows, size);
    else fill_logits(sim, column, rows, size);
    Output output = {.token_id = 0, .n_tokens = column->n_input - first};
    const float *shown = output.n_tokens ? rows + (size_t)first * (size_t)size : NULL;
    if (hidden) output.hidden = shown, output.embd_size = size;
    else output.logits = shown, output.vocab_size = size;
    bool own_state = hidden && sim->release.group == 1;
    if (!sim_aborted(sim)) sim->client.deliver(sim, userdata, &output, 1, NULL, own_state ? STATE_HIDDEN : STATE_NORMAL);
    free(rows);
    return finish_run(sim, infer, userdata);
}

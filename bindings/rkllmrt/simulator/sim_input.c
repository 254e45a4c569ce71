/* From an input (text, token ids, embeddings, text with pictures) to the tokens that the KV compares. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static void put(Column *column, uint32_t hash) {
    if ((column->n_input & (column->n_input - 1)) == 0) /* at every power of two the array doubles */
        column->input = sim_grow(column->input, (size_t)(column->n_input ? column->n_input * 2 : 1) * sizeof(uint32_t));
    column->input[column->n_input++] = hash;
}

/* Tokens of a text by the caller's tokenizer; false with the runtime's log line when there is none or it fails. */
static bool read_outside(Sim *sim, Column *column, Span text) {
    if (!sim->client.tokenize) {
        log_line('E', "Tokenizer is unavailable: model has no internal tokenizer and no external tokenizer_callback "
                      "provided.");
        return false;
    }
    int room = (int)text.len + 16;
    int32_t *ids = sim_alloc((size_t)room * sizeof *ids);
    char *copy = sim_alloc(text.len + 1);
    memcpy(copy, text.at, text.len);
    int n = sim->client.tokenize(sim, copy, (int)text.len, ids, room);
    for (int i = 0; i < n && i < room; i++) put(column, token_hash_of_id(&sim->vocabulary, ids[i]));
    free(ids);
    free(copy);
    return n >= 0;
}

static bool read_text(Sim *sim, Column *column, Span text, size_t system_bytes) {
    if (!sim->model.tokenizer) return read_outside(sim, column, text);
    Tokens tokens = {0};
    tokens_of(&sim->vocabulary, text, &tokens);
    for (int i = 0; i < tokens.n; i++) {
        put(column, tokens.at[i].hash);
        if (tokens.at[i].start < system_bytes) column->kv.system_n = i + 1;
    }
    tokens_free(&tokens);
    return true;
}

static bool read_ids(Sim *sim, Column *column, const Input *input) {
    if (!input->ids) return false;
    bool readable = true;
    for (size_t i = 0; i < input->n; i++) {
        const char *piece = token_piece(&sim->vocabulary, input->ids[i]);
        readable &= piece != NULL;
        if (piece) text_puts(&column->prompt, piece);
        put(column, token_hash_of_id(&sim->vocabulary, input->ids[i]));
    }
    if (!readable) column->prompt.len = 0;
    return true;
}

static void read_rows(Column *column, const float *embed, size_t n, int embd_size) {
    size_t bytes = (size_t)embd_size * sizeof *embed;
    for (size_t i = 0; i < n; i++) put(column, sim_hash(embed + i * (size_t)embd_size, bytes, 2));
}

/* The next placeholder of any kind at or after `from`; its kind in *which. */
static const char *next_mark(const Input *input, Span rest, int *which) {
    const char *first = NULL;
    for (int i = 0; i < SIM_MAX_MEDIA; i++) {
        const char *at = input->media[i].mark ? span_find_exact(rest, input->media[i].mark) : NULL;
        if (at && (!first || at < first)) first = at, *which = i;
    }
    return first;
}

/* Text with placeholders: each stands for the tokens of one item; the counts must agree. */
static bool read_media(Sim *sim, Column *column, const Input *input) {
    size_t seen[SIM_MAX_MEDIA] = {0};
    Span rest = {column->prompt.at, column->prompt.len};
    const char *end = rest.at + rest.len, *at;
    for (int which = 0; (at = next_mark(input, rest, &which)); seen[which]++) {
        const Media *media = &input->media[which];
        if (!read_text(sim, column, (Span){rest.at, (size_t)(at - rest.at)}, 0)) return false;
        if (seen[which] < media->n_items && media->embed) {
            const float *item = media->embed + seen[which] * media->n_tokens * (size_t)sim->model.embd_size;
            read_rows(column, item, media->n_tokens, sim->model.embd_size);
        }
        at += strlen(media->mark);
        rest = (Span){at, (size_t)(end - at)};
    }
    for (int i = 0; i < SIM_MAX_MEDIA; i++) {
        const Media *media = &input->media[i];
        if (seen[i] == media->n_items && (!seen[i] || (media->embed && media->n_tokens))) continue;
        log_line('E', "the prompt has %zu %s but the input brings %zu", seen[i], media->mark, media->n_items);
        return false;
    }
    return read_text(sim, column, rest, 0);
}

static bool read_prompt(Sim *sim, Column *column, const Input *input, bool first_turn) {
    size_t system_bytes = 0;
    if (!input->prompt) return false;
    if (!template_render(sim, column, input, first_turn, &system_bytes)) {
        log_line('E', "role tool asks for a JSON array of results");
        return false;
    }
    if (input->kind == INPUT_MULTIMODAL) return read_media(sim, column, input);
    return read_text(sim, column, (Span){column->prompt.at, column->prompt.len}, system_bytes);
}

static bool read_any(Sim *sim, Column *column, const Input *input, bool first_turn) {
    switch (input->kind) {
    case INPUT_PROMPT:
    case INPUT_MULTIMODAL: return read_prompt(sim, column, input, first_turn);
    case INPUT_TOKEN: return read_ids(sim, column, input);
    case INPUT_EMBED:
        if (!input->embed) return false;
        read_rows(column, input->embed, input->n, sim->model.embd_size);
        return true;
    default: return false;
    }
}

/* A model without embedding layer asks the caller for the rows of its tokens. */
bool embed_outside(Sim *sim, const uint32_t *hashes, int n) {
    if (!sim->client.embed) {
        log_line('E', "Model has no embedding layer and no embed callback provided.");
        return false;
    }
    size_t bytes = (size_t)n * (size_t)sim->model.embd_size * sizeof(float);
    float *rows = sim_alloc(bytes);
    int32_t *ids = sim_alloc((size_t)n * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(hashes[i] % (uint32_t)sim->model.vocab_size);
    int status = sim->client.embed(sim, ids, (uint64_t)n, rows, bytes);
    free(rows);
    free(ids);
    return status == 0;
}

bool input_read(Sim *sim, Column *column, const Input *input, bool first_turn) {
    if (!read_any(sim, column, input, first_turn) || column->n_input == 0) return false;
    bool asks = !sim->model.embedding && input->kind != INPUT_EMBED;
    if (asks && !embed_outside(sim, column->input, column->n_input)) return false;
    /* Another LoRA computes other keys and values for the same token. */
    for (int i = 0; sim->lora_seed && i < column->n_input; i++) column->input[i] ^= sim->lora_seed;
    return true;
}

void column_reset(Column *column) {
    free(column->input);
    column->input = NULL;
    column->n_input = 0;
    column->prompt.len = column->answer.len = 0;
    column->tokens.n = column->next = 0;
    column->pending_n = 0;
    column->has_undecoded = column->done = false;
    column->generated = 0;
    column->kv.system_n = 0;
}

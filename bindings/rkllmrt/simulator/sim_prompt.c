/* Read a rendered prompt: who said what last, in ChatML, Llama 3, Gemma, Phi, Zephyr, [INST] or plain text. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *user, *close;
} TURNS[] = {
    {"<|im_start|>user\n", "<|im_end|>"},
    {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
    {"<start_of_turn>user\n", "<end_of_turn>"},
    {"<|user|>\n", "<|end|>"},
    {"<|user|>\n", "</s>"},
    {"[INST]", "[/INST]"},
    {"User:", "\nAssistant:"},
    {"Human:", "\nAssistant:"},
};

static const char *const TOOL_TURNS[] = {
    "<tool_response>", "<|im_start|>tool\n", "<|start_header_id|>ipython<|end_header_id|>",
    "<|start_header_id|>tool<|end_header_id|>", "<|tool|>\n", "<start_of_turn>tool\n", "<|tool_response|>",
};

static const char *const CLOSES[] = {
    "</tool_response>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "</s>",
};

static const char *const ASSISTANTS[] = {
    "<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<start_of_turn>model\n",
    "<|assistant|>\n", "[/INST]", "\nAssistant:",
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

static Span between(const char *from, const char *to) { return (Span){from, (size_t)(to - from)}; }

static const char *first_close(Span text) {
    const char *first = text.at + text.len;
    for (size_t i = 0; i < COUNT(CLOSES); i++) {
        const char *at = span_find_exact(between(text.at, first), CLOSES[i]);
        if (at) first = at;
    }
    return first;
}

static bool starts_with(Span text, const char *word) {
    size_t n = strlen(word);
    return text.len >= n && memcmp(text.at, word, n) == 0;
}

/* The last turn of one kind that a person wrote: templates put a tool's answer into a user turn as well. */
static const char *last_turn(Span text, const char *open, const char *mark) {
    const char *at;
    while ((at = span_find_last(text, open))) {
        const char *body = at + strlen(open);
        Span said = span_trim(between(body, text.at + text.len));
        if (!starts_with(said, "<tool_response>") && !starts_with(said, mark)) return body;
        text = between(text.at, at);
    }
    return NULL;
}

static void find_user(Prompt *prompt, const char *mark) {
    const char *end = prompt->whole.at + prompt->whole.len;
    prompt->user = span_trim(prompt->whole);
    prompt->context = (Span){prompt->whole.at, 0};
    const char *best = NULL;
    for (size_t i = 0; i < COUNT(TURNS); i++) {
        const char *body = last_turn(prompt->whole, TURNS[i].user, mark);
        if (!body || body < best) continue;
        const char *close = span_find_exact(between(body, end), TURNS[i].close);
        if (body == best && !close) continue;
        /* "User:" is a marker only where no real template is. */
        if (best && TURNS[i].user[0] != '<' && TURNS[i].user[0] != '[') continue;
        best = body;
        prompt->user = span_trim(between(body, close ? close : end));
        prompt->context = between(prompt->whole.at, body);
    }
}

static void find_result(Prompt *prompt, const char *mark) {
    const char *end = prompt->whole.at + prompt->whole.len;
    Span after = between(prompt->user.at + prompt->user.len, end);
    const char *best = NULL;
    for (size_t i = 0; i <= COUNT(TOOL_TURNS); i++) {
        const char *open = i < COUNT(TOOL_TURNS) ? TOOL_TURNS[i] : mark;
        const char *at = span_find_last(after, open);
        if (at && at + strlen(open) > best) best = at + strlen(open);
    }
    if (best) prompt->result = span_trim(between(best, first_close(between(best, end))));
}

static void find_tail(Prompt *prompt) {
    const char *end = prompt->whole.at + prompt->whole.len, *best = NULL;
    Span after = between(prompt->user.at + prompt->user.len, end);
    for (size_t i = 0; i < COUNT(ASSISTANTS); i++) {
        const char *at = span_find_last(after, ASSISTANTS[i]);
        if (at && at + strlen(ASSISTANTS[i]) > best) best = at + strlen(ASSISTANTS[i]);
    }
    if (best) prompt->tail = between(best, end);
}

Prompt prompt_read(Span text, const char *tool_mark) {
    Prompt prompt = {.whole = text, .result = {"", 0}, .tail = {"", 0}};
    char mark[128];
    snprintf(mark, sizeof mark, "<%.100s>", *tool_mark ? tool_mark : "tool_response");
    find_user(&prompt, mark);
    find_result(&prompt, mark);
    find_tail(&prompt);
    return prompt;
}

/* What the simulated model says: a rule's reply, a tool call, a story, a sum, or an echo. */
#include "sim.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_STORY = 200000, STORY_WORDS = 60 };

/* Every word is one token of sim_tokens (at most four letters), so that a story of N tokens has exactly N. */
static const char *const STORY[] = {
    "One", "day", "a", "tiny", "bot", "woke", "up", "by", "the", "sea", ".",
    "It", "had", "no", "name", "but", "it", "had", "a", "job", "to", "do", ".",
    "So", "it", "went", "up", "the", "hill", "to", "find", "the", "old", "lamp", ".",
    "The", "lamp", "was", "dark", "and", "the", "wind", "was", "cold", ".",
    "The", "moon", "came", "and", "sat", "down", "next", "to", "it", ".",
    "They", "sang", "a", "slow", "song", "as", "the", "rain", "fell", ".",
    "At", "dawn", "the", "lamp", "lit", "up", "all", "the", "land", ".",
    "And", "the", "bot", "was", "glad", ".",
};

static void tell_story(int length, bool in_tokens, Text *out) {
    const int n = sizeof STORY / sizeof *STORY;
    if (length > LONGEST_STORY) length = LONGEST_STORY;
    for (int i = 0, counted = 0; counted < length; i++) {
        const char *word = STORY[i % n];
        bool stop = *word == '.';
        if (i && !stop) text_puts(out, " ");
        text_puts(out, word);
        counted += in_tokens || !stop;
    }
    if (!in_tokens && out->len && out->at[out->len - 1] != '.') text_puts(out, ".");
}

/* ---- small skills, each true when it answered ---- */
static bool first_number(Span message, long *number) {
    for (size_t i = 0; i < message.len; i++)
        if (isdigit((unsigned char)message.at[i])) return *number = strtol(message.at + i, NULL, 10), true;
    return false;
}

static bool says_story(Span message, Text *out) {
    long number = STORY_WORDS;
    bool counted = first_number(message, &number);
    bool in_tokens = counted && span_find(message, "token");
    if (!in_tokens && !span_find(message, "story") && !(counted && span_find(message, " words"))) return false;
    tell_story(number > 0 && number < LONGEST_STORY ? (int)number : LONGEST_STORY, in_tokens, out);
    return true;
}

static bool says_count(Span message, Text *out) {
    const char *at = span_find(message, "count to ");
    long last = at ? strtol(at + 9, NULL, 10) : 0;
    if (last < 1) return false;
    for (long i = 1; i <= last && i <= LONGEST_STORY; i++) text_printf(out, i > 1 ? ", %ld" : "%ld", i);
    text_puts(out, ".");
    return true;
}

/* "say: X", "repeat: X", "repeat after me: X" */
static bool says_again(Span message, Text *out) {
    static const char *const ASKS[] = {"say:", "repeat:", "repeat after me:", "reply with:", "answer with:"};
    for (size_t i = 0; i < sizeof ASKS / sizeof *ASKS; i++) {
        const char *at = span_find(message, ASKS[i]);
        if (!at) continue;
        at += strlen(ASKS[i]);
        Span rest = span_trim((Span){at, (size_t)(message.at + message.len - at)});
        text_add(out, rest.at, rest.len);
        return rest.len > 0;
    }
    return false;
}

static const char *skip_spaces(const char *at) {
    while (*at == ' ') at++;
    return at;
}

static const char *read_operator(const char *at, char *operator) {
    static const struct {
        const char *word;
        char operator;
    } WORDS[] = {{"plus", '+'}, {"minus", '-'}, {"times", '*'}, {"divided by", '/'}, {"\xC3\x97", '*'}, {"+", '+'},
                 {"-", '-'}, {"*", '*'}, {"/", '/'}, {"x ", '*'}};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        size_t n = strlen(WORDS[i].word);
        if (strncmp(at, WORDS[i].word, n) == 0) return *operator= WORDS[i].operator, at + n;
    }
    return NULL;
}

static bool says_sum(Span message, Text *out) {
    char line[200];
    if (message.len >= sizeof line) return false;
    snprintf(line, sizeof line, "%.*s", (int)message.len, message.at);
    for (const char *at = line; *at; at++) {
        if (!isdigit((unsigned char)*at) || (at > line && isalnum((unsigned char)at[-1]))) continue;
        char *end, operator= 0;
        double a = strtod(at, &end), result = 0;
        const char *next = read_operator(skip_spaces(end), &operator);
        if (!next || !isdigit((unsigned char)*(next = skip_spaces(next)))) continue;
        double b = strtod(next, NULL);
        if (operator== '/' && b == 0) return text_puts(out, "Nothing can be divided by zero."), true;
        result = operator== '+' ? a + b : operator== '-' ? a - b : operator== '*' ? a * b : a / b;
        text_printf(out, "%.15g %c %.15g = %.10g.", a, operator, b, result);
        return true;
    }
    return false;
}

static bool says_hello(Span message, Text *out) {
    static const char *const HELLOS[] = {"hello", "hi", "hello!", "hi!", "hey", "good morning", "good evening"};
    for (size_t i = 0; i < sizeof HELLOS / sizeof *HELLOS; i++)
        if (span_is(message, HELLOS[i])) return text_puts(out, "Hello! How can I help you?"), true;
    if (span_find(message, "who are you") || span_find(message, "what are you"))
        return text_puts(out, "I am a simulated language model: no NPU was used for this answer."), true;
    if (span_find(message, "emoji")) return text_puts(out, "Here you are: \xF0\x9F\x98\x80 \xF0\x9F\x8E\x89"), true;
    return false;
}

/* "show your parameters": what arrived through the interface, so that a binding can be checked from end to end. */
static bool says_parameters(const Sim *sim, const Input *input, const Infer *infer, Span message, Text *out) {
    if (!span_find(message, "show your parameters")) return false;
    const Settings *s = &sim->settings;
    const Sampling *p = infer->sampling ? infer->sampling : &s->sampling;
    int limit = infer->max_new_tokens > 0 ? infer->max_new_tokens : s->max_new_tokens;
    text_printf(out, "max_context_len=%d max_new_tokens=%d n_keep=%d ", s->max_context_len, limit, s->n_keep);
    text_printf(out, "top_k=%d top_p=%g temperature=%g ", p->top_k, (double)p->top_p, (double)p->temperature);
    text_printf(out, "repeat_penalty=%g frequency_penalty=%g presence_penalty=%g ", (double)p->repeat_penalty,
                (double)p->frequency_penalty, (double)p->presence_penalty);
    text_printf(out, "mirostat=%d mirostat_tau=%g mirostat_eta=%g ", p->mirostat, (double)p->mirostat_tau,
                (double)p->mirostat_eta);
    text_printf(out, "skip_special_token=%d ignore_eos_token=%d is_async=%d ", s->skip_special_token,
                s->ignore_eos_token, s->is_async);
    text_printf(out, "base_domain_id=%d embed_flash=%d cpus_num=%d cpus_mask=0x%x ", s->base_domain_id, s->embed_flash,
                s->cpus_num, s->cpus_mask);
    text_printf(out, "n_batch=%d use_cross_attn=%d keep_history=%d role=%s enable_thinking=%d", s->n_batch,
                s->use_cross_attn, infer->keep_history, input->role ? input->role : "-", input->thinking);
    return true;
}

static void say_media(const Input *input, Span message, Text *out) {
    for (int i = 0; i < SIM_MAX_MEDIA && input->kind == INPUT_MULTIMODAL; i++) {
        const Media *media = &input->media[i];
        if (!media->n_items) continue;
        text_printf(out, "I got %zu %s of %zu tokens. ", media->n_items, media->mark, media->n_tokens);
    }
    text_puts(out, "You said: ");
    text_add(out, message.at, message.len);
}

static void say(Sim *sim, const Prompt *prompt, const Input *input, const Infer *infer, Text *out) {
    Span message = prompt->user;
    const char *reply = rule_reply(&sim->model, message, sim->run_number);
    if (reply) return text_puts(out, reply);
    if (input->kind == INPUT_EMBED) return text_printf(out, "You sent %zu embedded tokens.", input->n);
    if (!message.len) return text_printf(out, "You sent %zu tokens.", input->n);
    if (prompt->result.len) return tools_conclude(message, prompt->result, out);
    if (tools_call(prompt->context, message, out) || says_parameters(sim, input, infer, message, out)) return;
    if (says_again(message, out) || says_sum(message, out) || says_count(message, out)) return;
    if (says_story(message, out) || says_hello(message, out)) return;
    say_media(input, message, out);
}

/* ---- thinking, and going on where a prompt already holds the start of the answer ---- */
static bool starts_with(Span text, Span head) { return text.len >= head.len && memcmp(text.at, head.at, head.len) == 0; }

static Span right_trim(Span text) {
    while (text.len && strchr(" \n\t", text.at[text.len - 1])) text.len--;
    return text;
}

static void think(Span message, Text *out) {
    size_t shown = message.len < 60 ? message.len : 60;
    while (shown && shown < message.len && ((unsigned char)message.at[shown] & 0xC0) == 0x80) shown--;
    text_printf(out, "<think>\nThe user wrote \"%.*s\". I will answer that.\n</think>\n\n", (int)shown, message.at);
}

static void spoil(Text *text) {
    for (size_t i = 0; i < text->len; i++) text->at[i] = (char)(sim_hash(&i, sizeof i, (uint32_t)text->len) | 0x81);
}

void answer_make(Sim *sim, Column *column, const Input *input, const Infer *infer) {
    Prompt prompt = prompt_read((Span){column->prompt.at ? column->prompt.at : "", column->prompt.len},
                                sim->tool_mark.len ? sim->tool_mark.at : "");
    static const char THOUGHT_END[] = "</think>";
    const char *close = span_find_exact(prompt.tail, THOUGHT_END);
    bool closed = close != NULL, asked = span_find_exact(prompt.tail, "<think>") != NULL;
    if (closed) {
        size_t thought = (size_t)(close - prompt.tail.at) + sizeof THOUGHT_END - 1;
        prompt.tail.at += thought, prompt.tail.len -= thought;
    }
    while (closed && prompt.tail.len && *prompt.tail.at == '\n') prompt.tail.at++, prompt.tail.len--;
    Text *out = &column->answer;
    text_add(out, "", 0);
    bool may_think = sim->model.thinking && sim->release.group > 1 && input->kind != INPUT_EMBED;
    if (!closed && (asked || (may_think && !span_find(prompt.user, "/no_think")))) think(prompt.user, out);
    const char *end = sim->model.stop_at_think_end ? strstr(out->at, "</think>") : NULL;
    Text body = {0};
    say(sim, &prompt, input, infer, &body);
    if (!end) text_add(out, body.at ? body.at : "", body.len);
    else out->len = (size_t)(end - out->at) + strlen("</think>");
    text_free(&body);
    if (sim->garbage) spoil(out);
    Span whole = {out->at, out->len}, said = starts_with(whole, prompt.tail) ? prompt.tail : right_trim(prompt.tail);
    size_t skip = said.len && starts_with(whole, said) ? said.len : 0;
    memmove(out->at, out->at + skip, out->len - skip + 1);
    out->len -= skip;
    tokens_of(&sim->vocabulary, (Span){out->at, out->len}, &column->tokens);
}

/* Growable bytes and the few searches that the other parts share. */
#include "sim.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void *sim_alloc(size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) abort();
    return memory;
}

void *sim_grow(void *old, size_t bytes) {
    void *memory = realloc(old, bytes ? bytes : 1);
    if (!memory) abort();
    return memory;
}

void text_add(Text *text, const char *bytes, size_t len) {
    if (text->len + len + 1 > text->cap) {
        text->cap = (text->len + len + 1) * 2;
        text->at = sim_grow(text->at, text->cap);
    }
    if (len) memcpy(text->at + text->len, bytes, len);
    text->len += len;
    text->at[text->len] = '\0';
}

void text_puts(Text *text, const char *string) { text_add(text, string, strlen(string)); }

void text_printf(Text *text, const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (n > 0) text_add(text, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

void text_free(Text *text) {
    free(text->at);
    *text = (Text){0};
}

Span span(const char *string) { return string ? (Span){string, strlen(string)} : (Span){"", 0}; }

const char *span_find(Span hay, const char *needle) {
    size_t n = strlen(needle);
    int low = tolower((unsigned char)*needle), high = toupper((unsigned char)*needle);
    for (size_t i = 0; n && i + n <= hay.len; i++) {
        unsigned char c = (unsigned char)hay.at[i];
        if ((c == low || c == high) && strncasecmp(hay.at + i, needle, n) == 0) return hay.at + i;
    }
    return NULL;
}

const char *span_find_exact(Span hay, const char *needle) {
    size_t n = strlen(needle);
    return n ? memmem(hay.at, hay.len, needle, n) : NULL;
}

const char *span_find_last(Span hay, const char *needle) {
    const char *found = NULL, *end = hay.at + hay.len;
    for (const char *at = hay.at; (at = span_find_exact((Span){at, (size_t)(end - at)}, needle)); at++) found = at;
    return found;
}

bool span_is(Span a, const char *word) { return a.len == strlen(word) && strncasecmp(a.at, word, a.len) == 0; }

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

Span span_trim(Span a) {
    while (a.len && is_blank(a.at[0])) a.at++, a.len--;
    while (a.len && is_blank(a.at[a.len - 1])) a.len--;
    return a;
}

/* FNV-1a with a final mix, so that the low bits are worth taking a remainder of. */
uint32_t sim_hash(const void *bytes, size_t len, uint32_t seed) {
    uint32_t hash = 2166136261u ^ seed;
    for (const unsigned char *at = bytes, *end = at + len; at < end; at++) hash = (hash ^ *at) * 16777619u;
    hash ^= hash >> 16;
    hash *= 0x7feb352du;
    hash ^= hash >> 15;
    return hash;
}

/* A JSON scanner without memory of its own: it finds where values begin and end. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

enum { DEEPEST = 64 };

static const char *skip_value(const char *at, const char *end, int depth);

static const char *skip_blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    return at;
}

static const char *skip_string(const char *at, const char *end) {
    for (at++; at < end; at++) {
        if (*at == '"') return at + 1;
        if (*at == '\\') at++;
        else if ((unsigned char)*at < 0x20) return NULL;
    }
    return NULL;
}

static const char *skip_word(const char *at, const char *end) {
    const char *from = at;
    while (at < end && (strchr("+-.", *at) || (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') || *at == 'E')) {
        if (!*at) break;
        at++;
    }
    size_t n = (size_t)(at - from);
    if (!n) return NULL;
    if (*from == '-' || (*from >= '0' && *from <= '9')) return at;
    Span word = {from, n};
    return span_is(word, "true") || span_is(word, "false") || span_is(word, "null") ? at : NULL;
}

static const char *skip_container(const char *at, const char *end, int depth) {
    char close = *at == '{' ? '}' : ']';
    at = skip_blanks(at + 1, end);
    if (at < end && *at == close) return at + 1;
    while (at < end) {
        if (close == '}') {
            if (*at != '"' || !(at = skip_string(at, end))) return NULL;
            at = skip_blanks(at, end);
            if (at >= end || *at++ != ':') return NULL;
        }
        if (!(at = skip_value(at, end, depth + 1))) return NULL;
        at = skip_blanks(at, end);
        if (at < end && *at == close) return at + 1;
        if (at >= end || *at != ',') return NULL;
        at = skip_blanks(at + 1, end);
    }
    return NULL;
}

static const char *skip_value(const char *at, const char *end, int depth) {
    at = skip_blanks(at, end);
    if (at >= end || depth > DEEPEST) return NULL;
    if (*at == '"') return skip_string(at, end);
    if (*at == '{' || *at == '[') return skip_container(at, end, depth);
    return skip_word(at, end);
}

Span json_value(Span text) {
    const char *end = text.at + text.len, *from = skip_blanks(text.at, end), *to = skip_value(from, end, 0);
    return to ? (Span){from, (size_t)(to - from)} : (Span){from, 0};
}

bool json_next(Span container, size_t *at, JsonMember *member) {
    const char *end = container.at + container.len, *s = container.at + *at;
    if (!container.len || (*container.at != '{' && *container.at != '[')) return false;
    s = skip_blanks(*at ? s : s + 1, end);
    if (s < end && *s == ',') s = skip_blanks(s + 1, end);
    *member = (JsonMember){0};
    if (s >= end || *s == '}' || *s == ']') return false;
    if (*container.at == '{') {
        const char *after = skip_string(s, end);
        if (!after) return false;
        member->key = (Span){s + 1, (size_t)(after - s) - 2};
        s = skip_blanks(after, end) + 1;
    }
    member->value = json_value((Span){s, (size_t)(end - s)});
    *at = (size_t)(member->value.at + member->value.len - container.at);
    return member->value.len > 0;
}

Span json_member(Span object, const char *key) {
    JsonMember member;
    for (size_t at = 0; object.len && *object.at == '{' && json_next(object, &at, &member);)
        if (member.key.len == strlen(key) && memcmp(member.key.at, key, member.key.len) == 0) return member.value;
    return (Span){0};
}

Span json_string(Span value) {
    return value.len >= 2 && *value.at == '"' ? (Span){value.at + 1, value.len - 2} : (Span){"", 0};
}

void json_quote(Text *out, Span raw) {
    text_puts(out, "\"");
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.at[i];
        if (c == '"' || c == '\\') text_printf(out, "\\%c", c);
        else if (c < 0x20) text_printf(out, "\\u%04x", c);
        else text_add(out, raw.at + i, 1);
    }
    text_puts(out, "\"");
}

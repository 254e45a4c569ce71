/* Call a tool when the user asks to switch something and a tool of the prompt can do it; report what it answered. */
#include "sim.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Span name, description, parameters;
} Tool;

typedef struct {
    char direction[8]; /* "on", "off", "open", "close", "set", "lock", "unlock"; empty: no such request */
    char device[128], area[64], number[24];
    Span words; /* the message */
} Request;

/* ---- what the user asks ---- */
static Span next_word(Span text, size_t *at) {
    while (*at < text.len && !isalnum((unsigned char)text.at[*at]) && (unsigned char)text.at[*at] < 0x80) (*at)++;
    size_t from = *at;
    while (*at < text.len) {
        unsigned char c = (unsigned char)text.at[*at];
        bool inside = isalnum(c) || c >= 0x80 || c == '_' || c == '-' || c == '\'';
        bool point = c == '.' && *at + 1 < text.len && isalnum((unsigned char)text.at[*at + 1]);
        if (!inside && !point) break;
        (*at)++;
    }
    return (Span){text.at + from, *at - from};
}

static bool is_one_of(Span word, const char *const *list) {
    for (; *list; list++)
        if (span_is(word, *list)) return true;
    return false;
}

static void append_word(char *to, size_t room, Span word) {
    size_t used = strlen(to);
    if (used + word.len + 2 > room) return;
    if (used) to[used++] = ' ';
    memcpy(to + used, word.at, word.len);
    to[used + word.len] = '\0';
}

static Request read_request(Span user) {
    static const char *const VERBS[] = {"turn", "switch", "power", "put", "set", "dim",
                                        "open", "close", "lock", "unlock", NULL};
    static const char *const DIRECTIONS[] = {"on", "off", "open", "close", "lock", "unlock", NULL};
    static const char *const FILLERS[] = {"the", "a", "an", "please", "can", "could", "you", "would", "me", "my",
                                          "to", "now", "hey", "i", "want", "percent", "degrees", "of", "and",
                                          "for", "it", NULL};
    Request request = {.words = user};
    bool in_area = false, verb = false;
    for (size_t at = 0; at < user.len;) {
        Span word = next_word(user, &at);
        if (!word.len) break;
        bool is_direction = is_one_of(word, DIRECTIONS), is_verb = is_one_of(word, VERBS);
        verb |= is_verb;
        if (is_direction || (is_verb && (span_is(word, "set") || span_is(word, "dim")))) {
            Span name = span_is(word, "dim") ? span("set") : word;
            snprintf(request.direction, sizeof request.direction, "%.*s", (int)name.len, name.at);
        } else if (verb && (span_is(word, "in") || span_is(word, "at"))) {
            in_area = true;
        } else if (isdigit((unsigned char)*word.at)) {
            snprintf(request.number, sizeof request.number, "%.*s", (int)word.len, word.at);
        } else if (verb && !is_verb && !is_one_of(word, FILLERS)) {
            if (in_area) append_word(request.area, sizeof request.area, word);
            else append_word(request.device, sizeof request.device, word);
        }
        if (at < user.len && strchr(".!?\n", user.at[at]) && request.device[0]) break;
    }
    for (char *c = request.direction; *c; c++) *c = (char)tolower((unsigned char)*c);
    if (!verb || (!request.device[0] && !request.area[0])) request.direction[0] = '\0';
    return request;
}

/* ---- which tool fits ---- */
static bool contains_word(Span text, const char *word) {
    size_t n = strlen(word);
    for (const char *at = text.at; (at = span_find((Span){at, (size_t)(text.at + text.len - at)}, word)); at++) {
        bool hump = at > text.at && isupper((unsigned char)*at) && islower((unsigned char)at[-1]);
        bool begins = at == text.at || !isalpha((unsigned char)at[-1]) || hump;
        const char *end = at + n;
        bool ends = end >= text.at + text.len || !islower((unsigned char)*end);
        if (begins && ends) return true;
    }
    return false;
}

static const char *opposite(const char *direction) {
    static const char *const PAIRS[][2] = {{"on", "off"}, {"open", "close"}, {"lock", "unlock"}};
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        if (strcmp(direction, PAIRS[i][0]) == 0) return PAIRS[i][1];
        if (strcmp(direction, PAIRS[i][1]) == 0) return PAIRS[i][0];
    }
    return "\n";
}

static int score_tool(const Tool *tool, const Request *request) {
    const char *direction = request->direction;
    bool named = contains_word(tool->name, direction);
    if (!named && contains_word(tool->name, opposite(direction))) return 0;
    int score = named ? 10 : 0;
    if (contains_word(tool->parameters, direction) || contains_word(tool->description, direction)) score += 3;
    static const char *const VERBS[] = {"switch", "turn", "control", "set", NULL};
    for (int i = 0; VERBS[i]; i++)
        if (contains_word(tool->name, VERBS[i])) score += 3;
    if (!named && span_find(tool->description, "switch")) score += 2;
    for (size_t at = 0; score && at < strlen(request->device);) {
        char word[64];
        Span found = next_word(span(request->device), &at);
        if (found.len < 3 || found.len >= sizeof word) continue;
        snprintf(word, sizeof word, "%.*s", (int)found.len, found.at);
        bool known = span_find(tool->name, word) || span_find(tool->description, word);
        if (known || span_find(tool->parameters, word)) score += 4;
    }
    return score;
}

/* ---- its arguments ---- */
/* The enum item that the message names, with _ . - read as blanks; a direction counts as named. */
static Span chosen_item(Span items, const Request *request) {
    JsonMember member;
    for (size_t at = 0; json_next(items, &at, &member);) {
        Span item = json_string(member.value);
        char words[128];
        if (!item.len || item.len >= sizeof words) continue;
        snprintf(words, sizeof words, "%.*s", (int)item.len, item.at);
        for (char *c = words; *c; c++)
            if (strchr("_.-", *c)) *c = ' ';
        bool names_direction = contains_word(span(words), request->direction);
        const char *point = memchr(item.at, '.', item.len); /* light.kitchen_lamp: the part after the domain names it */
        const char *object = point ? words + (point + 1 - item.at) : words;
        if (span_find(request->words, object) || names_direction) return member.value;
    }
    return (Span){0};
}

/* The device as the context writes it: Home Assistant lists "Kitchen Lamp", entity ids are light.kitchen_lamp. */
static void write_device(Span context, const char *device, bool is_id, Text *out) {
    char wanted[128];
    snprintf(wanted, sizeof wanted, "%s", device);
    for (char *c = wanted; is_id && *c; c++)
        if (*c == ' ') *c = '_';
    const char *found = span_find(context, wanted), *from = found;
    while (is_id && from && from > context.at && (isalnum((unsigned char)from[-1]) || strchr("._", from[-1]))) from--;
    json_quote(out, found ? (Span){from, (size_t)(found - from) + strlen(wanted)} : span(wanted));
}

static bool is_generic(const char *device) {
    static const char *const GENERIC[] = {"light", "lights", "lamps", "switches", "fans", "everything", "all lights",
                                          NULL};
    return is_one_of(span(device), GENERIC);
}

static bool has_any(Span key, const char *const *parts) {
    for (; *parts; parts++)
        if (span_find(key, *parts)) return true;
    return false;
}

static bool write_text(Span key, Span context, const Request *request, bool required, Text *out) {
    static const char *const PLACES[] = {"area", "room", "location", "zone", NULL};
    static const char *const ACTIONS[] = {"state", "action", "command", "mode", "value", "power", NULL};
    static const char *const THINGS[] = {"name", "device", "entity", "target", "object", "item", NULL};
    if (has_any(key, PLACES)) return request->area[0] ? write_device(context, request->area, false, out), true : false;
    if (has_any(key, ACTIONS)) return json_quote(out, span(request->direction)), true;
    if (!has_any(key, THINGS) && !required) return false;
    if (is_generic(request->device) && request->area[0] && !required) return false;
    const char *device = request->device[0] ? request->device : request->area;
    write_device(context, device, span_find(key, "id") != NULL, out);
    return true;
}

static bool write_argument(JsonMember property, Span context, const Request *request, bool required, Text *out) {
    static const char *const SWITCHES[] = {"on", "off", "open", "lock", "state", "power", "enable", "value", NULL};
    Span type = json_string(json_member(property.value, "type")), items = json_member(property.value, "enum");
    if (span_is(type, "array")) {
        items = json_member(json_member(property.value, "items"), "enum");
        Span item = chosen_item(items, request);
        if (!item.len) return false;
        text_printf(out, "[%.*s]", (int)item.len, item.at);
        return true;
    }
    if (items.len) {
        Span item = chosen_item(items, request);
        text_add(out, item.at ? item.at : "", item.len);
        return item.len > 0;
    }
    if (span_is(type, "boolean")) {
        if (!required && !has_any(property.key, SWITCHES)) return false;
        bool no = strcmp(request->direction, "off") == 0 || strcmp(request->direction, "close") == 0 ||
                  strcmp(request->direction, "unlock") == 0;
        return text_puts(out, no ? "false" : "true"), true;
    }
    if (span_is(type, "integer") || span_is(type, "number")) {
        text_puts(out, request->number);
        return request->number[0] != '\0';
    }
    return write_text(property.key, context, request, required, out);
}

static bool is_required(Span parameters, Span key) {
    Span list = json_member(parameters, "required");
    JsonMember member;
    for (size_t at = 0; list.len && json_next(list, &at, &member);) {
        Span name = json_string(member.value);
        if (name.len == key.len && memcmp(name.at, key.at, key.len) == 0) return true;
    }
    return false;
}

static bool write_arguments(const Tool *tool, Span context, const Request *request, Text *out) {
    Span properties = json_member(tool->parameters, "properties");
    JsonMember property;
    bool any = false;
    text_puts(out, "{");
    for (size_t at = 0; properties.len && json_next(properties, &at, &property);) {
        bool required = is_required(tool->parameters, property.key);
        Text value = {0};
        bool filled = write_argument(property, context, request, required, &value);
        if (filled) text_printf(out, "%s\"%.*s\": ", any ? ", " : "", (int)property.key.len, property.key.at);
        if (filled) text_add(out, value.at, value.len);
        any |= filled;
        text_free(&value);
        if (required && !filled) return false;
    }
    text_puts(out, "}");
    return any;
}

/* ---- finding tools in the text of a prompt ---- */
static bool read_tool(Span object, Tool *tool) {
    Span inner = json_member(object, "function");
    if (inner.len && *inner.at == '{') object = inner;
    tool->name = json_string(json_member(object, "name"));
    tool->description = json_string(json_member(object, "description"));
    tool->parameters = json_member(object, "parameters");
    return tool->name.len && tool->parameters.len;
}

bool tools_call(Span context, Span user, Text *out) {
    Request request = read_request(user);
    if (!request.direction[0]) return false;
    int best = 3;
    const char *end = context.at + context.len, *at = context.at;
    for (long budget = 1 << 22; budget > 0 && (at = memchr(at, '{', (size_t)(end - at)));) {
        Span object = json_value((Span){at, (size_t)(end - at)});
        Tool tool;
        budget -= object.len ? (long)object.len : 4096;
        if (!object.len || !read_tool(object, &tool)) {
            at++;
            continue;
        }
        at = object.at + object.len;
        int score = score_tool(&tool, &request);
        Text arguments = {0};
        if (score > best && write_arguments(&tool, context, &request, &arguments)) {
            best = score;
            out->len = 0;
            text_puts(out, "<tool_call>\n{\"name\": ");
            json_quote(out, tool.name);
            text_puts(out, ", \"arguments\": ");
            text_add(out, arguments.at, arguments.len);
            text_puts(out, "}\n</tool_call>");
        }
        text_free(&arguments);
    }
    return best > 3;
}

static const char *outcome_of(const char *direction) {
    if (strcmp(direction, "close") == 0) return "closed";
    if (strcmp(direction, "lock") == 0) return "locked";
    return strcmp(direction, "unlock") == 0 ? "unlocked" : direction;
}

void tools_conclude(Span user, Span result, Text *out) {
    Request request = read_request(user);
    static const char *const FAILURES[] = {"\"error\"", "\"success\": false", "\"success\":false", NULL};
    bool failed = has_any(result, FAILURES);
    size_t shown = result.len < 300 ? result.len : 300;
    while (shown && shown < result.len && ((unsigned char)result.at[shown] & 0xC0) == 0x80) shown--;
    if (failed) text_printf(out, "Sorry, that did not work: %.*s", (int)shown, result.at);
    else if (request.direction[0] && strcmp(request.direction, "set") != 0) {
        const char *what = request.device[0] ? request.device : request.area, *done = outcome_of(request.direction);
        bool many = is_generic(what) && what[strlen(what) - 1] == 's';
        text_printf(out, "Done, the %s %s %s.", what, many ? "are" : "is", done);
    } else text_printf(out, "Done. The result is: %.*s", (int)shown, result.at);
}

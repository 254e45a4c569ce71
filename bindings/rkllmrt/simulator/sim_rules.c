/* Rules of a model: what to answer when, and which fault strikes when.
 *
 *     when "PHRASE": reply "TEXT", fault KIND [NUMBER ms|mb] [in prefill | after N tokens] [first N times]
 *     on run N: ...   every N runs: ...   always: ...   on init: ...   on destroy: ...
 */
#include "sim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    FaultKind kind;
} KINDS[] = {
    {"abort", FAULT_ABORT}, {"segv", FAULT_SEGV}, {"exit", FAULT_EXIT}, {"hang", FAULT_HANG},
    {"stall", FAULT_STALL}, {"error", FAULT_ERROR}, {"fail", FAULT_FAIL}, {"endless", FAULT_ENDLESS},
    {"garbage", FAULT_GARBAGE}, {"leak", FAULT_LEAK}, {"crash-in-abort", FAULT_ABORT_CRASH},
    {"no-finish", FAULT_NO_FINISH}, {"null", FAULT_NULL},
};

static void skip_blanks(const char **at) {
    while (**at == ' ' || **at == '\t') (*at)++;
}

static bool take(const char **at, const char *word) {
    skip_blanks(at);
    size_t n = strlen(word);
    if (strncmp(*at, word, n) != 0) return false;
    char next = (*at)[n];
    bool letters = word[n - 1] >= 'a' && word[n - 1] <= 'z';
    if (letters && ((next >= 'a' && next <= 'z') || next == '-' || next == '_')) return false;
    *at += n;
    return true;
}

static bool take_number(const char **at, double *number) {
    skip_blanks(at);
    char *end;
    *number = strtod(*at, &end);
    if (end == *at || *number < 0) return false;
    *at = end;
    return true;
}

static bool take_count(const char **at, int *count) {
    double number;
    if (!take_number(at, &number) || number > 1e9) return false;
    *count = (int)number;
    return true;
}

/* A "quoted" string with \n \t \" \\ \xHH; NULL when there is none. */
static char *take_string(const char **at) {
    skip_blanks(at);
    if (**at != '"') return NULL;
    Text text = {0};
    text_add(&text, "", 0);
    const char *s = *at + 1;
    for (; *s && *s != '"'; s++) {
        char c = *s;
        unsigned byte;
        if (c == '\\' && s[1]) {
            c = *++s;
            if (c == 'n') c = '\n';
            else if (c == 't') c = '\t';
            else if (c == 'x' && sscanf(s + 1, "%2x", &byte) == 1) c = (char)byte, s += 2;
        }
        text_add(&text, &c, 1);
    }
    if (*s != '"') return text_free(&text), NULL;
    *at = s + 1;
    return text.at;
}

static bool parse_fault(const char **at, Fault *fault) {
    fault->after = -1;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS && !fault->kind; i++)
        if (take(at, KINDS[i].name)) fault->kind = KINDS[i].kind;
    if (!fault->kind) return false;
    if (take_number(at, &fault->amount)) (void)(take(at, "ms") || take(at, "mb"));
    for (;;) {
        if (take(at, "in")) {
            if (!take(at, "prefill")) return false;
        } else if (take(at, "after")) {
            if (!take_count(at, &fault->after) || !(take(at, "tokens") || take(at, "token"))) return false;
        } else if (take(at, "first")) {
            if (!take_count(at, &fault->first)) return false;
            (void)(take(at, "times") || take(at, "time"));
        } else {
            return true;
        }
    }
}

static bool parse_occasion(const char **at, Rule *rule) {
    if (take(at, "when")) {
        rule->occasion = ON_MATCH;
        return (rule->phrase = take_string(at)) != NULL;
    }
    if (take(at, "on")) {
        if (take(at, "init")) return rule->occasion = ON_INIT, true;
        if (take(at, "destroy")) return rule->occasion = ON_DESTROY, true;
        rule->occasion = ON_RUN;
        return take(at, "run") && take_count(at, &rule->number);
    }
    if (take(at, "every")) {
        rule->occasion = ON_EVERY;
        return take_count(at, &rule->number) && rule->number > 0 && (take(at, "runs") || take(at, "run"));
    }
    rule->occasion = ON_ALWAYS;
    return take(at, "always");
}

bool rule_parse(const char *line, Rule *rule, char *why, size_t room) {
    const char *at = line;
    *rule = (Rule){0};
    if (!parse_occasion(&at, rule) || !take(&at, ":")) {
        snprintf(why, room, "a rule begins with when \"...\":, on run N:, every N runs:, always:, on init: or "
                            "on destroy:");
        return false;
    }
    do {
        if (take(&at, "reply")) {
            if (!(rule->reply = take_string(&at))) return snprintf(why, room, "reply needs a \"quoted text\""), false;
        } else if (take(&at, "fault")) {
            if (!parse_fault(&at, &rule->fault)) return snprintf(why, room, "unknown fault: %.60s", at), false;
        } else {
            return snprintf(why, room, "expected reply or fault, got: %.60s", at), false;
        }
    } while (take(&at, ","));
    skip_blanks(&at);
    if (*at) return snprintf(why, room, "unexpected text after the rule: %.60s", at), false;
    return true;
}

static bool applies(const Rule *rule, Occasion occasion, Span message, int run) {
    if (occasion == ON_INIT || occasion == ON_DESTROY) return rule->occasion == occasion;
    switch (rule->occasion) {
    case ON_MATCH: return span_find(message, rule->phrase) != NULL;
    case ON_RUN: return run == rule->number;
    case ON_EVERY: return run % rule->number == 0;
    case ON_ALWAYS: return true;
    default: return false;
    }
}

const char *rule_reply(const Model *model, Span message, int run) {
    for (int i = 0; i < model->n_rules; i++)
        if (model->rules[i].reply && applies(&model->rules[i], ON_MATCH, message, run)) return model->rules[i].reply;
    return NULL;
}

/* Count one more strike of rule number `index` in the state file, which outlives the process; the count before. */
static int count_in_file(const char *path, int index) {
    int count = 0, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return 0;
    off_t at = (off_t)index * (off_t)sizeof count;
    flock(fd, LOCK_EX);
    if (pread(fd, &count, sizeof count, at) != sizeof count) count = 0;
    int before = count++;
    if (pwrite(fd, &count, sizeof count, at) < 0) before = 0;
    close(fd);
    return before;
}

Fault rule_fault(Model *model, Occasion occasion, Span message, int run) {
    for (int i = 0; i < model->n_rules; i++) {
        Rule *rule = &model->rules[i];
        if (!rule->fault.kind || !applies(rule, occasion, message, run)) continue;
        if (rule->fault.first > 0) {
            int before = model->fault_state[0] ? count_in_file(model->fault_state, i) : rule->struck++;
            if (before >= rule->fault.first) continue;
        }
        return rule->fault;
    }
    return (Fault){0};
}

static void hang(void) {
    for (;;) nanosleep(&(struct timespec){.tv_sec = 3600}, NULL);
}

void fault_strike(const Fault *fault, Clock *clock) {
    switch (fault->kind) {
    case FAULT_ABORT:
        fputs("rknn-llm/src/ggml-backend.c:1427: GGML_ASSERT(backend_res != nullptr) failed\n", stderr);
        abort();
    case FAULT_SEGV: raise(SIGSEGV); break;
    case FAULT_EXIT: _exit(fault->amount > 0 ? (int)fault->amount : 3);
    case FAULT_HANG: hang(); break;
    case FAULT_STALL: clock_plain(clock, fault->amount); break;
    default: break;
    }
}

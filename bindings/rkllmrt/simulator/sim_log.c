/* The lines that the runtime prints on stdout, through C stdio: block-buffered in a pipe, lost in a crash. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RULE "--------------------------------------------------------------------------------------"

void log_line(char level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("%c rkllm: ", level);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

static void log_cpus(const Settings *settings) {
    char list[64] = "";
    int n = 0;
    for (int cpu = 0; cpu < 8; cpu++) {
        if (!(settings->cpus_mask >> cpu & 1)) continue;
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%d", n++ ? ", " : "", cpu);
    }
    log_line('I', "Enabled cpus: [%s]", list);
    log_line('I', "Enabled cpus num: %d", settings->cpus_num);
}

static void log_details(const Sim *sim) {
    log_line('I', "vocab_size: %d", sim->model.vocab_size);
    const char *format = sim->release.group >= 5 ? "EOS token[0]: %d '%s'" : "EOS token: %d '%s'";
    log_line('I', format, token_eos(&sim->vocabulary), sim->model.eos_text);
}

void log_banner(const Sim *sim) {
    const Model *model = &sim->model;
    const char *toolkit = model->toolkit[0] ? model->toolkit : sim->release.version;
    if (sim->release.group < 2) return;
    log_line('I', "rkllm-toolkit version: %s, max_context_limit: %d, npu_core_num: %d, target_platform: %s, "
                  "model_dtype: %s", toolkit, model->max_context, model->npu_core_num, model->platform, model->dtype);
    log_cpus(&sim->settings);
    if (sim->log_level >= 2) log_details(sim);
}

static void log_stage(const char *name, double total_ms, int tokens) {
    double each = tokens > 0 ? total_ms / tokens : 0, rate = total_ms > 0 ? tokens * 1e3 / total_ms : 0;
    log_line('I', " %-13s %-16.2f %-9d %-23.2f %-22.2f ", name, total_ms, tokens, each, rate);
}

void log_perf(const Sim *sim, const Perf *perf) {
    if (sim->log_level < 1) return;
    bool with_init_row = sim->release.group <= 3;
    log_line('I', RULE);
    if (!with_init_row) {
        log_line('I', " Model init time (ms)  %.2f", sim->init_ms);
        log_line('I', RULE);
    }
    log_line('I', " %-13s %-16s %-9s %-23s %-22s ", "Stage", "Total Time (ms)", "Tokens", "Time per Token (ms)",
             "Tokens per Second");
    log_line('I', RULE);
    if (with_init_row) log_line('I', " %-13s %-16.2f %-9s %-23s %-22s ", "Init", sim->init_ms, "/", "/", "/");
    log_stage("Prefill", (double)perf->prefill_ms, perf->prefill_tokens);
    log_stage("Generate", (double)perf->generate_ms, perf->generate_tokens);
    log_line('I', RULE);
    log_line('I', with_init_row ? " Memory Usage (GB)" : " Peak Memory Usage (GB)");
    log_line('I', " %.2f", (double)perf->memory_mb / 1024);
    log_line('I', RULE);
    if (sim->log_level >= 2) log_line('I', "kv cache length: %d", sim->columns[0].kv.n);
}

float memory_peak_mb(void) {
    char line[256];
    long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (status) fclose(status);
    return (float)kilobytes / 1024;
}

void trace_run(const Sim *sim, int64_t entry_ns, int64_t return_ns, const Perf *perf) {
    const char *path = getenv("RKLLM_SIM_TRACE");
    FILE *file = path && *path ? fopen(path, "ae") : NULL;
    if (!file) return;
    fprintf(file,
            "{\"run\": %d, \"entry_ns\": %lld, \"return_ns\": %lld, \"prefill_tokens\": %d, \"emitted\": %d, "
            "\"prefill_ms\": %.3f, \"generate_ms\": %.3f, \"aborted\": %s}\n",
            sim->run_number, (long long)entry_ns, (long long)return_ns, perf->prefill_tokens, sim->emitted,
            (double)perf->prefill_ms, (double)perf->generate_ms, sim->last_aborted ? "true" : "false");
    fclose(file);
}

static FILE *open_prompts(void) {
    const char *path = getenv("RKLLM_SIM_PROMPTS");
    return path && *path ? fopen(path, "ae") : NULL;
}

void trace_begin(const Sim *sim, Span user) {
    FILE *file = open_prompts();
    if (!file) return;
    Text quoted = {0};
    json_quote(&quoted, user);
    fprintf(file, "{\"pid\": %d, \"run\": %d, \"begin_ns\": %lld, \"user\": %s}\n", (int)getpid(), sim->run_number,
            (long long)now_ns(), quoted.at);
    fclose(file);
    text_free(&quoted);
}

void trace_end(const Sim *sim) {
    FILE *file = open_prompts();
    if (!file) return;
    fprintf(file, "{\"pid\": %d, \"run\": %d, \"end_ns\": %lld}\n", (int)getpid(), sim->run_number,
            (long long)now_ns());
    fclose(file);
}

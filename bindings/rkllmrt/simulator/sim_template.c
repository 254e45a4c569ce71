/* The chat template that a converted model carries, as the runtime applies it to PROMPT input. */
#include "sim.h"

#include <string.h>

typedef struct {
    const char *begin, *system_open, *system_close, *user_open, *assistant_open, *eos;
} Shape;

static const Shape SHAPES[] = {
    [TEMPLATE_NONE] = {"", "", "\n", "", "", "</s>"},
    [TEMPLATE_CHATML] = {"", "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n",
                         "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"},
    [TEMPLATE_LLAMA3] = {"<|begin_of_text|>", "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
                         "<|start_header_id|>user<|end_header_id|>\n\n",
                         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
    [TEMPLATE_GEMMA] = {"<bos>", "<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>user\n",
                        "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"},
    [TEMPLATE_PHI] = {"", "<|system|>\n", "<|end|>\n", "<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>"},
    [TEMPLATE_ZEPHYR] = {"", "<|system|>\n", "</s>\n", "<|user|>\n", "</s>\n<|assistant|>\n", "</s>"},
};

const char *template_eos(int chat_template) { return SHAPES[chat_template].eos; }

static void add_text(Text *out, const Text *part) { text_add(out, part->at ? part->at : "", part->len); }

static void add_system(Sim *sim, const Shape *shape, Text *out) {
    text_puts(out, shape->begin);
    if (!sim->tools.len && !sim->system.len) return;
    text_puts(out, shape->system_open);
    add_text(out, &sim->system);
    if (sim->tools.len) {
        text_puts(out, "\n\n# Tools\n\nYou may call one or more functions.\n\n<tools>\n");
        add_text(out, &sim->tools);
        text_puts(out, "\n</tools>");
    }
    text_puts(out, shape->system_close);
}

static bool add_tool_result(Sim *sim, const Shape *shape, const char *json, Text *out) {
    Span text = span(json);
    Span value = json_value(text);
    if (!value.len || span_trim(text).len != value.len || (*value.at != '[' && *value.at != '{')) return false;
    const char *mark = sim->tool_mark.len ? sim->tool_mark.at : "tool_response";
    text_puts(out, shape->user_open);
    text_printf(out, "<%s>\n", mark);
    text_add(out, value.at, value.len);
    text_printf(out, "\n</%s>", mark);
    text_puts(out, shape->assistant_open);
    return true;
}

bool template_render(Sim *sim, Column *column, const Input *input, bool first_turn, size_t *system_bytes) {
    Text *out = &column->prompt;
    bool is_tool = input->role && strcmp(input->role, "tool") == 0;
    const Shape *shape = &SHAPES[sim->release.group == 1 ? TEMPLATE_NONE : sim->model.chat_template];
    if (is_tool) {
        if (column == sim->columns) add_text(out, &sim->turn);
        *system_bytes = 0;
        return add_tool_result(sim, shape, input->prompt, out);
    }
    if (sim->raw_template) {
        if (first_turn) add_text(out, &sim->system);
        *system_bytes = out->len;
        add_text(out, &sim->prefix);
        text_puts(out, input->prompt);
        add_text(out, &sim->postfix);
        return true;
    }
    if (first_turn) add_system(sim, shape, out);
    *system_bytes = out->len;
    text_puts(out, shape->user_open);
    text_puts(out, input->prompt);
    text_puts(out, shape->assistant_open);
    bool can_think = sim->model.thinking && shape->assistant_open[0];
    if (can_think && sim->release.group >= 4 && !input->thinking) text_puts(out, "<think>\n\n</think>\n\n");
    return true;
}

static void set(Text *text, const char *value) {
    text->len = 0;
    text_puts(text, value ? value : "");
}

static void log_escaped(const char *name, const Text *text) {
    Text line = {0};
    for (size_t i = 0; i < text->len; i++) {
        if (text->at[i] == '\n') text_puts(&line, "\\n");
        else text_add(&line, text->at + i, 1);
    }
    log_line('I', "%s: %s", name, line.at ? line.at : "");
    text_free(&line);
}

int sim_set_template(Sim *sim, const char *system, const char *prefix, const char *postfix) {
    if (!system || !prefix || !postfix) return -1;
    set(&sim->system, system);
    set(&sim->prefix, prefix);
    set(&sim->postfix, postfix);
    sim->raw_template = true;
    log_line('I', "reset chat template:");
    log_escaped("system_prompt", &sim->system);
    log_escaped("prompt_prefix", &sim->prefix);
    log_escaped("prompt_postfix", &sim->postfix);
    log_line('W', "Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, "
                  "including enable_thinking. Make sure your custom prompt is complete and valid.");
    return 0;
}

int sim_set_tools(Sim *sim, const char *system, const char *tools, const char *mark) {
    Span array = json_value(span(tools));
    if (!array.len || *array.at != '[' || span_trim(span(tools)).len != array.len) {
        log_line('E', "the tools are not a JSON array");
        return -1;
    }
    set(&sim->system, system);
    set(&sim->tools, tools);
    set(&sim->tool_mark, mark);
    return 0;
}

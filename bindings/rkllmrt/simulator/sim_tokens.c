/* A deterministic, reversible tokeniser: about 3.5 Latin letters a token, one per CJK character, three per emoji.
 *
 * Pieces joined give back the text, byte for byte. It reads from left to right and looks ahead only within a word, so
 * texts with a common start have common tokens, except for the one at the border: as with a real vocabulary.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 5, BLANK_RUN = 4 };

static const char *const SPECIALS[] = {
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<|eom_id|>", "<|begin_of_text|>", "<|end_of_text|>", "<|python_tag|>", "<start_of_turn>", "<end_of_turn>",
    "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<tool_response>", "</tool_response>", "<bos>", "<eos>", "<s>", "</s>", "[INST]", "[/INST]",
};
enum { N_SPECIALS = sizeof SPECIALS / sizeof *SPECIALS };

void vocabulary_open(Vocabulary *vocabulary, int size, const char *eos_text) {
    vocabulary->size = size;
    vocabulary->pieces = sim_alloc((size_t)size * sizeof *vocabulary->pieces);
    strncpy(vocabulary->eos_text, eos_text, sizeof vocabulary->eos_text - 1);
}

void vocabulary_close(Vocabulary *vocabulary) {
    free(vocabulary->pieces);
    vocabulary->pieces = NULL;
}

void tokens_add(Tokens *tokens, Token token) {
    if (tokens->n == tokens->cap) {
        tokens->cap = tokens->cap ? tokens->cap * 2 : 256;
        tokens->at = sim_grow(tokens->at, (size_t)tokens->cap * sizeof *tokens->at);
    }
    tokens->at[tokens->n++] = token;
}

void tokens_free(Tokens *tokens) {
    free(tokens->at);
    *tokens = (Tokens){0};
}

static bool is_letter(unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Length of the letter at s (ASCII, or a two-byte Latin, Greek or Cyrillic one); 0 when it is none. */
static size_t letter_length(const unsigned char *s, size_t left) {
    if (left && is_letter(s[0])) return 1;
    return left >= 2 && s[0] >= 0xC3 && s[0] <= 0xD4 && (s[1] & 0xC0) == 0x80 ? 2 : 0;
}

static size_t word_length(const unsigned char *s, size_t left, size_t taken) {
    for (size_t n; (n = letter_length(s + taken, left - taken)) && taken + n <= PIECE_BYTES;) taken += n;
    return taken;
}

static size_t blank_length(const unsigned char *s, size_t left) {
    size_t run = 1;
    while (run < left && s[run] == ' ') run++;
    if (run == left || !letter_length(s + run, left - run)) return run < BLANK_RUN ? run : BLANK_RUN;
    if (run > 1) return run - 1 < BLANK_RUN ? run - 1 : BLANK_RUN;
    return word_length(s, left, 1);
}

/* Length of a character's first piece: whole for CJK and typography, cut for symbols (two bytes and the rest). */
static size_t wide_length(const unsigned char *s, size_t left) {
    if (s[0] >= 0xF0) return left >= 2 ? 2 : 1;
    if (s[0] < 0xE0) return s[0] >= 0xC2 && left >= 2 ? 2 : 1;
    if (left < 3) return 1;
    unsigned code = (unsigned)(s[0] & 0x0F) << 12 | (unsigned)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
    return code >= 0x2190 && code < 0x2E80 ? 2 : 3;
}

static int special_at(const char *s, size_t left, const char *eos_text, size_t *len) {
    if (*s != '<' && *s != '[' && *s != eos_text[0]) return -1;
    for (int i = 0; i < N_SPECIALS; i++) {
        size_t n = strlen(SPECIALS[i]);
        if (n <= left && memcmp(s, SPECIALS[i], n) == 0) return *len = n, i;
    }
    size_t n = strlen(eos_text);
    if (n && n <= left && memcmp(s, eos_text, n) == 0) return *len = n, N_SPECIALS;
    return -1;
}

static size_t piece_length(const char *text, size_t left) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] == '\n') return left > 1 && s[1] == '\n' ? 2 : 1;
    if (s[0] == ' ') return blank_length(s, left);
    if (letter_length(s, left)) return word_length(s, left, 0);
    return s[0] >= 0x80 ? wide_length(s, left) : 1;
}

static int32_t special_id(const Vocabulary *vocabulary, int index) { return vocabulary->size - N_SPECIALS - 1 + index; }

int32_t token_plain_id(const Vocabulary *vocabulary, uint32_t hash) {
    return (int32_t)(hash % (uint32_t)(vocabulary->size - N_SPECIALS - 1));
}

void tokens_of(Vocabulary *vocabulary, Span text, Tokens *out) {
    for (size_t at = 0; at < text.len;) {
        size_t len = 0;
        int special = special_at(text.at + at, text.len - at, vocabulary->eos_text, &len);
        if (special < 0) len = piece_length(text.at + at, text.len - at);
        Token token = {.hash = sim_hash(text.at + at, len, 0), .start = (uint32_t)at, .len = (uint16_t)len};
        token.special = special >= 0;
        token.id = token.special ? special_id(vocabulary, special) : token_plain_id(vocabulary, token.hash);
        if (!token.special) {
            char *piece = vocabulary->pieces[token.id];
            memcpy(piece, text.at + at, len);
            piece[len] = '\0';
        }
        tokens_add(out, token);
        at += len;
    }
}

const char *token_piece(const Vocabulary *vocabulary, int32_t id) {
    if (id < 0 || id >= vocabulary->size) return NULL;
    int special = id - special_id(vocabulary, 0);
    if (special >= 0) return special == N_SPECIALS ? vocabulary->eos_text : SPECIALS[special];
    return vocabulary->pieces[id][0] ? vocabulary->pieces[id] : NULL;
}

int32_t token_eos(const Vocabulary *vocabulary) {
    size_t len;
    int special = special_at(vocabulary->eos_text, strlen(vocabulary->eos_text), vocabulary->eos_text, &len);
    return special_id(vocabulary, special < 0 ? N_SPECIALS : special);
}

uint32_t token_hash_of_id(const Vocabulary *vocabulary, int32_t id) {
    const char *piece = token_piece(vocabulary, id);
    return piece ? sim_hash(piece, strlen(piece), 0) : sim_hash(&id, sizeof id, 1);
}

bool utf8_incomplete(const char *bytes, size_t len) {
    const unsigned char *s = (const unsigned char *)bytes;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = s[len - back];
        if (c < 0x80) return false;
        if (c >= 0xC0) return back < (c >= 0xF0 ? 4u : c >= 0xE0 ? 3u : 2u);
    }
    return false;
}

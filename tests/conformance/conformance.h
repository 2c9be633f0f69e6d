// SPDX-License-Identifier: GPL-2.0-or-later
// Instruction conformance: forms taken from the interpreter's instruction table, inputs made at random with many edges,
// expected results from the host processor itself, compared with an engine that runs the same bytes in ring 3 of a
// small machine. A worker process is one thread; nothing here is shared between threads.
#ifndef CLOCHE_CONFORMANCE_H
#define CLOCHE_CONFORMANCE_H

#include "core/cpu/interpret/interpret.h"

#include <inttypes.h>
#include <stdio.h>

// The same addresses on the host and in the machine: data (read-write, then one read-only page, then nothing) and code.
#define DATA_BASE     0x10000000ull
#define DATA_SIZE     0x4000u // writable part
#define DATA_READONLY (DATA_BASE + DATA_SIZE)
#define DATA_ALL      (DATA_SIZE + 0x1000u)
#define CODE_BASE     0x20000000ull
#define CODE_SIZE     0x10000u

#define SELECTOR_CODE32 0x23 // as Linux has them
#define SELECTOR_DATA   0x2b
#define SELECTOR_CODE64 0x33

#define XSAVE_BYTES 832 // legacy region, header, AVX

// A processor as user code sees it.
struct state {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    union {
        uint8_t xsave[XSAVE_BYTES];
        uint64_t align;
    };
    struct avx512_state {
        uint64_t opmask[8];
        uint8_t zmmh[16][32];
        uint8_t zmm16[16][64];
    } avx512;
};
// 16 bytes of a vector register's 64 in S: PIECE 0 to 3.
uint8_t *state_vector(struct state *s, unsigned number, unsigned piece);
// AVX-512 state takes part: the engine runs it, and the host has it. Set once at the start.
extern bool with_avx512;

// How running ended: at the INT3 that fills the code region after and around the instruction, or by an exception.
#define OUTCOME_DONE (-1)
struct outcome {
    struct state state;
    int exception; // vector, or OUTCOME_DONE
    uint32_t error_code;
    uint64_t cr2; // of a page fault
};

#define WINDOW_MAX 2688
struct window {
    uint64_t address;
    unsigned size;
    uint8_t bytes[WINDOW_MAX];
};

struct form;
struct vector {
    const struct form *form; // of a single instruction
    bool is_64;
    uint8_t length; // of the code
    uint8_t bytes[255];
    struct state in;         // rip: where the code is put
    struct window window[2]; // memory contents; size 0: unused
    // For the comparison:
    uint64_t undefined_flags; // RFLAGS bits
    uint16_t undefined_fsw;
    bool approximate; // the last place of x87 results is free
    struct {
        uint64_t address;
        unsigned size;
    } ignore[3]; // memory that may differ (x87 pointers)
};

// ---- Forms (forms.c) ----

struct form {
    char *key; // mnemonic, operands, encoding: readable and unique
    bool is_64;
    bool is_vex, has_modrm, is_memory, is_vsib;
    bool reg_free, rm_free; // the ModRM fields are operands
    uint8_t prefix[2];      // 66, F2, F3 or 0
    uint8_t rex_w, map, opcode, modrm, vex_pp, vex_l;
    bool is_evex, evex_b, evex_mask; // evex_b: broadcast or rounding; evex_mask: an opmask is allowed
    bool is_avx512;                  // EVEX, or of opmask registers
    uint8_t isa_set;
    uint16_t mnemonic;
    unsigned vectors; // run so far
    unsigned failures;
    const char *excluded; // reason, or NULL
};
// Every form of every row of the instruction table that the decoder knows. Free with g_ptr_array_unref().
GPtrArray *forms_enumerate(void);
// Key of decoded code, to tell whether it is still the same form.
void form_key(const struct decoded *d, bool is_64, char *key, size_t size);
bool decode_bytes(bool is_64, const uint8_t *bytes, size_t size, struct decoded *d);

// ---- Inputs (generate.c) ----

struct random {
    uint64_t state;
};
uint64_t random_next(struct random *r);
static inline unsigned random_below(struct random *r, unsigned n)
{
    return (unsigned)(random_next(r) >> 33) % n;
}
// False when no usable instance was found in a few tries.
bool generate(struct random *r, const struct form *form, struct vector *v);
// A run of COUNT random instructions without branches or implicit addresses.
bool generate_sequence(struct random *r, const GPtrArray *forms, bool is_64, unsigned count, struct vector *v);

// ---- What is undefined (undefined.c) ----

// False: the whole result is undefined, and the vector is useless.
bool mark_undefined(const struct decoded *d, struct vector *v);

// ---- The host (native.c, x86-64 only) ----

bool native_init(GError **error);
uint8_t *native_data(void);
// The engine has signal handlers of its own on this thread, and memory at low addresses: each native run puts our
// handlers in place for its time and hides that memory.
void native_share_process(void);
void native_seal(void); // after the read-only page has its contents
void native_run(const struct vector *v, struct outcome *out);

// ---- The machine (guest.c) ----

struct guest;
struct guest *guest_new(const char *engine, GError **error);
uint8_t *guest_data(struct guest *g);
void guest_run(struct guest *g, const struct vector *v, struct outcome *out);
void guest_free(struct guest *g);

// ---- Comparison (compare.c) ----

// Appends a line per difference to TEXT. True: none.
bool compare_outcomes(const struct vector *v, const struct outcome *expected, const struct outcome *got,
                      const uint8_t *expected_data, uint8_t *got_data, GString *text);
void describe_vector(const struct vector *v, GString *text);

// ---- Excluded forms (excluded.c) ----

struct exclusion {
    char *pattern, *reason;
    bool whole, used;
};
GPtrArray *exclusions_load(const char *path, GError **error);
// Marks the forms; returns how many.
unsigned exclude_forms(GPtrArray *forms, GPtrArray *exclusions);

// ---- Recorded results (record.c): inputs come from the seed again; the file has a hash of them and what changed ----

struct recording;
struct recording_header {
    uint64_t seed, per_form, forms;
};
struct recording *recording_create(const char *path, const struct recording_header *header, GError **error);
struct recording *recording_open(const char *path, struct recording_header *header, GError **error);
// BEFORE and AFTER: DATA_ALL bytes.
bool recording_write(struct recording *r, const struct vector *v, const struct outcome *out, const uint8_t *before,
                     const uint8_t *after);
// DATA holds the memory before and gets that after. False: the file ends, or was made from other inputs.
bool recording_read(struct recording *r, const struct vector *v, struct outcome *out, uint8_t *data);
// False when something could not be written.
bool recording_close(struct recording *r);

// ---- A worker process (worker.c) ----

#define WORKERS_MAX 8
struct tally { // shared with the workers
    _Atomic uint64_t vectors, failures, failed_forms, unreachable;
    _Atomic unsigned form[WORKERS_MAX]; // form that a worker is at, for when it dies
};
struct work {
    const char *engine, *record, *replay; // files, or NULL
    GPtrArray *forms;
    uint64_t seed, per_form;
    unsigned index, workers, show;
    struct tally *tally;
};
// Exit status: 0, or 2 when it could not work.
int worker_run(const struct work *work);

#endif

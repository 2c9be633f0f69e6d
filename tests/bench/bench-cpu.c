// SPDX-License-Identifier: GPL-2.0-or-later
// How many guest instructions per second an engine runs on a hot integer loop, and on one that calls and touches
// memory.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/cpu/interpret/interpret.h"
#include "tests/unit/guest.h"

struct loop {
    const char *name;
    const uint8_t *code;
    size_t size;
    unsigned per_round; // instructions
};

// mov ecx, 100000000 (patched); xor eax, eax; l: add rax, rcx; xor rdx, rax; lea rbx, [rax + rdx * 2]; mov [rsp - 8],
// rbx; cmp rbx, rcx; dec rcx; jnz l; out 0xf4, eax; jmp $
static const uint8_t integer[] = {0xb9, 0,    0,    0,    0,    0x31, 0xc0, 0x48, 0x01, 0xc8, 0x48, 0x31,
                                  0xc2, 0x48, 0x8d, 0x1c, 0x50, 0x48, 0x89, 0x5c, 0x24, 0xf8, 0x48, 0x39,
                                  0xcb, 0x48, 0xff, 0xc9, 0x75, 0xe9, 0xe7, 0xf4, 0xeb, 0xfe};
// mov ecx, N; l: call f; dec rcx; jnz l; out 0xf4, eax; jmp $; f: push rbx; mov rbx, [rsp + 8]; add rax, rbx; pop rbx;
// ret
static const uint8_t calls[] = {0xb9, 0,    0,    0,    0,    0xe8, 0x09, 0,    0,    0,
                                0x48, 0xff, 0xc9, 0x75, 0xf6, 0xe7, 0xf4, 0xeb, 0xfe, 0x53,
                                0x48, 0x8b, 0x5c, 0x24, 0x08, 0x48, 0x01, 0xd8, 0x5b, 0xc3};

static const struct loop loops[] = {
    {"integer loop", integer, sizeof(integer), 7},
    {"calls and memory", calls, sizeof(calls), 8},
};

static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds_of(const char *engine, const struct loop *loop, uint32_t rounds)
{
    struct guest *g = guest_new(engine, 1);
    guest_load(g, 0x10000, loop->code, loop->size);
    memcpy((uint8_t *)guest_memory(g, 0x10001), &rounds, 4);
    guest_start_long(g, 0x10000);
    double start = processor_seconds();
    bool done = guest_run(g, 120);
    double seconds = processor_seconds() - start;
    guest_free(g);
    return done ? seconds : -1;
}

int main(void)
{
    printf("%-20s %-10s %s\n", "program", "engine", "million instructions/s");
    for (unsigned e = 0; engines[e]; e++) {
        if (strcmp(engines[e]->name, "kvm") == 0 || (engines[e]->probe && !engines[e]->probe(NULL)))
            continue;
        for (unsigned n = 0; n < G_N_ELEMENTS(loops); n++) {
            const uint32_t rounds = 50000000;
            double seconds = seconds_of(engines[e]->name, &loops[n], rounds);
            if (seconds > 0)
                printf("%-20s %-10s %.0f\n", loops[n].name, engines[e]->name,
                       (double)rounds * loops[n].per_round / seconds / 1e6);
            else
                printf("%-20s %-10s did not finish in time\n", loops[n].name, engines[e]->name);
        }
    }
    return 0;
}

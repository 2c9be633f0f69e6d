// SPDX-License-Identifier: GPL-2.0-or-later
// A machine of one processor for one instruction at a time: long mode, ring 3, the host's addresses and selectors.
// Every exception handler is a HLT, so that any engine comes back with an exit; INT3 around the code ends a run.
#include "tests/conformance/conformance.h"

#define KERNEL_BASE 0xffff800000000000ull
#define RAM_BYTES   0x200000u

enum physical {
    PHYSICAL_PML4 = 0x0000,
    PHYSICAL_PDPT = 0x1000,
    PHYSICAL_PD = 0x2000,
    PHYSICAL_PT_DATA = 0x3000,
    PHYSICAL_PT_CODE = 0x4000,
    PHYSICAL_KERNEL_PDPT = 0x5000,
    PHYSICAL_KERNEL_PD = 0x6000,
    PHYSICAL_GDT = 0x7000,
    PHYSICAL_TSS = 0x7800,
    PHYSICAL_IDT = 0x8000,
    PHYSICAL_HANDLERS = 0x9000, // 8 bytes each
    PHYSICAL_STACK_TOP = 0xc000,
    PHYSICAL_DATA = 0x10000,
    PHYSICAL_CODE = 0x20000,
};

enum page_bits { PRESENT = 1, WRITABLE = 2, USER = 4, ACCESSED = 0x20, DIRTY = 0x40, LARGE = 0x80 };
#define NO_EXECUTE BIT(63)

struct guest {
    struct ram *ram;
    struct address_space *memory, *ports;
    struct region region;
    GRecMutex lock;
    struct clock *clock;
    struct cpu_set *set;
    uint64_t ram_offset;
};

static void put64(struct guest *g, uint64_t physical, uint64_t value)
{
    memcpy(g->ram->host + g->ram_offset + physical, &value, 8);
}

static void build_pages(struct guest *g)
{
    uint64_t table = PRESENT | WRITABLE | USER | ACCESSED;
    put64(g, PHYSICAL_PML4, PHYSICAL_PDPT | table);
    put64(g, PHYSICAL_PDPT, PHYSICAL_PD | table);
    put64(g, PHYSICAL_PD + 8 * (DATA_BASE >> 21), PHYSICAL_PT_DATA | table);
    put64(g, PHYSICAL_PD + 8 * (CODE_BASE >> 21), PHYSICAL_PT_CODE | table);
    for (unsigned k = 0; k < DATA_ALL / PAGE_SIZE; k++)
        put64(g, PHYSICAL_PT_DATA + 8 * k,
              (PHYSICAL_DATA + k * PAGE_SIZE) | PRESENT | USER | ACCESSED | DIRTY | NO_EXECUTE |
                  (k < DATA_SIZE / PAGE_SIZE ? WRITABLE : 0));
    for (unsigned k = 0; k < CODE_SIZE / PAGE_SIZE; k++)
        put64(g, PHYSICAL_PT_CODE + 8 * k,
              (PHYSICAL_CODE + k * PAGE_SIZE) | PRESENT | WRITABLE | USER | ACCESSED | DIRTY);
    put64(g, PHYSICAL_PML4 + 8 * 256, PHYSICAL_KERNEL_PDPT | PRESENT | WRITABLE | ACCESSED);
    put64(g, PHYSICAL_KERNEL_PDPT, PHYSICAL_KERNEL_PD | PRESENT | WRITABLE | ACCESSED);
    put64(g, PHYSICAL_KERNEL_PD, PRESENT | WRITABLE | ACCESSED | DIRTY | LARGE);
}

static void build_tables(struct guest *g)
{
    put64(g, PHYSICAL_GDT + 0x10, 0x00af9b000000ffff);
    put64(g, PHYSICAL_GDT + 0x18, 0x00cf93000000ffff);
    put64(g, PHYSICAL_GDT + (SELECTOR_CODE32 & ~7), 0x00cffb000000ffff);
    put64(g, PHYSICAL_GDT + (SELECTOR_DATA & ~7), 0x00cff3000000ffff);
    put64(g, PHYSICAL_GDT + (SELECTOR_CODE64 & ~7), 0x00affb000000ffff);
    put64(g, PHYSICAL_TSS + 4, KERNEL_BASE + PHYSICAL_STACK_TOP);
    put64(g, PHYSICAL_TSS + 0x60, 0x68ull << 48); // no I/O permission bitmap
    for (unsigned k = 0; k < 256; k++) {
        uint64_t handler = KERNEL_BASE + PHYSICAL_HANDLERS + 8 * k;
        unsigned dpl = k == EXCEPTION_BP || k == EXCEPTION_OF ? 3 : 0;
        put64(g, PHYSICAL_IDT + 16 * k,
              (handler & 0xffff) | 0x10 << 16 | (0x8e00ull | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48);
        put64(g, PHYSICAL_IDT + 16 * k + 8, handler >> 32);
        put64(g, PHYSICAL_HANDLERS + 8 * k, 0xf4f4f4f4f4f4f4f4);
    }
}

static void build_processor(struct vcpu *v)
{
    v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    v->cr3 = PHYSICAL_PML4;
    v->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE;
    v->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    v->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX | (with_avx512 ? XCR0_AVX512 : 0);
    v->gdtr = (struct table_register){.base = KERNEL_BASE + PHYSICAL_GDT, .limit = 0x7f};
    v->idtr = (struct table_register){.base = KERNEL_BASE + PHYSICAL_IDT, .limit = 0xfff};
    v->tr = (struct segment){.selector = 0x40, .base = KERNEL_BASE + PHYSICAL_TSS, .limit = 0x67, .attr = 0x8b};
    v->ldtr = (struct segment){.unusable = true, .attr = 0x82};
}

static struct segment flat(uint16_t selector, uint16_t attr)
{
    return (struct segment){.selector = selector, .attr = attr, .limit = 0xffffffff};
}

static void load_state(struct vcpu *v, const struct vector *vector)
{
    const struct state *s = &vector->in;
    memcpy(v->gpr, s->gpr, sizeof(v->gpr));
    v->rip = s->rip;
    v->rflags = s->rflags;
    v->cpl = 3;
    v->cr2 = 0;
    v->activity = VCPU_RUNNING;
    v->interrupt_shadow = 0;
    v->event_pending = false;
    v->seg[CS] = vector->is_64 ? flat(SELECTOR_CODE64, 0xa0fb) : flat(SELECTOR_CODE32, 0xc0fb);
    v->seg[SS] = v->seg[DS] = v->seg[ES] = flat(SELECTOR_DATA, 0xc0f3);
    v->seg[FS] = v->seg[GS] = (struct segment){.unusable = true};
    memcpy(&v->xsave, s->xsave, XSAVE_BYTES);
    v->xsave.xstate_bv = 7;
    if (with_avx512) {
        memcpy(v->avx512.opmask, s->avx512.opmask, sizeof v->avx512.opmask);
        memcpy(v->avx512.zmmh, s->avx512.zmmh, sizeof v->avx512.zmmh);
        memcpy(v->avx512.zmm16, s->avx512.zmm16, sizeof v->avx512.zmm16);
        v->avx512.xstate_bv = XCR0_AVX512;
    }
    if (v->engine->state_in)
        v->engine->state_in(v);
}

static bool has_error_code(unsigned vector)
{
    return vector == EXCEPTION_DF || (vector >= EXCEPTION_TS && vector <= EXCEPTION_PF) || vector == EXCEPTION_AC;
}

static void save_state(struct guest *g, struct outcome *out)
{
    struct vcpu *v = g->set->vcpu[0];
    uint64_t frame[6];
    if (v->engine->state_out)
        v->engine->state_out(v);
    out->exception = (int)((v->rip - 1 - KERNEL_BASE - PHYSICAL_HANDLERS) / 8);
    bool error = has_error_code((unsigned)out->exception);
    unsigned skip = error ? 0 : 1;
    memset(frame, 0, sizeof(frame));
    memcpy(frame + skip, g->ram->host + g->ram_offset + (v->gpr[RSP] - KERNEL_BASE), sizeof(frame) - 8 * skip);
    out->error_code = error ? (uint32_t)frame[0] : 0;
    memcpy(out->state.gpr, v->gpr, sizeof(v->gpr));
    out->state.rip = frame[1];
    out->state.rflags = frame[3];
    out->state.gpr[RSP] = frame[4];
    out->cr2 = v->cr2;
    memcpy(out->state.xsave, &v->xsave, XSAVE_BYTES);
    memset(&out->state.avx512, 0, sizeof out->state.avx512);
    if (v->avx512.xstate_bv & XCR0_OPMASK)
        memcpy(out->state.avx512.opmask, v->avx512.opmask, sizeof v->avx512.opmask);
    if (v->avx512.xstate_bv & XCR0_ZMMH)
        memcpy(out->state.avx512.zmmh, v->avx512.zmmh, sizeof v->avx512.zmmh);
    if (v->avx512.xstate_bv & XCR0_ZMM16)
        memcpy(out->state.avx512.zmm16, v->avx512.zmm16, sizeof v->avx512.zmm16);
}

static void write_code(struct guest *g, uint64_t address, const uint8_t *bytes, unsigned size)
{
    while (size) {
        uint64_t offset = address - CODE_BASE;
        unsigned piece = (unsigned)MIN(size, PAGE_SIZE - (offset & (PAGE_SIZE - 1)));
        uint64_t ram_offset = g->ram_offset + PHYSICAL_CODE + offset;
        ram_write_begin(g->ram, ram_offset, piece);
        if (bytes)
            memcpy(g->ram->host + ram_offset, bytes, piece);
        else
            memset(g->ram->host + ram_offset, 0xcc, piece);
        ram_write_end(g->ram, ram_offset, piece);
        address += piece;
        bytes = bytes ? bytes + piece : NULL;
        size -= piece;
    }
}

void guest_run(struct guest *g, const struct vector *vector, struct outcome *out)
{
    struct vcpu *v = g->set->vcpu[0];
    write_code(g, vector->in.rip, vector->bytes, vector->length);
    load_state(v, vector);
    enum engine_exit exit = v->engine->run(v);
    if (exit == ENGINE_EXIT_HALT && v->cpl == 0) {
        save_state(g, out);
    } else {
        memset(out, 0, sizeof(*out));
        out->exception = -100 - (int)exit; // never expected
    }
    write_code(g, vector->in.rip, NULL, vector->length);
    uint64_t last = out->state.rip - 1;
    bool own = last == vector->in.rip && vector->bytes[0] == 0xcc;
    if (out->exception == EXCEPTION_BP && !own) {
        out->exception = OUTCOME_DONE;
        out->state.rip = last;
    }
}

uint8_t *guest_data(struct guest *g)
{
    return g->ram->host + g->ram_offset + PHYSICAL_DATA;
}

struct guest *guest_new(const char *engine, GError **error)
{
    struct guest *g = g_new0(struct guest, 1);
    g_rec_mutex_init(&g->lock);
    g->ram = ram_new(RAM_BYTES, error);
    if (!g->ram)
        return NULL;
    g->ram_offset = ram_alloc(g->ram, RAM_BYTES);
    g->memory = address_space_new("memory", g->ram, BIT(40), &g->lock);
    g->ports = address_space_new("ports", NULL, 0x10000, &g->lock);
    region_init_ram(&g->region, "ram", g->ram_offset, RAM_BYTES);
    address_space_map(g->memory, &g->region, 0, 0);
    g->clock = clock_new(&g->lock);
    struct cpu_host host = {.ram = g->ram, .memory = g->memory, .ports = g->ports, .clock = g->clock, .lock = &g->lock};
    g->set = cpu_set_new(&host, "max", engine, 1, error);
    if (!g->set)
        return NULL;
    build_pages(g);
    build_tables(g);
    build_processor(g->set->vcpu[0]);
    memset(g->ram->host + g->ram_offset + PHYSICAL_CODE, 0xcc, CODE_SIZE);
    return g;
}

void guest_free(struct guest *g)
{
    cpu_set_free(g->set);
    address_space_free(g->memory);
    address_space_free(g->ports);
    clock_free(g->clock);
    ram_free(g->ram);
    g_rec_mutex_clear(&g->lock);
    g_free(g);
}

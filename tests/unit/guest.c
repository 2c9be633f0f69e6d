// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/guest.h"

#include <string.h>

static void finish(struct guest *g)
{
    g_mutex_lock(&g->done_lock);
    g->done = true;
    g_cond_broadcast(&g->done_changed);
    g_mutex_unlock(&g->done_lock);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset == 0x80 ? 0x12345678 : ~0ull;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct guest *g = opaque;
    if (offset == 0xe9)
        g_string_append_c(g->output, (char)value);
    if (offset == 0xf4) {
        g->exit_code = (uint32_t)value;
        finish(g);
    }
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct guest *g = opaque;
    g->mmio_reads++;
    return g->mmio_value + offset;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct guest *g = opaque;
    g->mmio_writes++;
    g->mmio_value = value;
}

static void shutdown(void *opaque, struct vcpu *vcpu, const char *text)
{
    struct guest *g = opaque;
    g->shut_down = true;
    finish(g);
}

struct guest *guest_new(const char *engine, unsigned cpus)
{
    static const struct io_ops port_ops = {port_read, port_write, 1, 4};
    static const struct io_ops mmio_ops = {mmio_read, mmio_write, 1, 8};
    struct guest *g = g_new0(struct guest, 1);
    g_rec_mutex_init(&g->lock);
    g->ram = ram_new(GUEST_RAM, NULL);
    uint64_t offset = ram_alloc(g->ram, GUEST_RAM);
    g->memory = address_space_new("memory", g->ram, 1ull << 40, &g->lock);
    g->ports = address_space_new("ports", NULL, 65536, &g->lock);
    g->clock = clock_new(&g->lock);
    g->output = g_string_new(NULL);
    region_init_ram(&g->ram_region, "ram", offset, GUEST_RAM);
    region_init_io(&g->port_region, "ports", &port_ops, g, 65536);
    region_init_io(&g->mmio_region, "mmio", &mmio_ops, g, PAGE_SIZE);
    g_rec_mutex_lock(&g->lock);
    address_space_map(g->memory, &g->ram_region, 0, 0);
    address_space_map(g->memory, &g->mmio_region, GUEST_MMIO, 0);
    address_space_map(g->ports, &g->port_region, 0, 0);
    g_rec_mutex_unlock(&g->lock);
    struct cpu_host host = {.ram = g->ram,
                            .memory = g->memory,
                            .ports = g->ports,
                            .clock = g->clock,
                            .lock = &g->lock,
                            .opaque = g,
                            .shutdown = shutdown};
    g->set = cpu_set_new(&host, "max", engine, cpus, NULL);
    clock_start(g->clock);
    return g;
}

void guest_free(struct guest *g)
{
    cpu_set_free(g->set);
    clock_stop(g->clock);
    clock_free(g->clock);
    address_space_free(g->memory);
    address_space_free(g->ports);
    ram_free(g->ram);
    g_string_free(g->output, true);
    g_rec_mutex_clear(&g->lock);
    g_free(g);
}

void *guest_memory(struct guest *g, uint64_t gpa)
{
    return g->ram->host + g->ram_region.ram_offset + gpa;
}

void guest_load(struct guest *g, uint64_t gpa, const void *bytes, size_t size)
{
    memcpy(guest_memory(g, gpa), bytes, size);
}

bool guest_run(struct guest *g, unsigned seconds)
{
    gint64 end = g_get_monotonic_time() + seconds * G_TIME_SPAN_SECOND;
    cpu_set_resume(g->set);
    g_mutex_lock(&g->done_lock);
    bool in_time = true;
    while (!g->done && in_time)
        in_time = g_cond_wait_until(&g->done_changed, &g->done_lock, end);
    bool done = g->done;
    g->done = false;
    g_mutex_unlock(&g->done_lock);
    cpu_set_pause(g->set);
    return done;
}

// ---- Starting states ----

static void flat_segment(struct segment *s, uint16_t selector, uint16_t attr)
{
    *s = (struct segment){.selector = selector, .attr = attr, .limit = 0xffffffff};
}

static void flat_segments(struct vcpu *v, uint16_t code, uint16_t code_attr)
{
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        flat_segment(&v->seg[i], 0x10, 0xc093);
    flat_segment(&v->seg[CS], code, code_attr);
}

// 08 code64, 10 data, 18 code32, 20 user data, 28 user code64, 30 user code32, 38 TSS (two slots)
static void make_gdt(struct guest *g, struct vcpu *v)
{
    static const uint64_t gdt[] = {0,
                                   0x00af9b000000ffff,
                                   0x00cf93000000ffff,
                                   0x00cf9b000000ffff,
                                   0x00cff3000000ffff,
                                   0x00affb000000ffff,
                                   0x00cffb000000ffff,
                                   0x0000890006000067,
                                   0};
    guest_load(g, 0x800, gdt, sizeof(gdt));
    v->gdtr = (struct table_register){.base = 0x800, .limit = sizeof(gdt) - 1};
}

void guest_start_real(struct guest *g, uint64_t gpa)
{
    struct vcpu *v = g->set->vcpu[0];
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        v->seg[i] = (struct segment){.attr = 0x93, .limit = 0xffff};
    v->rip = gpa;
    v->gpr[RSP] = 0x7000;
}

void guest_start_protected(struct guest *g, uint64_t gpa)
{
    struct vcpu *v = g->set->vcpu[0];
    make_gdt(g, v);
    flat_segments(v, 0x18, 0xc09b);
    v->cr0 = CR0_PE | CR0_ET;
    v->rip = gpa;
    v->gpr[RSP] = 0x7000;
}

void guest_start_long(struct guest *g, uint64_t gpa)
{
    struct vcpu *v = g->set->vcpu[0];
    uint64_t *pml4 = guest_memory(g, 0x1000), *pdpt = guest_memory(g, 0x2000), *pd = guest_memory(g, 0x3000);
    pml4[0] = 0x2007;
    pdpt[0] = 0x3007;
    pdpt[3] = GUEST_MMIO >> 30 << 30 | 0x87; // 1 GiB page
    for (unsigned i = 0; i < GUEST_RAM / (2 * MiB); i++)
        pd[i] = i * 2 * MiB | 0x87;
    make_gdt(g, v);
    flat_segments(v, 0x08, 0xa09b);
    v->cr3 = 0x1000;
    v->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR;
    v->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    v->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
    v->rip = gpa;
    v->gpr[RSP] = 0x7000;
}

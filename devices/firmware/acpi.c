// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/acpi.h"
#include "data/acpi/dsdt.hex"
#include "devices/chipset/chipset.h"
#include "devices/firmware/fw_cfg.h"

#include <string.h>

#define HEADER_BYTES 36
#define RSDP_BYTES   36
#define TABLES_FILE  "etc/acpi/tables"
#define RSDP_FILE    "etc/acpi/rsdp"

// A place that holds an offset into the tables until their address is known.
struct pointer {
    bool in_rsdp;
    uint32_t at;
    uint8_t size;
};

// A byte that makes LENGTH bytes from START sum up to zero.
struct checksum {
    bool in_rsdp;
    uint32_t at, start, length;
};

struct acpi_tables {
    GByteArray *tables, *rsdp;
    GArray *pointers;  // struct pointer
    GArray *checksums; // struct checksum
};

// ---- Writing tables ----
static void put(GByteArray *a, unsigned size, uint64_t value)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    g_byte_array_append(a, bytes, size);
}

static void put_text(GByteArray *a, const char *text, unsigned size)
{
    char padded[16] = {0};
    memset(padded, ' ', size);
    memcpy(padded, text, MIN(strlen(text), size));
    g_byte_array_append(a, (uint8_t *)padded, size);
}

static uint32_t begin_table(struct acpi_tables *t, const char *signature, uint8_t revision)
{
    while (t->tables->len % 64)
        put(t->tables, 1, 0);
    uint32_t start = t->tables->len;
    put_text(t->tables, signature, 4);
    put(t->tables, 4, 0); // length
    put(t->tables, 1, revision);
    put(t->tables, 1, 0); // checksum
    put_text(t->tables, "CLOCHE", 6);
    put_text(t->tables, "CLOCHEPC", 8);
    put(t->tables, 4, 1);
    put_text(t->tables, "CLCH", 4);
    put(t->tables, 4, 1);
    return start;
}

static void end_table(struct acpi_tables *t, uint32_t start)
{
    uint32_t length = t->tables->len - start;
    store_le(t->tables->data + start + 4, 4, length);
    t->tables->data[start + 9] = 0;
    struct checksum sum = {false, start + 9, start, length};
    g_array_append_val(t->checksums, sum);
}

static void put_pointer(struct acpi_tables *t, GByteArray *a, uint8_t size, uint32_t target)
{
    struct pointer pointer = {a == t->rsdp, a->len, size};
    g_array_append_val(t->pointers, pointer);
    put(a, size, target);
}

// Generic address structure of a port.
static void put_port(GByteArray *a, uint8_t bits, uint16_t port)
{
    put(a, 1, port ? 1 : 0);
    put(a, 1, bits);
    put(a, 1, 0);
    put(a, 1, bits > 8 ? (bits > 16 ? 3 : 2) : 1);
    put(a, 8, port);
}

// ---- The tables ----
static uint32_t add_facs(struct acpi_tables *t)
{
    while (t->tables->len % 64)
        put(t->tables, 1, 0);
    uint32_t start = t->tables->len;
    put_text(t->tables, "FACS", 4);
    put(t->tables, 4, 64);
    for (unsigned i = 8; i < 64; i++)
        put(t->tables, 1, i == 32 ? 1 : 0);
    return start;
}

static uint32_t add_dsdt(struct acpi_tables *t)
{
    while (t->tables->len % 64)
        put(t->tables, 1, 0);
    uint32_t start = t->tables->len;
    g_byte_array_append(t->tables, dsdt_aml_code, sizeof(dsdt_aml_code));
    end_table(t, start);
    return start;
}

// ACPI is on from the start (SMI_CMD 0), there is no SMM to switch it.
static uint32_t add_fadt(struct acpi_tables *t, uint32_t facs, uint32_t dsdt)
{
    GByteArray *a = t->tables;
    uint32_t start = begin_table(t, "FACP", 3);
    a = t->tables;
    put_pointer(t, a, 4, facs);
    put_pointer(t, a, 4, dsdt);
    put(a, 1, 0); // reserved
    put(a, 1, 1); // preferred profile: desktop
    put(a, 2, ISA_IRQ_SCI);
    put(a, 4, 0); // SMI_CMD
    put(a, 4, 0); // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
    put(a, 4, PM_BASE);
    put(a, 4, 0);
    put(a, 4, PM_BASE + 4);
    put(a, 4, 0);
    put(a, 4, 0);
    put(a, 4, PM_BASE + 8);
    put(a, 8, 0);      // GPE blocks
    put(a, 1, 4);      // PM1_EVT_LEN
    put(a, 1, 2);      // PM1_CNT_LEN
    put(a, 1, 0);      // PM2_CNT_LEN
    put(a, 1, 4);      // PM_TMR_LEN
    put(a, 4, 0);      // GPE lengths, base, CST_CNT
    put(a, 2, 0xfff);  // no C2
    put(a, 2, 0xfff);  // no C3
    put(a, 4, 0);      // flush size and stride
    put(a, 2, 0);      // duty
    put(a, 1, 0);      // day alarm
    put(a, 1, 0);      // month alarm
    put(a, 1, 0x32);   // century in the CMOS
    put(a, 2, 0x0003); // IA-PC boot: legacy devices, 8042
    put(a, 1, 0);
    // WBINVD, PROC_C1, SLP_BUTTON absent, RTC not in fixed registers, RESET_REG_SUP
    put(a, 4, BIT(0) | BIT(2) | BIT(5) | BIT(6) | BIT(10));
    put_port(a, 8, 0xcf9);
    put(a, 1, 0x06); // reset value
    put(a, 3, 0);
    put_pointer(t, a, 8, facs);
    put_pointer(t, a, 8, dsdt);
    put_port(a, 32, PM_BASE);
    put_port(a, 0, 0);
    put_port(a, 16, PM_BASE + 4);
    put_port(a, 0, 0);
    put_port(a, 0, 0);
    put_port(a, 32, PM_BASE + 8);
    put_port(a, 0, 0);
    put_port(a, 0, 0);
    end_table(t, start);
    return start;
}

static void put_override(GByteArray *a, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    put(a, 1, 2);
    put(a, 1, 10);
    put(a, 1, 0); // ISA
    put(a, 1, irq);
    put(a, 4, gsi);
    put(a, 2, flags);
}

static uint32_t add_madt(struct acpi_tables *t, unsigned cpus)
{
    uint32_t start = begin_table(t, "APIC", 3);
    GByteArray *a = t->tables;
    put(a, 4, 0xfee00000);
    put(a, 4, 1); // 8259s present
    for (unsigned i = 0; i < cpus; i++) {
        put(a, 1, 0);
        put(a, 1, 8);
        put(a, 1, i);
        put(a, 1, i); // APIC ID
        put(a, 4, 1); // enabled
    }
    put(a, 1, 1); // I/O APIC
    put(a, 1, 12);
    put(a, 2, 0);
    put(a, 4, IOAPIC_BASE);
    put(a, 4, 0);
    put_override(a, ISA_IRQ_TIMER, 2, 0);
    static const uint8_t level_irqs[] = {5, 9, 10, 11};
    for (unsigned i = 0; i < sizeof(level_irqs); i++)
        put_override(a, level_irqs[i], level_irqs[i], 0x000d); // active high, level
    put(a, 1, 4);                                              // NMI on LINT1 of every processor
    put(a, 1, 6);
    put(a, 1, 0xff);
    put(a, 2, 0);
    put(a, 1, 1);
    end_table(t, start);
    return start;
}

static uint32_t add_hpet(struct acpi_tables *t)
{
    uint32_t start = begin_table(t, "HPET", 1);
    GByteArray *a = t->tables;
    put(a, 4, 0x8086a201);
    put(a, 4, 64 << 8); // system memory, 64 bits
    put(a, 8, HPET_BASE);
    put(a, 1, 0);
    put(a, 2, 100); // least tick
    put(a, 1, 0);
    end_table(t, start);
    return start;
}

// Processor devices: Scope(\_SB) { Device(C0nn) { Name(_HID, "ACPI0007") Name(_UID, nn) } ... } in AML bytes.
static uint32_t add_ssdt(struct acpi_tables *t, unsigned cpus)
{
    uint32_t start = begin_table(t, "SSDT", 2);
    g_autoptr(GByteArray) scope = g_byte_array_new();
    g_byte_array_append(scope, (const uint8_t *)"\\_SB_", 5);
    for (unsigned i = 0; i < cpus; i++) {
        char name[8];
        g_snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        g_byte_array_append(scope, (const uint8_t *)"\x5b\x82\x1c", 3); // Device, 28 bytes with the length byte
        g_byte_array_append(scope, (uint8_t *)name, 4);
        g_byte_array_append(scope,
                            (const uint8_t *)"\x08_HID\x0d"
                                             "ACPI0007\0",
                            15);
        g_byte_array_append(scope, (const uint8_t *)"\x08_UID\x0a", 6);
        put(scope, 1, i);
        put(scope, 1, 0xa3); // Noop fills the package up
    }
    uint32_t length = scope->len + 2; // two bytes of package length
    put(t->tables, 1, 0x10);
    put(t->tables, 1, 0x40 | (length & 15));
    put(t->tables, 1, length >> 4);
    g_byte_array_append(t->tables, scope->data, scope->len);
    end_table(t, start);
    return start;
}

static uint32_t add_root(struct acpi_tables *t, const char *signature, unsigned entry_size, const uint32_t *targets,
                         unsigned count)
{
    uint32_t start = begin_table(t, signature, 1);
    for (unsigned i = 0; i < count; i++)
        put_pointer(t, t->tables, entry_size, targets[i]);
    end_table(t, start);
    return start;
}

static void add_rsdp(struct acpi_tables *t, uint32_t rsdt, uint32_t xsdt)
{
    GByteArray *a = t->rsdp;
    put_text(a, "RSD PTR ", 8);
    put(a, 1, 0);
    put_text(a, "CLOCHE", 6);
    put(a, 1, 2);
    put_pointer(t, a, 4, rsdt);
    put(a, 4, RSDP_BYTES);
    put_pointer(t, a, 8, xsdt);
    put(a, 4, 0);
    struct checksum first = {true, 8, 0, 20}, all = {true, 32, 0, RSDP_BYTES};
    g_array_append_val(t->checksums, first);
    g_array_append_val(t->checksums, all);
}

struct acpi_tables *acpi_tables_new(unsigned cpus)
{
    struct acpi_tables *t = g_new0(struct acpi_tables, 1);
    t->tables = g_byte_array_new();
    t->rsdp = g_byte_array_new();
    t->pointers = g_array_new(false, false, sizeof(struct pointer));
    t->checksums = g_array_new(false, false, sizeof(struct checksum));
    uint32_t facs = add_facs(t), dsdt = add_dsdt(t);
    uint32_t roots[] = {add_fadt(t, facs, dsdt), add_madt(t, cpus), add_hpet(t), add_ssdt(t, cpus)};
    uint32_t rsdt = add_root(t, "RSDT", 4, roots, G_N_ELEMENTS(roots));
    uint32_t xsdt = add_root(t, "XSDT", 8, roots, G_N_ELEMENTS(roots));
    add_rsdp(t, rsdt, xsdt);
    return t;
}

void acpi_tables_free(struct acpi_tables *t)
{
    if (!t)
        return;
    g_byte_array_unref(t->tables);
    g_byte_array_unref(t->rsdp);
    g_array_unref(t->pointers);
    g_array_unref(t->checksums);
    g_free(t);
}

// ---- Through fw_cfg: the table loader's script ----
enum { LOADER_ALLOCATE = 1, LOADER_POINTER, LOADER_CHECKSUM };

static uint8_t *add_command(GByteArray *script, uint32_t command)
{
    unsigned at = script->len;
    g_byte_array_set_size(script, at + 128);
    memset(script->data + at, 0, 128);
    store_le(script->data + at, 4, command);
    return script->data + at + 4;
}

static void add_allocate(GByteArray *script, const char *file, uint32_t alignment, uint8_t zone)
{
    uint8_t *c = add_command(script, LOADER_ALLOCATE);
    g_strlcpy((char *)c, file, 56);
    store_le(c + 56, 4, alignment);
    c[60] = zone; // 1: anywhere below 4 GiB, 2: 0xE0000-0xFFFFF
}

void acpi_tables_offer(const struct acpi_tables *t, struct fw_cfg *fw_cfg)
{
    g_autoptr(GByteArray) script = g_byte_array_new();
    add_allocate(script, TABLES_FILE, 64, 1);
    add_allocate(script, RSDP_FILE, 16, 2);
    for (unsigned i = 0; i < t->pointers->len; i++) {
        const struct pointer *p = &g_array_index(t->pointers, struct pointer, i);
        uint8_t *c = add_command(script, LOADER_POINTER);
        g_strlcpy((char *)c, p->in_rsdp ? RSDP_FILE : TABLES_FILE, 56);
        g_strlcpy((char *)c + 56, TABLES_FILE, 56);
        store_le(c + 112, 4, p->at);
        c[116] = p->size;
    }
    for (unsigned i = 0; i < t->checksums->len; i++) {
        const struct checksum *sum = &g_array_index(t->checksums, struct checksum, i);
        uint8_t *c = add_command(script, LOADER_CHECKSUM);
        g_strlcpy((char *)c, sum->in_rsdp ? RSDP_FILE : TABLES_FILE, 56);
        store_le(c + 56, 4, sum->at);
        store_le(c + 60, 4, sum->start);
        store_le(c + 64, 4, sum->length);
    }
    fw_cfg_add_file(fw_cfg, TABLES_FILE, t->tables->data, t->tables->len);
    fw_cfg_add_file(fw_cfg, RSDP_FILE, t->rsdp->data, t->rsdp->len);
    fw_cfg_add_file(fw_cfg, "etc/table-loader", script->data, script->len);
}

// ---- Without firmware ----
uint64_t acpi_tables_place(const struct acpi_tables *t, struct address_space *memory, uint64_t address)
{
    uint64_t tables_address = address + 64;
    g_autofree uint8_t *tables = g_memdup2(t->tables->data, t->tables->len);
    g_autofree uint8_t *rsdp = g_memdup2(t->rsdp->data, t->rsdp->len);
    for (unsigned i = 0; i < t->pointers->len; i++) {
        const struct pointer *p = &g_array_index(t->pointers, struct pointer, i);
        uint8_t *at = (p->in_rsdp ? rsdp : tables) + p->at;
        store_le(at, p->size, load_le(at, p->size == 4 ? 4 : 8) + tables_address);
    }
    for (unsigned i = 0; i < t->checksums->len; i++) {
        const struct checksum *sum = &g_array_index(t->checksums, struct checksum, i);
        uint8_t *bytes = sum->in_rsdp ? rsdp : tables, total = 0;
        for (uint32_t n = 0; n < sum->length; n++)
            total += bytes[sum->start + n];
        bytes[sum->at] -= total;
    }
    address_space_write(memory, address, rsdp, t->rsdp->len);
    address_space_write(memory, tables_address, tables, t->tables->len);
    return 64 + t->tables->len;
}

// SPDX-License-Identifier: GPL-2.0-or-later
// PIIX3 IDE through the bus: ATA disks by PIO and DMA, a CD drive with media that change, and random register accesses.
#include "core/machine/drive.h"
#include "core/machine/pci.h"
#include "tests/unit/fake-disk.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class piix3_ide_class;
const struct device_class *const device_classes[] = {&piix3_ide_class, NULL};

#define DISK_SECTORS 8192u
#define CD_SECTORS   500u
#define PRIMARY      0x1f0
#define SECONDARY    0x170
#define BUS_MASTER   0xc000
#define PRD          0x100000 // guest-physical
#define DATA         0x200000
#define DEVFN        (1 << 3 | 1)

static struct machine *machine;
static struct disk *disk;
static struct drive *cd;
static bool lines[16];

static void set_line(void *opaque, unsigned number, bool level)
{
    lines[number] = level;
}

static void out(unsigned port, uint64_t value, unsigned size)
{
    address_space_store(machine->ports, port, value, size);
}

static uint64_t in(unsigned port, unsigned size)
{
    return address_space_load(machine->ports, port, size);
}

static void setup(void)
{
    GError *error = NULL;
    machine = machine_create(16 * MiB, clock_new_manual(), &error);
    ck_assert(machine);
    for (unsigned i = 0; i < 16; i++)
        machine->isa_irq[i] = (struct irq){set_line, NULL, i};
    memset(lines, 0, sizeof lines);
    disk = fake_disk_new(DISK_SECTORS * 512);
    for (unsigned i = 0; i < DISK_SECTORS * 512 / 4; i++)
        store_le(fake_disk_data(disk) + 4 * i, 4, i * 2654435761u);
    cd = drive_new_with_disk(machine, "cd0", DRIVE_CDROM, fake_disk_new(CD_SECTORS * 2048));
    cd->read_only = true;
    for (unsigned i = 0; i < CD_SECTORS * 2048 / 4; i++)
        store_le(fake_disk_data(cd->disk) + 4 * i, 4, i ^ 0xcdcdcdcd);
    struct device *device = device_new(machine, "piix3-ide", NULL, &error);
    device_set_pointer(device, "drive0", drive_new_with_disk(machine, "disk0", DRIVE_DISK, disk));
    device_set_pointer(device, "drive2", cd);
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    device->class->reset(device);
    pci_config_write(machine->pci, 0, DEVFN, 0x20, BUS_MASTER, 4);
    pci_config_write(machine->pci, 0, DEVFN, 4, 5, 2);
}

static void teardown(void)
{
    machine_destroy(machine);
}

// Waits until the drive is neither busy nor silent; returns the status.
static uint8_t wait_ready(unsigned port)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t status = in(port + 0x206, 1);
        if (!(status & 0x80))
            return status;
        g_main_context_iteration(machine->context, false);
        g_usleep(50);
    }
    ck_abort_msg("the drive stays busy");
}

static void wait_line(unsigned irq)
{
    for (unsigned i = 0; i < 20000 && !lines[irq]; i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(50);
    }
    ck_assert_msg(lines[irq], "no interrupt");
}

static void command28(uint8_t command, uint64_t lba, unsigned count)
{
    out(PRIMARY + 6, 0xe0 | lba >> 24, 1);
    out(PRIMARY + 2, count, 1);
    out(PRIMARY + 3, lba, 1);
    out(PRIMARY + 4, lba >> 8, 1);
    out(PRIMARY + 5, lba >> 16, 1);
    out(PRIMARY + 7, command, 1);
}

static void command48(uint8_t command, uint64_t lba, unsigned count)
{
    out(PRIMARY + 6, 0x40, 1);
    out(PRIMARY + 2, count >> 8, 1);
    out(PRIMARY + 2, count, 1);
    for (unsigned i = 0; i < 3; i++) {
        out(PRIMARY + 3 + i, lba >> (24 + 8 * i), 1);
        out(PRIMARY + 3 + i, lba >> 8 * i, 1);
    }
    out(PRIMARY + 7, command, 1);
}

static uint32_t pattern(uint64_t byte)
{
    return byte / 4 * 2654435761u;
}

// ---- Disks ------------------------------------------------------------------------------------------------------

START_TEST(identify_tells_the_size)
{
    uint16_t words[256];
    out(PRIMARY + 6, 0xa0, 1);
    out(PRIMARY + 7, 0xec, 1);
    ck_assert(lines[14]);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x58);
    ck_assert(!lines[14]);
    for (unsigned i = 0; i < 256; i++)
        words[i] = in(PRIMARY, 2);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert_uint_eq(words[60] | words[61] << 16, DISK_SECTORS);
    ck_assert_uint_eq(words[100], DISK_SECTORS);
    ck_assert_uint_eq(words[83] & 0x400, 0x400);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 256; i++)
        sum += (words[i] & 0xff) + (words[i] >> 8);
    ck_assert_uint_eq(sum, 0);
}
END_TEST

START_TEST(absent_drives_are_silent)
{
    out(PRIMARY + 6, 0xb0, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0);
    out(PRIMARY + 7, 0xec, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0);
    ck_assert(!lines[14]);
}
END_TEST

START_TEST(signatures_after_reset)
{
    out(PRIMARY + 0x206, 4, 1);
    out(SECONDARY + 0x206, 4, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x80);
    out(PRIMARY + 0x206, 0, 1);
    out(SECONDARY + 0x206, 0, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert_uint_eq(in(PRIMARY + 1, 1), 1);
    ck_assert_uint_eq(in(PRIMARY + 4, 2), 0);
    ck_assert_uint_eq(in(SECONDARY + 4, 1), 0x14);
    ck_assert_uint_eq(in(SECONDARY + 5, 1), 0xeb);
    out(SECONDARY + 7, 0xec, 1); // IDENTIFY DEVICE of a packet drive
    ck_assert_uint_eq(in(SECONDARY + 7, 1) & 1, 1);
    ck_assert_uint_eq(in(SECONDARY + 4, 1), 0x14);
}
END_TEST

// Commands: READ SECTORS, READ MULTIPLE with its block, and their 48-bit forms.
static const struct {
    uint8_t read, write;
    bool wide;
    unsigned block;
} pio_commands[] = {{0x20, 0x30, false, 1}, {0xc4, 0xc5, false, 8}, {0x24, 0x34, true, 1}, {0x29, 0x39, true, 8}};

START_TEST(pio_reads_and_writes)
{
    unsigned count = 300, lba = 1000, block = pio_commands[_i].block;
    if (!pio_commands[_i].wide)
        count = 256;
    command28(0xc6, 0, 8);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    (pio_commands[_i].wide ? command48 : command28)(pio_commands[_i].read, lba, count);
    for (unsigned sector = 0; sector < count; sector++) {
        if (sector % block == 0) {
            wait_line(14);
            ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x58);
            ck_assert(!lines[14]);
        }
        for (unsigned i = 0; i < 128; i++)
            ck_assert_uint_eq(in(PRIMARY, 4), pattern((lba + sector) * 512ull + 4 * i));
    }
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    (pio_commands[_i].wide ? command48 : command28)(pio_commands[_i].write, lba, count);
    ck_assert(!lines[14]);
    for (unsigned sector = 0; sector < count; sector++) {
        if (sector % block == 0) {
            if (sector)
                wait_line(14);
            ck_assert_uint_eq(wait_ready(PRIMARY), 0x58);
            in(PRIMARY + 7, 1);
        }
        for (unsigned i = 0; i < 256; i++)
            out(PRIMARY, sector + i, 2);
    }
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    for (unsigned sector = 0; sector < count; sector++)
        for (unsigned i = 0; i < 256; i++)
            ck_assert_uint_eq(load_le(fake_disk_data(disk) + (lba + sector) * 512 + 2 * i, 2), (uint16_t)(sector + i));
    ck_assert_uint_eq(load_le(fake_disk_data(disk) + (lba + count) * 512, 4), pattern((lba + count) * 512));
}
END_TEST

// A table of regions of the given sizes from DATA on, with gaps between them.
static uint64_t make_table(uint32_t bytes, uint32_t piece)
{
    uint64_t at = PRD, address = DATA;
    while (bytes) {
        uint32_t now = MIN(piece, bytes);
        bytes -= now;
        address_space_store(machine->memory, at, address, 4);
        address_space_store(machine->memory, at + 4, (now & 0xffff) | (bytes ? 0 : 0x80000000), 4);
        address += now + 64;
        at += 8;
    }
    out(BUS_MASTER + 4, PRD, 4);
    return at;
}

static const struct {
    unsigned sectors, piece;
} dma_shapes[] = {{1, 512}, {8, 4096}, {256, 65536}, {100, 1022}, {16, 2}, {2048, 4096}, {5000, 61440}};

START_TEST(dma_reads_and_writes)
{
    unsigned count = dma_shapes[_i].sectors, piece = dma_shapes[_i].piece, bytes = count * 512, lba = 77;
    make_table(bytes, piece);
    out(BUS_MASTER + 2, 6, 1);
    command48(0x25, lba, count);
    out(BUS_MASTER, 9, 1);
    wait_line(14);
    ck_assert_uint_eq(in(BUS_MASTER + 2, 1) & 7, 4);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    out(BUS_MASTER, 0, 1);
    const uint8_t *memory = machine->ram->host + machine->ram_offset;
    for (unsigned i = 0; i < bytes; i++) {
        uint64_t at = DATA + i + i / piece * 64;
        ck_assert_uint_eq(memory[at], fake_disk_data(disk)[lba * 512 + i]);
    }
    // And back, elsewhere, with the start bit first.
    memset(fake_disk_data(disk), 0, 512 * 16);
    out(BUS_MASTER + 2, 6, 1);
    out(BUS_MASTER, 1, 1);
    command48(0x35, 5100 - 2048, MIN(count, 2048));
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert_uint_eq(in(BUS_MASTER + 2, 1) & 7, count > 2048 ? 5 : 4); // a longer table stays active
    out(BUS_MASTER, 0, 1);
    ck_assert_int_eq(
        memcmp(fake_disk_data(disk) + (5100 - 2048) * 512, memory + DATA, MIN(piece, MIN(bytes, 2048 * 512))), 0);
}
END_TEST

START_TEST(dma_table_too_short_or_nowhere)
{
    make_table(512, 512);
    command28(0xc8, 0, 8);
    out(BUS_MASTER, 9, 1);
    for (unsigned i = 0; i < 100 && !lines[14]; i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(1000);
    }
    ck_assert(lines[14]);
    ck_assert_uint_eq(in(PRIMARY + 7, 1) & 1, 1);
    out(BUS_MASTER, 0, 1);
    out(BUS_MASTER + 2, 6, 1);
    out(BUS_MASTER + 4, 0xfffffff0, 4);
    command28(0xc8, 0, 8);
    out(BUS_MASTER, 9, 1);
    wait_line(14);
    in(PRIMARY + 7, 1);
    // Regions that are no memory: the data goes nowhere, the drive is well.
    out(BUS_MASTER, 0, 1);
    address_space_store(machine->memory, PRD, 0xd0000000, 4);
    address_space_store(machine->memory, PRD + 4, 0x80001000, 4);
    out(BUS_MASTER + 4, PRD, 4);
    command28(0xc8, 0, 8);
    out(BUS_MASTER, 9, 1);
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
}
END_TEST

static void put_range(unsigned index, uint64_t lba, unsigned count)
{
    address_space_store(machine->memory, DATA + 8 * index, lba | (uint64_t)count << 48, 8);
}

static void trim(unsigned blocks, bool start_first)
{
    out(BUS_MASTER + 2, 6, 1);
    make_table(blocks * 512, 512 * blocks);
    out(PRIMARY + 1, 0, 1);
    out(PRIMARY + 1, 1, 1);
    if (start_first)
        out(BUS_MASTER, 1, 1);
    command48(0x06, 0, blocks);
    out(BUS_MASTER, 1, 1);
    wait_line(14);
}

START_TEST(trim_discards_ranges)
{
    uint8_t data[512];
    for (unsigned i = 0; i < 64 * 8; i++)
        put_range(i, 0, 0);
    put_range(0, 100, 8);
    put_range(1, 0, 0);
    put_range(2, 300, 2);
    put_range(70, 1000, 16);
    for (unsigned first = 0; first < 2; first++) {
        memset(fake_disk_data(disk), 7, DISK_SECTORS * 512);
        trim(2, first);
        ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
        ck_assert_uint_eq(in(BUS_MASTER + 2, 1) & 7, 4);
        out(BUS_MASTER, 0, 1);
        for (unsigned i = 0; i < DISK_SECTORS; i++) {
            bool gone = (i >= 100 && i < 108) || i == 300 || i == 301 || (i >= 1000 && i < 1016);
            memset(data, gone ? 0 : 7, sizeof data);
            ck_assert_msg(memcmp(fake_disk_data(disk) + i * 512, data, 512) == 0, "sector %u", i);
        }
    }
    // Past the end, more blocks than there may be, another feature: refused, and nothing is touched.
    memset(fake_disk_data(disk), 7, DISK_SECTORS * 512);
    put_range(0, DISK_SECTORS - 1, 2);
    trim(1, false);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    out(BUS_MASTER, 0, 1);
    command48(0x06, 0, 9);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    memset(data, 7, sizeof data);
    for (unsigned i = 0; i < DISK_SECTORS; i++)
        ck_assert_int_eq(memcmp(fake_disk_data(disk) + i * 512, data, 512), 0);
}
END_TEST

START_TEST(errors_reach_the_guest)
{
    command28(0x20, DISK_SECTORS, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    ck_assert_uint_eq(in(PRIMARY + 1, 1), 0x10);
    command28(0x20, DISK_SECTORS - 1, 2);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    command48(0x25, 0xffffffffffffull, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    command28(0x99 + 0x22, 0, 1); // no such command
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    ck_assert_uint_eq(in(PRIMARY + 1, 1), 4);
    fake_disk_fail(disk, -EIO, 1);
    command28(0x20, 0, 1);
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    ck_assert_uint_eq(in(PRIMARY + 1, 1), 0x40);
    fake_disk_fail(disk, -EIO, 1);
    command28(0xe7, 0, 0);
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
    command28(0xe7, 0, 0);
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
}
END_TEST

START_TEST(full_host_disk_stops_and_retries)
{
    GError *error = NULL;
    ck_assert(machine_start(machine, &error));
    fake_disk_fail(disk, -ENOSPC, 1);
    command28(0x30, 5, 1);
    for (unsigned i = 0; i < 256; i++)
        out(PRIMARY, 0xabcd, 2);
    for (unsigned i = 0; i < 4000 && machine->state == RUN_STATE_RUNNING; i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(500);
    }
    ck_assert_int_eq(machine->state, RUN_STATE_IO_ERROR);
    ck_assert_uint_eq(in(PRIMARY + 0x206, 1), 0x80);
    ck_assert(machine_start(machine, &error));
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert_uint_eq(load_le(fake_disk_data(disk) + 5 * 512, 2), 0xabcd);
}
END_TEST

START_TEST(cylinders_heads_sectors)
{
    out(PRIMARY + 6, 0xa1, 1); // head 1
    out(PRIMARY + 2, 1, 1);
    out(PRIMARY + 3, 3, 1); // sector 3
    out(PRIMARY + 4, 2, 1); // cylinder 2
    out(PRIMARY + 5, 0, 1);
    out(PRIMARY + 7, 0x20, 1);
    wait_line(14);
    ck_assert_uint_eq(in(PRIMARY, 4), pattern(((2 * 16 + 1) * 63 + 2) * 512));
    out(PRIMARY + 0x206, 4, 1);
    out(PRIMARY + 0x206, 0, 1);
    out(PRIMARY + 6, 0xa0, 1);
    out(PRIMARY + 3, 0, 1); // sectors count from 1
    out(PRIMARY + 7, 0x20, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x51);
}
END_TEST

START_TEST(interrupts_can_be_switched_off)
{
    out(PRIMARY + 0x206, 2, 1);
    out(PRIMARY + 6, 0xa0, 1);
    out(PRIMARY + 7, 0xec, 1);
    ck_assert(!lines[14]);
    ck_assert_uint_eq(in(PRIMARY + 0x206, 1), 0x58);
}
END_TEST

START_TEST(reset_during_a_transfer)
{
    make_table(512 * 2048, 4096);
    fake_disk_hold(disk, false);
    command48(0x25, 0, 2048);
    out(BUS_MASTER, 9, 1);
    out(PRIMARY + 0x206, 4, 1);
    out(PRIMARY + 0x206, 0, 1);
    for (unsigned i = 0; i < 50; i++)
        g_main_context_iteration(machine->context, false);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert(!lines[14]);
    out(BUS_MASTER, 0, 1);
    command28(0xec, 0, 0);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x58);
}
END_TEST

START_TEST(smart_says_well)
{
    out(PRIMARY + 1, 0xda, 1);
    out(PRIMARY + 4, 0x4f, 1);
    out(PRIMARY + 5, 0xc2, 1);
    out(PRIMARY + 6, 0xa0, 1);
    out(PRIMARY + 7, 0xb0, 1);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x50);
    ck_assert_uint_eq(in(PRIMARY + 4, 2), 0xc24f);
}
END_TEST

// ---- The CD drive -----------------------------------------------------------------------------------------------

// Sends a packet; returns the status when the drive wants something or is done.
static uint8_t packet(const uint8_t *bytes, bool dma, unsigned limit)
{
    out(SECONDARY + 6, 0xa0, 1);
    out(SECONDARY + 1, dma, 1);
    out(SECONDARY + 4, limit, 1);
    out(SECONDARY + 5, limit >> 8, 1);
    out(SECONDARY + 7, 0xa0, 1);
    ck_assert_uint_eq(wait_ready(SECONDARY), 0x58);
    ck_assert_uint_eq(in(SECONDARY + 2, 1), 1);
    for (unsigned i = 0; i < 6; i++)
        out(SECONDARY, load_le(bytes + 2 * i, 2), 2);
    if (dma)
        out(0xc008, 9, 1);
    wait_line(15);
    return in(SECONDARY + 7, 1);
}

// A command with a PIO reply; returns the bytes received, or the negative sense key.
static int ask(const uint8_t *bytes, uint8_t *reply, unsigned room)
{
    unsigned got = 0;
    uint8_t status = packet(bytes, false, 0xfffe);
    while (status & 8) {
        unsigned now = in(SECONDARY + 4, 1) | in(SECONDARY + 5, 1) << 8;
        ck_assert_uint_eq(in(SECONDARY + 2, 1), 2);
        for (unsigned i = 0; i < (now + 1) / 2; i++) {
            uint16_t word = in(SECONDARY, 2);
            if (got + 2 * i < room)
                memcpy(reply + got + 2 * i, &word, MIN(2, room - got - 2 * i));
        }
        got += now;
        wait_line(15);
        status = in(SECONDARY + 7, 1);
    }
    ck_assert_uint_eq(in(SECONDARY + 2, 1), 3);
    return status & 1 ? -(int)(in(SECONDARY + 1, 1) >> 4) : (int)got;
}

#define ASK(reply, ...) ask((const uint8_t[12]){__VA_ARGS__}, reply, sizeof reply)

START_TEST(cd_answers)
{
    uint8_t reply[2048];
    ck_assert_int_eq(ASK(reply, 0), 0);
    ck_assert_int_eq(ASK(reply, 0x12, 0, 0, 0, 36), 36);
    ck_assert_uint_eq(reply[0], 5);
    ck_assert_int_eq(ASK(reply, 0x25), 8);
    ck_assert_uint_eq(reply[2] << 8 | reply[3], CD_SECTORS - 1);
    ck_assert_uint_eq(reply[6], 8);
    ck_assert_int_eq(ASK(reply, 0x43, 2, 0, 0, 0, 0, 0, 0x03, 0x24), 20);
    ck_assert_uint_eq(reply[5], 0x14);
    ck_assert_uint_eq(reply[14], 0xaa);
    ck_assert_uint_eq(reply[18], (CD_SECTORS + 150) / 75);
    ck_assert_int_eq(ASK(reply, 0x43, 0, 1, 0, 0, 0, 0, 0, 12), 12);
    ck_assert_int_ge(ASK(reply, 0x46, 0, 0, 0, 0, 0, 0, 4, 0), 8);
    ck_assert_uint_eq(reply[7], 8); // current profile: CD-ROM
    ck_assert_int_eq(ASK(reply, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64), 30);
    ck_assert_int_eq(ASK(reply, 0x51, 0, 0, 0, 0, 0, 0, 0, 64), 34);
    ck_assert_int_eq(ASK(reply, 0xff), -5);
    ck_assert_int_eq(ASK(reply, 3, 0, 0, 0, 18), 18);
    ck_assert_uint_eq(reply[2], 5);
    ck_assert_uint_eq(reply[12], 0x20);
}
END_TEST

START_TEST(cd_reads_by_pio_and_dma)
{
    static uint8_t data[100 * 2048];
    ck_assert_int_eq(ASK(data, 0x28, 0, 0, 0, 0, 7, 0, 0, 100), 100 * 2048);
    ck_assert_int_eq(memcmp(data, fake_disk_data(cd->disk) + 7 * 2048, sizeof data), 0);
    ck_assert_int_eq(ASK(data, 0xa8, 0, 0, 0, 1, 0xf3, 0, 0, 0, 1), 2048);
    ck_assert_int_eq(ASK(data, 0xa8, 0, 0, 0, 1, 0xf4, 0, 0, 0, 1), -5);
    ck_assert_int_eq(ASK(data, 0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff), -5);

    make_table(200 * 2048, 32768);
    out(0xc00c, PRD, 4);
    out(0xc00a, 6, 1);
    uint8_t status = packet((const uint8_t[12]){0x28, 0, 0, 0, 0, 3, 0, 0, 200}, true, 0);
    ck_assert_uint_eq(status, 0x50);
    ck_assert_uint_eq(in(0xc00a, 1) & 7, 4);
    out(0xc008, 0, 1);
    const uint8_t *memory = machine->ram->host + machine->ram_offset;
    for (unsigned i = 0; i < 200 * 2048; i++)
        ck_assert_uint_eq(memory[DATA + i + i / 32768 * 64], fake_disk_data(cd->disk)[3 * 2048 + i]);
}
END_TEST

START_TEST(media_change)
{
    GError *error = NULL;
    uint8_t reply[64];
    ck_assert_int_eq(ASK(reply, 0x1e, 0, 0, 0, 1), 0); // lock the tray
    ck_assert(!drive_eject(cd, false, &error));
    ck_assert_int_eq(error->code, CLOCHE_ERROR_BUSY);
    g_clear_error(&error);
    ck_assert_int_eq(ASK(reply, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 1); // eject request
    ck_assert_int_eq(ASK(reply, 0x1b, 0, 0, 0, 2), -5);
    ck_assert_int_eq(ASK(reply, 0x1e), 0);
    ck_assert(drive_eject(cd, false, &error));
    ck_assert(cd->tray_open);
    ck_assert_int_eq(ASK(reply, 0), -2);
    ck_assert_int_eq(ASK(reply, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 3);
    ck_assert_uint_eq(reply[5], 1);
    ck_assert(!drive_change_medium(cd, "nothing", NULL, false, &error));
    g_clear_error(&error);
    ck_assert(drive_change_medium(cd, "fake:2048000", NULL, false, &error));
    ck_assert_int_eq(ASK(reply, 0), -6); // attention: the medium is new
    ck_assert_int_eq(ASK(reply, 0), 0);
    ck_assert_int_eq(ASK(reply, 0x25), 8);
    ck_assert_uint_eq(reply[2] << 8 | reply[3], 999);
    ck_assert_int_eq(ASK(reply, 0x1b, 0, 0, 0, 2), 0); // the guest opens the tray
    ck_assert(cd->tray_open);
    ck_assert_int_eq(ASK(reply, 0x25), -2);
    ck_assert_int_eq(ASK(reply, 0x1b, 0, 0, 0, 3), 0);
    ck_assert_int_eq(ASK(reply, 0x25), -6);
    ck_assert_int_eq(ASK(reply, 0x25), 8);
}
END_TEST

START_TEST(random_registers)
{
    GRand *rand = g_rand_new_with_seed(_i + 1);
    static const uint16_t bases[] = {PRIMARY, PRIMARY, SECONDARY, SECONDARY, BUS_MASTER, 0x3f6, 0x376};
    for (unsigned step = 0; step < 40000; step++) {
        unsigned port = bases[g_rand_int_range(rand, 0, G_N_ELEMENTS(bases))] + g_rand_int_range(rand, 0, 8);
        unsigned size = 1u << g_rand_int_range(rand, 0, 3);
        switch (g_rand_int_range(rand, 0, 12)) {
        case 0:
            make_table(g_rand_int_range(rand, 1, 1 << 16), 1u << g_rand_int_range(rand, 5, 16));
            break;
        case 1: {
            static const uint8_t commands[] = {0x20, 0x30, 0xc8, 0xca, 0x25, 0x35, 0xa0,
                                               0xa0, 0xec, 0xe7, 0xef, 0xb0, 0xc4, 0xc5};
            out((g_rand_boolean(rand) ? PRIMARY : SECONDARY) + 7, commands[g_rand_int_range(rand, 0, sizeof commands)],
                1);
            break;
        }
        case 2:
        case 3:
        case 4:
            in(port, size);
            break;
        case 5:
            for (unsigned i = 0, n = g_rand_int_range(rand, 0, 600); i < n; i++)
                in(port & ~7u, 2);
            break;
        case 6:
            for (unsigned i = 0, n = g_rand_int_range(rand, 0, 600); i < n; i++)
                out(port & ~7u, g_rand_int(rand) & (i ? 0xffff : 0xff), 2);
            break;
        case 7:
            g_main_context_iteration(machine->context, false);
            break;
        default:
            out(port, g_rand_int(rand), size);
        }
        if (step % 1000 == 0)
            machine_reset_devices(machine);
        if (step % 1000 == 0) {
            pci_config_write(machine->pci, 0, DEVFN, 0x20, BUS_MASTER, 4);
            pci_config_write(machine->pci, 0, DEVFN, 4, 5, 2);
        }
    }
    g_rand_free(rand);
    machine_reset_devices(machine);
    command28(0xec, 0, 0);
    ck_assert_uint_eq(in(PRIMARY + 7, 1), 0x58);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ide");
    TCase *tcase = tcase_create("piix3-ide");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, identify_tells_the_size);
    tcase_add_test(tcase, absent_drives_are_silent);
    tcase_add_test(tcase, signatures_after_reset);
    tcase_add_loop_test(tcase, pio_reads_and_writes, 0, G_N_ELEMENTS(pio_commands));
    tcase_add_loop_test(tcase, dma_reads_and_writes, 0, G_N_ELEMENTS(dma_shapes));
    tcase_add_test(tcase, dma_table_too_short_or_nowhere);
    tcase_add_test(tcase, trim_discards_ranges);
    tcase_add_test(tcase, errors_reach_the_guest);
    tcase_add_test(tcase, full_host_disk_stops_and_retries);
    tcase_add_test(tcase, cylinders_heads_sectors);
    tcase_add_test(tcase, interrupts_can_be_switched_off);
    tcase_add_test(tcase, reset_during_a_transfer);
    tcase_add_test(tcase, smart_says_well);
    tcase_add_test(tcase, cd_answers);
    tcase_add_test(tcase, cd_reads_by_pio_and_dma);
    tcase_add_test(tcase, media_change);
    tcase_add_loop_test(tcase, random_registers, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

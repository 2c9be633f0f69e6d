// SPDX-License-Identifier: GPL-2.0-or-later
// The virtio layer and virtio-blk through the bus: a little driver in guest RAM, a fake disk, and hostile rings.
#include "core/machine/drive.h"
#include "tests/unit/fake-disk.h"
#include "tests/unit/virtio-guest.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class virtio_blk_class;
const struct device_class *const device_classes[] = {&virtio_blk_class, NULL};

#define DISK_SIZE (1 * MiB)
#define HEADER    0x600000 // guest-physical: request headers, 32 bytes each
#define STATUS    0x610000
#define DATA      0x620000
#define ALL       (~0ull)
#define MODERN    BIT(32)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };

static struct machine *machine;
static struct disk *disk;
static struct drive *drive;
static struct guest guest;

static void setup(void)
{
    GError *error = NULL;
    machine = machine_create(16 * MiB, clock_new_manual(), &error);
    ck_assert_msg(machine, "%s", error ? error->message : "");
    disk = fake_disk_new(DISK_SIZE);
    drive = drive_new_with_disk(machine, "disk0", DRIVE_DISK, disk);
    struct device *device = device_new(machine, "virtio-blk", NULL, &error);
    ck_assert(device_set(device, "queues", "4", &error));
    device_set_pointer(device, "drive", drive);
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    guest_attach(&guest, machine, (struct pci_device *)device);
}

static void teardown(void)
{
    machine_destroy(machine);
}

// A request of header, one data buffer and status at descriptors 3*SLOT; not offered yet.
static void make_request(unsigned queue, unsigned slot, uint32_t type, uint64_t sector, uint64_t data, uint32_t length)
{
    uint64_t header = HEADER + 32 * slot, status = STATUS + slot;
    guest_store(&guest, header, type, 4);
    guest_store(&guest, header + 4, 0, 4);
    guest_store(&guest, header + 8, sector, 8);
    guest_store(&guest, status, 0xee, 1);
    unsigned first = 3 * slot, second = length ? first + 1 : first + 2;
    guest_descriptor(&guest, queue, first, header, 16, GUEST_NEXT, second);
    bool in = type == IN || type == GET_ID;
    guest_descriptor(&guest, queue, first + 1, data, length, GUEST_NEXT | (in ? GUEST_WRITE : 0), first + 2);
    guest_descriptor(&guest, queue, first + 2, status, 1, GUEST_WRITE, 0);
}

// Carries one request out and returns its status byte.
static unsigned request(unsigned queue, uint32_t type, uint64_t sector, uint64_t data, uint32_t length)
{
    make_request(queue, 0, type, sector, data, length);
    guest_offer(&guest, queue, 0);
    guest_notify(&guest, queue);
    uint32_t id = 99;
    ck_assert_msg(guest_wait(&guest, queue, &id, NULL), "no answer");
    ck_assert_uint_eq(id, 0);
    return guest_load(&guest, STATUS, 1);
}

static void fill(uint64_t address, unsigned seed, unsigned length)
{
    for (unsigned i = 0; i < length; i += 4)
        guest_store(&guest, address + i, seed * 2654435761u + i, 4);
}

START_TEST(writes_and_reads_on_every_queue)
{
    ck_assert(guest_start(&guest, _i ? ALL : MODERN, 4, 64));
    for (unsigned queue = 0; queue < 4; queue++) {
        fill(DATA, queue + 1, 8192);
        ck_assert_uint_eq(request(queue, OUT, 16 * queue, DATA, 8192), 0);
        ck_assert_uint_eq(guest_messages(&guest, queue + 1), 1);
        fill(DATA + 8192, 77, 8192);
        ck_assert_uint_eq(request(queue, IN, 16 * queue, DATA + 8192, 8192), 0);
        for (unsigned i = 0; i < 8192; i += 4)
            ck_assert_uint_eq(guest_load(&guest, DATA + i, 4), guest_load(&guest, DATA + 8192 + i, 4));
        ck_assert_int_eq(
            memcmp(fake_disk_data(disk) + 8192 * queue, machine->ram->host + machine->ram_offset + DATA, 8192), 0);
    }
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].operations, 4);
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].bytes, 4 * 8192);
    ck_assert_uint_eq(drive->counts[DRIVE_READS].bytes, 4 * 8192);
    ck_assert_uint_eq(drive->highest_write, 4 * 8192);
    ck_assert_int_gt(drive->last_end, 0);
}
END_TEST

START_TEST(many_requests_at_once)
{
    ck_assert(guest_start(&guest, ALL, 1, 256));
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned slot = 0; slot < 80; slot++) {
            fill(DATA + 512 * slot, round * 100 + slot, 512);
            make_request(0, slot, OUT, round * 40 + slot, DATA + 512 * slot, 512);
            guest_offer(&guest, 0, 3 * slot);
        }
        guest_notify(&guest, 0);
        for (unsigned slot = 0; slot < 80; slot++)
            ck_assert(guest_wait(&guest, 0, NULL, NULL));
        for (unsigned slot = 0; slot < 80; slot++)
            ck_assert_uint_eq(guest_load(&guest, STATUS + slot, 1), 0);
    }
    ck_assert_uint_eq(fake_disk_count(disk, DISK_WRITE), 40 * 80);
}
END_TEST

START_TEST(indirect_chains)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    uint64_t table = 0x640000;
    guest_store(&guest, HEADER, IN, 4);
    guest_store(&guest, HEADER + 8, 2, 8);
    memset(fake_disk_data(disk) + 1024, 0x5a, 4096);
    uint64_t parts[][3] = {{HEADER, 16, GUEST_NEXT},
                           {DATA, 512, GUEST_NEXT | GUEST_WRITE},
                           {DATA + 0x10000, 3584, GUEST_NEXT | GUEST_WRITE},
                           {STATUS, 1, GUEST_WRITE}};
    for (unsigned i = 0; i < 4; i++) {
        guest_store(&guest, table + 16 * i, parts[i][0], 8);
        guest_store(&guest, table + 16 * i + 8, parts[i][1], 4);
        guest_store(&guest, table + 16 * i + 12, parts[i][2], 2);
        guest_store(&guest, table + 16 * i + 14, i + 1, 2);
    }
    guest_descriptor(&guest, 0, 5, table, 64, GUEST_INDIRECT, 0);
    guest_offer(&guest, 0, 5);
    guest_notify(&guest, 0);
    uint32_t id, length;
    ck_assert(guest_wait(&guest, 0, &id, &length));
    ck_assert_uint_eq(id, 5);
    ck_assert_uint_eq(length, 4097);
    ck_assert_uint_eq(guest_load(&guest, STATUS, 1), 0);
    ck_assert_uint_eq(guest_load(&guest, DATA + 508, 4), 0x5a5a5a5a);
    ck_assert_uint_eq(guest_load(&guest, DATA + 0x10000 + 3580, 4), 0x5a5a5a5a);
}
END_TEST

static void make_trim(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
    guest_store(&guest, DATA, sector, 8);
    guest_store(&guest, DATA + 8, count, 4);
    guest_store(&guest, DATA + 12, flags, 4);
}

START_TEST(flush_discard_zeroes_and_id)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, FLUSH, 0, 0, 0), 0);
    ck_assert_uint_eq(fake_disk_count(disk, DISK_FLUSH), 1);
    memset(fake_disk_data(disk), 0xaa, 8192);
    make_trim(WRITE_ZEROES, 8, 8, 1);
    ck_assert_uint_eq(request(0, WRITE_ZEROES, 0, DATA, 16), 0);
    ck_assert_uint_eq(fake_disk_last_flags(disk), DISK_MAY_UNMAP);
    ck_assert_uint_eq(fake_disk_data(disk)[4095], 0xaa);
    ck_assert_uint_eq(fake_disk_data(disk)[4096], 0);
    make_trim(DISCARD, 0, 8, 0);
    ck_assert_uint_eq(request(0, DISCARD, 0, DATA, 16), 0);
    ck_assert_uint_eq(fake_disk_count(disk, DISK_DISCARD), 1);
    make_trim(DISCARD, 0, 8, 1);
    ck_assert_uint_eq(request(0, DISCARD, 0, DATA, 16), 2); // unmap is no flag of a discard
    make_trim(DISCARD, DISK_SIZE / 512, 8, 0);
    ck_assert_uint_eq(request(0, DISCARD, 0, DATA, 16), 1);
    ck_assert_uint_eq(request(0, GET_ID, 0, DATA, 20), 0);
    ck_assert_uint_eq(guest_load(&guest, DATA, 4), 0x6b736964); // "disk"
    ck_assert_uint_eq(request(0, 1234, 0, DATA, 512), 2);
    ck_assert_uint_eq(drive->counts[DRIVE_FLUSHES].operations, 1);
    ck_assert_uint_eq(drive->counts[DRIVE_UNMAPS].operations, 1);
    ck_assert_uint_eq(drive->counts[DRIVE_UNMAPS].bytes, 4096);
    ck_assert_uint_eq(drive->counts[DRIVE_UNMAPS].invalid, 1); // outside
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].operations, 1);
    ck_assert_uint_eq(drive->highest_write, 8192);
}
END_TEST

START_TEST(cache_mode_decides_on_safe_writes)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    ck_assert_uint_eq(fake_disk_last_flags(disk), 0);
    guest_store(&guest, guest.device + 32, 0, 1);
    ck_assert_uint_eq(guest_load(&guest, guest.device + 32, 1), 0);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    ck_assert_uint_eq(fake_disk_last_flags(disk), DISK_FUA);
    ck_assert(guest_start(&guest, MODERN, 1, 64)); // a driver without flushes
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    ck_assert_uint_eq(fake_disk_last_flags(disk), DISK_FUA);
}
END_TEST

START_TEST(errors_reach_the_guest)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, IN, DISK_SIZE / 512, DATA, 512), 1);
    ck_assert_uint_eq(request(0, IN, DISK_SIZE / 512 - 1, DATA, 1024), 1);
    ck_assert_uint_eq(request(0, IN, UINT64_MAX / 512, DATA, 512), 1);
    ck_assert_uint_eq(request(0, IN, UINT64_MAX, DATA, 512), 1);
    ck_assert_uint_eq(request(0, IN, 0, DATA, 100), 1);
    fake_disk_fail(disk, -EIO, 1);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 1);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    fake_disk_set_read_only(disk, true);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 1);
    ck_assert_uint_eq(request(0, IN, 0, DATA, 512), 0);
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].operations, 2);
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].failed, 1);
    ck_assert_uint_eq(drive->counts[DRIVE_WRITES].invalid, 1);
    ck_assert_uint_eq(drive->counts[DRIVE_READS].operations, 1);
    ck_assert_uint_gt(drive->counts[DRIVE_READS].invalid, 0);
    ck_assert_uint_eq(drive->errors, 1);
}

// A piece is changed when the request is done, and by what changes it alone.
START_TEST(changes_are_remembered)
{
    uint64_t pieces;
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0); // before
    drive_watch_changes(drive, true);
    ck_assert_uint_eq(request(0, IN, 1024, DATA, 4096), 0);
    ck_assert_uint_eq(drive_changed_bytes(drive), 0);
    ck_assert_uint_eq(request(0, OUT, 3 * 128 - 1, DATA, 1024), 0); // over a border
    make_trim(DISCARD, 128, 8, 0);
    ck_assert_uint_eq(request(0, DISCARD, 0, DATA, 16), 0);
    ck_assert_uint_eq(drive_changed_bytes(drive), 3 * DRIVE_CHANGE_PIECE);
    g_autofree uint64_t *changes = drive_take_changes(drive, &pieces);
    ck_assert_uint_eq(pieces, (DISK_SIZE + DRIVE_CHANGE_PIECE - 1) / DRIVE_CHANGE_PIECE);
    ck_assert_uint_eq(changes[0], BIT(1) | BIT(2) | BIT(3));
    ck_assert_uint_eq(drive_changed_bytes(drive), 0);
    drive_watch_changes(drive, false);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    ck_assert_uint_eq(drive_changed_bytes(drive), 0);
}
END_TEST

START_TEST(full_host_disk_stops_and_retries)
{
    GError *error = NULL;
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert(machine_start(machine, &error));
    fake_disk_fail(disk, -ENOSPC, 1);
    make_request(0, 0, OUT, 3, DATA, 512);
    fill(DATA, 9, 512);
    guest_offer(&guest, 0, 0);
    guest_notify(&guest, 0);
    for (unsigned i = 0; i < 2000 && machine->state == RUN_STATE_RUNNING; i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(500);
    }
    ck_assert_int_eq(machine->state, RUN_STATE_IO_ERROR);
    ck_assert(strstr(machine->stop_reason, "disk is full"));
    ck_assert_uint_eq(guest_load(&guest, STATUS, 1), 0xee); // the guest knows nothing of it
    ck_assert_msg(machine_start(machine, &error), "%s", error ? error->message : "");
    ck_assert(guest_wait(&guest, 0, NULL, NULL));
    ck_assert_uint_eq(guest_load(&guest, STATUS, 1), 0);
    ck_assert_int_eq(memcmp(fake_disk_data(disk) + 3 * 512, machine->ram->host + machine->ram_offset + DATA, 512), 0);
}
END_TEST

START_TEST(reset_waits_for_what_is_in_flight)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    fake_disk_synchronous(disk, true);
    ck_assert_uint_eq(request(0, OUT, 0, DATA, 512), 0);
    fake_disk_synchronous(disk, false);
    for (unsigned i = 0; i < 10; i++) {
        make_request(0, i, IN, i, DATA + 512 * i, 512);
        guest_offer(&guest, 0, 3 * i);
    }
    guest_notify(&guest, 0);
    guest_store(&guest, guest.common + 0x14, 0, 1);
    ck_assert_uint_eq(fake_disk_count(disk, DISK_READ), 10);
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, IN, 0, DATA, 512), 0);
}
END_TEST

START_TEST(resize_is_told)
{
    GError *error = NULL;
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(guest_load(&guest, guest.device, 8), DISK_SIZE / 512);
    unsigned generation = guest_load(&guest, guest.common + 0x15, 1);
    ck_assert(drive_resize(drive, 2 * DISK_SIZE, &error));
    ck_assert_uint_eq(guest_load(&guest, guest.device, 8), 2 * DISK_SIZE / 512);
    ck_assert_uint_ne(guest_load(&guest, guest.common + 0x15, 1), generation);
    ck_assert_uint_eq(guest_messages(&guest, 0), 1);
    ck_assert(!drive_eject(drive, true, &error));
    g_clear_error(&error);
}
END_TEST

struct submitter {
    struct drive_request request;
    _Atomic bool stop, busy;
    unsigned count, failed;
};

static void submitted_done(struct drive_request *request, int result)
{
    struct submitter *s = request->opaque;
    s->count++;
    s->failed += result != 0;
    s->busy = false;
}

static void *keep_submitting(void *opaque)
{
    struct submitter *s = opaque;
    static uint8_t data[512];
    static struct iovec iov = {data, sizeof data};
    while (!s->stop) {
        s->request = (struct drive_request){.done = submitted_done, .opaque = s};
        s->request.disk = (struct disk_request){.op = DISK_READ, .length = 512, .iov = &iov, .iov_count = 1};
        s->busy = true;
        drive_submit(drive, &s->request);
        while (s->busy)
            g_thread_yield();
    }
    return NULL;
}

// Queues are served without the machine lock: what comes while the disk gets another size waits, and is then done.
START_TEST(resize_holds_requests_back)
{
    struct submitter s = {.stop = false};
    GError *error = NULL;
    GThread *thread = g_thread_new("submitter", keep_submitting, &s);
    for (unsigned i = 1; i <= 50; i++) {
        machine_lock(machine);
        ck_assert(drive_resize(drive, (1 + i % 2) * DISK_SIZE, &error));
        machine_unlock(machine);
        g_usleep(200);
    }
    s.stop = true;
    g_thread_join(thread);
    ck_assert_uint_gt(s.count, 50);
    ck_assert_uint_eq(s.failed, 0);
}
END_TEST

// ---- Transports -------------------------------------------------------------------------------------------------

#define port_out(offset, value, size) address_space_store(machine->ports, guest.legacy + (offset), value, size)
#define port_in(offset, size)         address_space_load(machine->ports, guest.legacy + (offset), size)

START_TEST(legacy_interface)
{
    pci_config_write(machine->pci, 0, guest.pci->devfn, guest.pci->msix_cap + 2, 0, 2); // INTx
    port_out(18, 0, 1);
    port_out(18, 3, 1);
    ck_assert_uint_ne(port_in(0, 4) & BIT(9), 0);
    port_out(4, BIT(9), 4);
    port_out(14, 0, 2);
    unsigned size = port_in(12, 2);
    ck_assert_uint_eq(size, 256);
    port_out(8, GUEST_RINGS >> 12, 4);
    port_out(18, 7, 1);
    ck_assert_uint_eq(port_in(20, 8), DISK_SIZE / 512); // capacity
    // Available ring after the descriptors, used ring on the next page.
    uint64_t available = GUEST_RINGS + 16 * size, used = ALIGN_UP(available + 6 + 2 * size, PAGE_SIZE);
    make_request(0, 0, IN, 1, DATA, 512);
    memset(fake_disk_data(disk) + 512, 0x77, 512);
    guest_store(&guest, available + 4, 0, 2);
    guest_store(&guest, available + 2, 1, 2);
    port_out(16, 0, 2);
    for (unsigned i = 0; i < 2000 && !guest_load(&guest, used + 2, 2); i++)
        g_usleep(500);
    ck_assert_uint_eq(guest_load(&guest, used + 2, 2), 1);
    ck_assert_uint_eq(guest_load(&guest, DATA + 100, 1), 0x77);
    for (unsigned i = 0; i < 2000 && !guest.pci->intx_level; i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(100);
    }
    ck_assert(guest.pci->intx_level);
    ck_assert_uint_eq(port_in(19, 1), 1);
    ck_assert(!guest.pci->intx_level);
    ck_assert_uint_eq(port_in(19, 1), 0);
}
END_TEST

START_TEST(window_in_configuration_space)
{
    unsigned at = 0;
    for (unsigned cap = guest.pci->config[0x34]; cap; cap = guest.pci->config[cap + 1])
        if (guest.pci->config[cap] == 9 && guest.pci->config[cap + 3] == 5)
            at = cap;
    ck_assert_uint_ne(at, 0);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 4, 4, 1);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 8, 0x14, 4);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 12, 1, 4);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 16, 3, 1);
    ck_assert_uint_eq(guest_status(&guest), 3);
    ck_assert_uint_eq(pci_config_read(machine->pci, 0, guest.pci->devfn, at + 16, 1), 3);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 8, 0x2000, 4);
    pci_config_write(machine->pci, 0, guest.pci->devfn, at + 12, 4, 4);
    ck_assert_uint_eq(pci_config_read(machine->pci, 0, guest.pci->devfn, at + 16, 4), DISK_SIZE / 512);
}
END_TEST

START_TEST(features_must_include_version_1)
{
    ck_assert(!guest_start(&guest, BIT(9), 1, 64));
    ck_assert(guest_start(&guest, BIT(9) | MODERN, 1, 64));
}
END_TEST

// ---- Hostile drivers --------------------------------------------------------------------------------------------

// Each case offers something that breaks a rule.
static void endless_chain(void)
{
    guest_descriptor(&guest, 0, 0, HEADER, 16, GUEST_NEXT, 1);
    guest_descriptor(&guest, 0, 1, HEADER, 16, GUEST_NEXT, 0);
    guest_offer(&guest, 0, 0);
}

static void head_out_of_range(void)
{
    guest_offer(&guest, 0, 64);
}

static void next_out_of_range(void)
{
    guest_descriptor(&guest, 0, 0, HEADER, 16, GUEST_NEXT, 65535);
    guest_offer(&guest, 0, 0);
}

static void buffer_nowhere(void)
{
    make_request(0, 0, IN, 0, 0xfffffffffffff000ull, 8192);
    guest_offer(&guest, 0, 0);
}

static void buffer_in_registers(void)
{
    make_request(0, 0, IN, 0, guest.common, 512);
    guest_offer(&guest, 0, 0);
}

static void giant_buffer(void)
{
    make_request(0, 0, IN, 0, DATA, 0xffffffff);
    guest_offer(&guest, 0, 0);
}

static void index_runs_away(void)
{
    guest_store(&guest, guest_available(0) + 2, 1000, 2);
}

static void nested_indirect(void)
{
    guest_store(&guest, DATA, DATA, 8);
    guest_store(&guest, DATA + 8, 16, 4);
    guest_store(&guest, DATA + 12, GUEST_INDIRECT, 4);
    guest_descriptor(&guest, 0, 0, DATA, 16, GUEST_INDIRECT, 0);
    guest_offer(&guest, 0, 0);
}

static void odd_indirect(void)
{
    guest_descriptor(&guest, 0, 0, DATA, 17, GUEST_INDIRECT, 0);
    guest_offer(&guest, 0, 0);
}

static void giant_indirect(void)
{
    guest_descriptor(&guest, 0, 0, DATA, 0xfffffff0, GUEST_INDIRECT, 0);
    guest_offer(&guest, 0, 0);
}

static void no_status(void)
{
    guest_descriptor(&guest, 0, 0, HEADER, 16, 0, 0);
    guest_offer(&guest, 0, 0);
}

static void short_header(void)
{
    guest_descriptor(&guest, 0, 0, HEADER, 8, GUEST_NEXT, 1);
    guest_descriptor(&guest, 0, 1, STATUS, 1, GUEST_WRITE, 0);
    guest_offer(&guest, 0, 0);
}

static void read_after_write(void)
{
    guest_descriptor(&guest, 0, 0, STATUS, 1, GUEST_WRITE | GUEST_NEXT, 1);
    guest_descriptor(&guest, 0, 1, HEADER, 16, 0, 0);
    guest_offer(&guest, 0, 0);
}

static void (*const offences[])(void) = {
    endless_chain, head_out_of_range, next_out_of_range, buffer_nowhere, buffer_in_registers,
    giant_buffer,  index_runs_away,   nested_indirect,   odd_indirect,   giant_indirect,
    no_status,     short_header,      read_after_write,
};

START_TEST(offences_break_the_device_until_a_reset)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    offences[_i]();
    guest_notify(&guest, 0);
    ck_assert_uint_ne(guest_status(&guest) & 64, 0);
    ck_assert_uint_eq(guest_messages(&guest, 0), 1);
    guest_notify(&guest, 0);
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, IN, 0, DATA, 512), 0);
}
END_TEST

START_TEST(rings_outside_memory_are_refused)
{
    static const uint64_t places[] = {0xfffffff0, 0x7fffffffffff0000ull, 16 * MiB - 64, 0x1234501};
    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        ck_assert(guest_start(&guest, ALL, 0, 64));
        guest_store(&guest, guest.common + 0x16, 0, 2);
        for (unsigned area = 0x20; area < 0x38; area += 8) {
            guest_store(&guest, guest.common + area, places[i], 4);
            guest_store(&guest, guest.common + area + 4, places[i] >> 32, 4);
        }
        guest_store(&guest, guest.common + 0x1c, 1, 2);
        ck_assert_uint_ne(guest_status(&guest) & 64, 0);
        guest_notify(&guest, 0);
    }
}
END_TEST

// More chains in flight than there are descriptors: the same head over and over while the disk holds still.
START_TEST(flood_is_bounded)
{
    ck_assert(guest_start(&guest, ALL, 1, 64));
    fake_disk_hold(disk, true);
    make_request(0, 0, IN, 0, DATA, 512);
    for (unsigned i = 0; i < 200; i++) {
        guest_offer(&guest, 0, 0);
        guest_notify(&guest, 0);
    }
    ck_assert_uint_ne(guest_status(&guest) & 64, 0);
    fake_disk_hold(disk, false);
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, IN, 0, DATA, 512), 0);
}
END_TEST

START_TEST(random_registers_and_rings)
{
    GRand *rand = g_rand_new_with_seed(_i + 1);
    for (unsigned round = 0; round < 300; round++) {
        guest_start(&guest, ALL, 4, 1u << g_rand_int_range(rand, 0, 8));
        for (unsigned step = 0; step < 60; step++) {
            unsigned size = 1u << g_rand_int_range(rand, 0, 4), queue = g_rand_int_range(rand, 0, 4);
            switch (g_rand_int_range(rand, 0, 8)) {
            case 0:
                guest_store(&guest, guest.common + g_rand_int_range(rand, 0, 0x3400), g_rand_int(rand), size);
                break;
            case 1:
                guest_load(&guest, guest.common + g_rand_int_range(rand, 0, 0x3400), size);
                break;
            case 2:
                port_out(g_rand_int_range(rand, 0, 128), g_rand_int(rand) >> g_rand_int_range(rand, 0, 31), size);
                break;
            case 3:
                port_in(g_rand_int_range(rand, 0, 128), size);
                break;
            case 4:
                guest_descriptor(&guest, queue, g_rand_int_range(rand, 0, 64),
                                 g_rand_boolean(rand) ? DATA : HEADER + g_rand_int_range(rand, 0, 1 << 20),
                                 1u << g_rand_int_range(rand, 0, 20), g_rand_int_range(rand, 0, 8),
                                 g_rand_int_range(rand, 0, 66));
                break;
            case 5:
                guest_offer(&guest, queue, g_rand_int_range(rand, 0, 66));
                break;
            case 6:
                guest_store(&guest, HEADER + 16 * g_rand_int_range(rand, 0, 64), g_rand_int_range(rand, 0, 14), 4);
                break;
            case 7:
                guest_notify(&guest, queue);
                break;
            }
        }
        g_main_context_iteration(machine->context, false);
    }
    g_rand_free(rand);
    guest_store(&guest, guest.common + 0x14, 0, 1);
    guest_attach(&guest, machine, guest.pci);
    ck_assert(guest_start(&guest, ALL, 1, 64));
    ck_assert_uint_eq(request(0, IN, 0, DATA, 512), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio");
    TCase *tcase = tcase_create("virtio-blk");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, writes_and_reads_on_every_queue, 0, 2);
    tcase_add_test(tcase, many_requests_at_once);
    tcase_add_test(tcase, indirect_chains);
    tcase_add_test(tcase, flush_discard_zeroes_and_id);
    tcase_add_test(tcase, cache_mode_decides_on_safe_writes);
    tcase_add_test(tcase, errors_reach_the_guest);
    tcase_add_test(tcase, changes_are_remembered);
    tcase_add_test(tcase, full_host_disk_stops_and_retries);
    tcase_add_test(tcase, reset_waits_for_what_is_in_flight);
    tcase_add_test(tcase, resize_is_told);
    tcase_add_test(tcase, resize_holds_requests_back);
    tcase_add_test(tcase, legacy_interface);
    tcase_add_test(tcase, window_in_configuration_space);
    tcase_add_test(tcase, features_must_include_version_1);
    tcase_add_loop_test(tcase, offences_break_the_device_until_a_reset, 0, G_N_ELEMENTS(offences));
    tcase_add_test(tcase, rings_outside_memory_are_refused);
    tcase_add_test(tcase, flood_is_bounded);
    tcase_add_loop_test(tcase, random_registers_and_rings, 0, 8);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

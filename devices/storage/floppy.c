// SPDX-License-Identifier: GPL-2.0-or-later
// Floppy controller (Intel 82077AA datasheet, order 290166) with two drives that take every standard geometry. Data
// goes through channel 2 of the 8237, or through the FIFO where the guest says so.
#include "devices/storage/floppy.h"

#include "core/machine/drive.h"
#include "devices/chipset/chipset.h"
#include "devices/storage/floppy_geometry.h"

#include <string.h>

#define SECTOR        512u
#define DRIVES        2
#define CYLINDER_MAX  (2 * 48 * SECTOR)
#define DMA_CHANNEL   2
#define FLOPPY_IRQ    6
#define READ_ID_DELAY 2000000 // nanoseconds: an address mark passes by
#define PORTS         0x3f0

enum { PORT_SRA, PORT_SRB, PORT_DOR, PORT_TDR, PORT_MSR, PORT_FIFO, PORT_DIR = 7 };
enum { DOR_SELECT = 3, DOR_NOT_RESET = 4, DOR_DMA_GATE = 8, DOR_MOTOR0 = 0x10 };
enum { MSR_BUSY = 0x10, MSR_NON_DMA = 0x20, MSR_TO_HOST = 0x40, MSR_READY = 0x80 };
enum { ST0_ABNORMAL = 0x40, ST0_INVALID = 0x80, ST0_SEEK_END = 0x20, ST0_NOT_READY = 0x08, ST0_HEAD = 0x04 };
enum { ST1_END = 0x80, ST1_OVERRUN = 0x10, ST1_NO_DATA = 0x04, ST1_WRITE_PROTECT = 0x02, ST1_NO_ADDRESS = 0x01 };
enum { ST2_WRONG_CYLINDER = 0x10 };
enum { FLAG_MT = 0x80, CONFIGURE_IMPLIED_SEEK = 0x40 };

enum phase { PHASE_COMMAND, PHASE_EXECUTION, PHASE_DATA, PHASE_RESULT };
enum action { ACTION_NONE, ACTION_READ, ACTION_WRITE, ACTION_VERIFY, ACTION_FORMAT };
// One drive. The medium's geometry follows from its size.
struct floppy_drive {
    struct drive *drive;                    // NULL: there is none
    const struct floppy_geometry *geometry; // NULL: no medium
    uint8_t track;
    bool changed; // the disk change line: until a step with a medium in
};

// Machine lock.
struct floppy {
    struct device device;
    struct device *dma; // the 8237
    struct drive *properties[DRIVES];
    struct floppy_drive drives[DRIVES];
    struct region low, high; // 0x3F0-0x3F5 and 0x3F7

    uint8_t dor, tdr, rate;
    uint8_t phase;    // enum phase
    uint8_t fifo[16]; // command or result bytes
    uint8_t position, length;
    uint8_t seeking; // drives whose seek ended and was not yet asked about
    uint8_t seek_status[DRIVES];
    uint8_t reset_count; // SENSE INTERRUPT answers that a reset owes
    bool interrupt;
    uint8_t specify[2], configure[3], perpendicular;
    bool locked;

    // The command in execution:
    uint8_t action; // enum action
    uint8_t unit;
    uint8_t cylinder, head, sector, size_code, last_sector;
    bool multi_track;
    uint8_t runs_done; // of a write: heads whose sectors are on the disk
    bool request_running;
    uint32_t data_position, data_length; // in DATA
    uint32_t moved;                      // bytes that went between DATA and memory
    bool terminal_count;
    uint8_t data[CYLINDER_MAX]; // the sectors in the order in which they pass
    struct timer id_timer;

    struct drive_request request;
    struct iovec iov;
    bool abandoned;
};

TRACE_POINT(floppy_command);

// ---- Media ------------------------------------------------------------------------------------------------------

static void look_at_medium(struct floppy_drive *drive)
{
    uint64_t size = drive->drive ? drive_size(drive->drive) : 0;
    drive->geometry = size ? floppy_geometry_find(size) : NULL;
    if (size && !drive->geometry)
        log_warning("floppy", "%s: %" G_GUINT64_FORMAT " bytes are more than a floppy holds; the drive stays empty",
                    drive->drive->id, size);
}

static void medium_changed(void *opaque)
{
    struct floppy_drive *drive = opaque;
    drive->changed = true;
    look_at_medium(drive);
}

static const struct drive_client drive_client = {.medium_changed = medium_changed};

uint8_t floppy_cmos_types(struct device *device)
{
    struct floppy *floppy = (struct floppy *)device;
    uint8_t types = 0;
    for (unsigned i = 0; i < DRIVES; i++) {
        const struct floppy_drive *drive = &floppy->drives[i];
        uint8_t type = !drive->drive ? 0 : drive->geometry ? drive->geometry->cmos : 4;
        types |= type << (i ? 0 : 4);
    }
    return types;
}

static struct floppy_drive *selected(struct floppy *floppy)
{
    return &floppy->drives[floppy->unit % DRIVES];
}

// ---- Phases -----------------------------------------------------------------------------------------------------

static void set_interrupt(struct floppy *floppy, bool level)
{
    floppy->interrupt = level;
    irq_set(&floppy->device.machine->isa_irq[FLOPPY_IRQ], level && (floppy->dor & DOR_DMA_GATE));
}

static void await_command(struct floppy *floppy)
{
    floppy->phase = PHASE_COMMAND;
    floppy->position = floppy->length = 0;
    floppy->action = ACTION_NONE;
}

static void give_result(struct floppy *floppy, const uint8_t *bytes, unsigned count, bool interrupt)
{
    memcpy(floppy->fifo, bytes, count);
    floppy->phase = PHASE_RESULT;
    floppy->position = 0;
    floppy->length = count;
    if (interrupt)
        set_interrupt(floppy, true);
}

// The seven bytes after a data command.
static void end_command(struct floppy *floppy, uint8_t st0, uint8_t st1, uint8_t st2)
{
    st0 |= floppy->unit | (floppy->head ? ST0_HEAD : 0);
    const uint8_t result[] = {st0, st1, st2, floppy->cylinder, floppy->head, floppy->sector, floppy->size_code};
    floppy->action = ACTION_NONE;
    give_result(floppy, result, sizeof result, true);
}

// Where the sector after COUNT more lies, by the rules of the datasheet's result table (5.1.1).
static void advance(struct floppy *floppy, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (floppy->sector++ != floppy->last_sector)
            continue;
        floppy->sector = 1;
        if (floppy->multi_track && !floppy->head) {
            floppy->head = 1;
        } else {
            floppy->cylinder++;
            if (floppy->multi_track)
                floppy->head = 0;
        }
    }
}

// ---- Reading and writing ----------------------------------------------------------------------------------------

// Sectors that pass from the first one to the end of the track, and with MT to the end of the other side.
static unsigned first_run(const struct floppy *floppy, const struct floppy_geometry *geometry)
{
    unsigned end = MIN(floppy->last_sector, geometry->sectors);
    return end >= floppy->sector ? end - floppy->sector + 1 : 0;
}

static unsigned second_run(const struct floppy *floppy, const struct floppy_geometry *geometry)
{
    return floppy->multi_track && !floppy->head && geometry->heads > 1 ? MIN(floppy->last_sector, geometry->sectors)
                                                                       : 0;
}

static void request_done(struct drive_request *request, int result);

static void submit(struct floppy *floppy, enum disk_op op, uint64_t offset, void *data, uint32_t length)
{
    struct disk_request *disk = &floppy->request.disk;
    memset(disk, 0, sizeof *disk);
    floppy->iov = (struct iovec){data, length};
    *disk = (struct disk_request){.op = op, .offset = offset, .length = length, .iov = &floppy->iov, .iov_count = 1};
    floppy->request.done = request_done;
    floppy->request.opaque = floppy;
    floppy->request.locked = true;
    floppy->request_running = true;
    drive_submit(selected(floppy)->drive, &floppy->request);
}

// Begins the disk's part for the run of one side. False: nothing (more) to do.
static bool submit_run(struct floppy *floppy, unsigned run)
{
    const struct floppy_geometry *geometry = selected(floppy)->geometry;
    if (!geometry)
        return false;
    unsigned first = first_run(floppy, geometry) * SECTOR, from = run ? first : 0;
    unsigned length = run ? second_run(floppy, geometry) * SECTOR : first;
    bool reading = floppy->action == ACTION_READ || floppy->action == ACTION_VERIFY;
    if (!reading) {
        // Only what came from memory is written, in whole sectors.
        uint32_t have = ALIGN_UP(floppy->moved, SECTOR);
        length = have > from ? MIN(length, have - from) : 0;
    }
    if (!length)
        return false;
    uint64_t offset =
        floppy_geometry_offset(geometry, floppy->cylinder, run ? 1 : floppy->head, run ? 1 : floppy->sector);
    submit(floppy, reading ? DISK_READ : DISK_WRITE, offset, floppy->data + from, length);
    return true;
}

static void end_transfer(struct floppy *floppy)
{
    bool whole = floppy->terminal_count || floppy->action == ACTION_VERIFY;
    if (!floppy->moved && floppy->action != ACTION_VERIFY) {
        end_command(floppy, ST0_ABNORMAL, ST1_OVERRUN, 0);
        return;
    }
    advance(floppy, (floppy->moved + SECTOR - 1) / SECTOR);
    end_command(floppy, whole ? 0 : ST0_ABNORMAL, whole ? 0 : ST1_END, 0);
}

static bool uses_fifo(const struct floppy *floppy)
{
    return floppy->specify[1] & 1;
}

// All sectors are in DATA: on to memory, or to the FIFO.
static void deliver(struct floppy *floppy)
{
    if (floppy->action == ACTION_VERIFY) {
        floppy->moved = floppy->data_length;
        end_transfer(floppy);
        return;
    }
    if (uses_fifo(floppy)) {
        floppy->phase = PHASE_DATA;
        set_interrupt(floppy, true);
        return;
    }
    floppy->moved = i8237_from_device(floppy->dma, DMA_CHANNEL, floppy->data, floppy->data_length);
    floppy->terminal_count = i8237_terminal_count(floppy->dma, DMA_CHANNEL);
    end_transfer(floppy);
}

static void request_done(struct drive_request *request, int result)
{
    struct floppy *floppy = request->opaque;
    floppy->request_running = false;
    if (floppy->abandoned)
        return;
    if (result < 0) {
        bool reading = floppy->action == ACTION_READ || floppy->action == ACTION_VERIFY;
        end_command(floppy, ST0_ABNORMAL, reading ? ST1_NO_DATA : ST1_WRITE_PROTECT, 0);
        return;
    }
    if (floppy->runs_done++ == 0 && floppy->action != ACTION_FORMAT && submit_run(floppy, 1))
        return;
    if (floppy->action == ACTION_FORMAT)
        end_command(floppy, 0, 0, 0);
    else if (floppy->action == ACTION_WRITE)
        end_transfer(floppy);
    else
        deliver(floppy);
}

static void format_track(struct floppy *floppy);

// The bytes of a write are in DATA.
static void store(struct floppy *floppy)
{
    if (!selected(floppy)->geometry) // the medium went while the guest filled the FIFO
        end_command(floppy, ST0_ABNORMAL | ST0_NOT_READY, ST1_NO_ADDRESS, 0);
    else if (floppy->action == ACTION_FORMAT)
        format_track(floppy);
    else if (!submit_run(floppy, 0))
        end_transfer(floppy);
}

static void begin_write_data(struct floppy *floppy)
{
    if (uses_fifo(floppy)) {
        floppy->phase = PHASE_DATA;
        set_interrupt(floppy, true);
        return;
    }
    floppy->moved = i8237_to_device(floppy->dma, DMA_CHANNEL, floppy->data, floppy->data_length);
    floppy->terminal_count = i8237_terminal_count(floppy->dma, DMA_CHANNEL);
    memset(floppy->data + floppy->moved, 0, floppy->data_length - floppy->moved);
    store(floppy);
}

static void step_to(struct floppy *floppy, unsigned unit, uint8_t track)
{
    struct floppy_drive *drive = &floppy->drives[unit];
    drive->track = MIN(track, 83);
    if (drive->geometry)
        drive->changed = false;
}

// Checks what every data command needs. Returns false when the command has ended with an error.
static bool find_sector(struct floppy *floppy, bool write)
{
    struct floppy_drive *drive = selected(floppy);
    if (!drive->geometry) {
        end_command(floppy, ST0_ABNORMAL | ST0_NOT_READY, ST1_NO_ADDRESS, 0);
        return false;
    }
    if (write && !drive_writable(drive->drive)) {
        end_command(floppy, ST0_ABNORMAL, ST1_WRITE_PROTECT, 0);
        return false;
    }
    if (!floppy_geometry_takes(drive->geometry, floppy->rate)) {
        end_command(floppy, ST0_ABNORMAL, ST1_NO_ADDRESS, 0);
        return false;
    }
    if (floppy->configure[1] & CONFIGURE_IMPLIED_SEEK)
        step_to(floppy, floppy->unit, floppy->cylinder);
    if (floppy->cylinder != drive->track) {
        end_command(floppy, ST0_ABNORMAL, ST1_NO_DATA, ST2_WRONG_CYLINDER);
        return false;
    }
    if (floppy->cylinder >= drive->geometry->tracks || floppy->head >= drive->geometry->heads || !floppy->sector ||
        floppy->sector > drive->geometry->sectors || floppy->size_code != 2) {
        end_command(floppy, ST0_ABNORMAL, ST1_NO_DATA, 0);
        return false;
    }
    return true;
}

static void take_address(struct floppy *floppy)
{
    floppy->multi_track = floppy->fifo[0] & FLAG_MT;
    floppy->cylinder = floppy->fifo[2];
    floppy->head = floppy->fifo[3] & 1;
    floppy->sector = floppy->fifo[4];
    floppy->size_code = floppy->fifo[5];
    floppy->last_sector = floppy->fifo[6];
}

static void begin_transfer(struct floppy *floppy, enum action action)
{
    take_address(floppy);
    floppy->action = action;
    if (!find_sector(floppy, action == ACTION_WRITE))
        return;
    const struct floppy_geometry *geometry = selected(floppy)->geometry;
    floppy->data_length = (first_run(floppy, geometry) + second_run(floppy, geometry)) * SECTOR;
    floppy->data_position = floppy->moved = 0;
    floppy->terminal_count = false;
    floppy->runs_done = 0;
    if (!floppy->data_length) {
        end_command(floppy, ST0_ABNORMAL, ST1_NO_DATA, 0);
    } else if (action == ACTION_WRITE) {
        begin_write_data(floppy);
    } else {
        submit_run(floppy, 0);
    }
}

// ---- Commands ---------------------------------------------------------------------------------------------------

static void read_data(struct floppy *floppy)
{
    begin_transfer(floppy, ACTION_READ);
}

// From the first sector of the track, whatever the address says.
static void read_track(struct floppy *floppy)
{
    floppy->fifo[0] &= ~FLAG_MT;
    floppy->fifo[4] = 1;
    begin_transfer(floppy, ACTION_READ);
}

static void write_data(struct floppy *floppy)
{
    begin_transfer(floppy, ACTION_WRITE);
}

static void verify_data(struct floppy *floppy)
{
    begin_transfer(floppy, ACTION_VERIFY);
}

// Bytes: size code, sectors, gap, filler. The addresses (C, H, R, N of each sector) come as data.
static void format(struct floppy *floppy)
{
    struct floppy_drive *drive = selected(floppy);
    floppy->action = ACTION_FORMAT;
    floppy->multi_track = false;
    floppy->cylinder = drive->track;
    floppy->head = floppy->fifo[1] >> 2 & 1;
    floppy->sector = 1;
    floppy->size_code = floppy->fifo[2];
    floppy->last_sector = floppy->fifo[3];
    if (!find_sector(floppy, true))
        return;
    floppy->data_position = floppy->moved = 0;
    floppy->data_length = MIN(floppy->last_sector, drive->geometry->sectors) * 4;
    if (!floppy->data_length)
        end_command(floppy, ST0_ABNORMAL, ST1_NO_DATA, 0);
    else
        begin_write_data(floppy);
}

static void format_track(struct floppy *floppy)
{
    const struct floppy_geometry *geometry = selected(floppy)->geometry;
    uint32_t sectors = floppy->data_length / 4;
    memset(floppy->data, floppy->fifo[5], sectors * SECTOR);
    submit(floppy, DISK_WRITE, floppy_geometry_offset(geometry, floppy->cylinder, floppy->head, 1), floppy->data,
           sectors * SECTOR);
}

static void read_id(struct floppy *floppy)
{
    floppy->action = ACTION_NONE;
    timer_arm(&floppy->id_timer, clock_now(floppy->device.machine->clock) + READ_ID_DELAY);
}

static void id_found(void *opaque)
{
    struct floppy *floppy = opaque;
    struct floppy_drive *drive = selected(floppy);
    floppy->head = floppy->fifo[1] >> 2 & 1;
    floppy->cylinder = drive->track;
    floppy->sector = 1;
    floppy->size_code = 2;
    floppy->last_sector = drive->geometry ? drive->geometry->sectors : 1;
    floppy->multi_track = false;
    if (!drive->geometry || !floppy_geometry_takes(drive->geometry, floppy->rate) ||
        drive->track >= drive->geometry->tracks || floppy->head >= drive->geometry->heads)
        end_command(floppy, ST0_ABNORMAL, ST1_NO_ADDRESS, 0);
    else
        end_command(floppy, 0, 0, 0);
}

static void end_seek(struct floppy *floppy, uint8_t st0)
{
    unsigned unit = floppy->unit % DRIVES;
    floppy->seeking |= 1u << unit;
    floppy->seek_status[unit] = st0 | unit;
    await_command(floppy);
    set_interrupt(floppy, true);
}

static void recalibrate(struct floppy *floppy)
{
    step_to(floppy, floppy->unit % DRIVES, 0);
    // Without a drive track 0 never comes: equipment check.
    end_seek(floppy, selected(floppy)->drive ? ST0_SEEK_END : ST0_SEEK_END | ST0_ABNORMAL | 0x10);
}

static void seek(struct floppy *floppy)
{
    step_to(floppy, floppy->unit % DRIVES, floppy->fifo[2]);
    end_seek(floppy, ST0_SEEK_END | (floppy->fifo[1] & ST0_HEAD));
}

static void sense_interrupt(struct floppy *floppy)
{
    uint8_t result[2] = {ST0_INVALID, 0};
    set_interrupt(floppy, false);
    if (floppy->reset_count) {
        result[0] = 0xc0 | (4 - floppy->reset_count--);
        unsigned unit = result[0] & 3;
        result[1] = unit < DRIVES ? floppy->drives[unit].track : 0;
        give_result(floppy, result, 2, false);
        return;
    }
    for (unsigned unit = 0; unit < DRIVES; unit++) {
        if (!(floppy->seeking & 1u << unit))
            continue;
        floppy->seeking &= ~(1u << unit);
        result[0] = floppy->seek_status[unit];
        result[1] = floppy->drives[unit].track;
        give_result(floppy, result, 2, false);
        return;
    }
    give_result(floppy, result, 1, false);
}

static void sense_drive(struct floppy *floppy)
{
    const struct floppy_drive *drive = selected(floppy);
    uint8_t st3 = (floppy->fifo[1] & 7) | 0x28; // ready, two sides
    st3 |= drive->track ? 0 : 0x10;
    st3 |= drive->drive && drive->drive->disk && !drive_writable(drive->drive) ? 0x40 : 0;
    give_result(floppy, &st3, 1, false);
}

static void specify(struct floppy *floppy)
{
    memcpy(floppy->specify, floppy->fifo + 1, 2);
    await_command(floppy);
}

static void configure(struct floppy *floppy)
{
    memcpy(floppy->configure, floppy->fifo + 1, 3);
    await_command(floppy);
}

static void perpendicular(struct floppy *floppy)
{
    floppy->perpendicular = floppy->fifo[1];
    await_command(floppy);
}

static void dump_registers(struct floppy *floppy)
{
    const uint8_t result[] = {floppy->drives[0].track,
                              floppy->drives[1].track,
                              0,
                              0,
                              floppy->specify[0],
                              floppy->specify[1],
                              floppy->last_sector,
                              (floppy->locked ? 0x80 : 0) | floppy->perpendicular,
                              floppy->configure[1],
                              floppy->configure[2]};
    give_result(floppy, result, sizeof result, false);
}

static void lock(struct floppy *floppy)
{
    floppy->locked = floppy->fifo[0] & 0x80;
    uint8_t result = floppy->locked ? 0x10 : 0;
    give_result(floppy, &result, 1, false);
}

static void version(struct floppy *floppy)
{
    const uint8_t result = 0x90; // an enhanced controller
    give_result(floppy, &result, 1, false);
}

static void invalid(struct floppy *floppy)
{
    const uint8_t result = ST0_INVALID;
    give_result(floppy, &result, 1, false);
}

static const struct command {
    uint8_t mask, code, bytes; // bytes of the whole command
    bool selects;              // the second one names drive and head
    void (*run)(struct floppy *floppy);
} commands[] = {
    {0x1f, 0x06, 9, true, read_data},
    {0x1f, 0x0c, 9, true, read_data}, // deleted data: there is none, so all is read
    {0x1f, 0x02, 9, true, read_track},
    {0x3f, 0x05, 9, true, write_data},
    {0x3f, 0x09, 9, true, write_data},
    {0x1f, 0x16, 9, true, verify_data},
    {0xbf, 0x0d, 6, true, format},
    {0xbf, 0x0a, 2, true, read_id},
    {0xff, 0x07, 2, true, recalibrate},
    {0xff, 0x0f, 3, true, seek},
    {0xff, 0x08, 1, false, sense_interrupt},
    {0xff, 0x04, 2, true, sense_drive},
    {0xff, 0x03, 3, false, specify},
    {0xff, 0x13, 4, false, configure},
    {0xff, 0x12, 2, false, perpendicular},
    {0xff, 0x0e, 1, false, dump_registers},
    {0x7f, 0x14, 1, false, lock},
    {0xff, 0x10, 1, false, version},
};

static const struct command *find_command(uint8_t byte)
{
    static const struct command none = {0, 0, 1, false, invalid};
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        if ((byte & commands[i].mask) == commands[i].code)
            return &commands[i];
    return &none;
}

static void run_command(struct floppy *floppy)
{
    const struct command *command = find_command(floppy->fifo[0]);
    TRACE(floppy_command, "%02x %02x %02x %02x %02x %02x %02x", floppy->fifo[0], floppy->fifo[1], floppy->fifo[2],
          floppy->fifo[3], floppy->fifo[4], floppy->fifo[5], floppy->fifo[6]);
    if (command->selects)
        floppy->unit = floppy->fifo[1] & (DRIVES - 1);
    floppy->phase = PHASE_EXECUTION;
    command->run(floppy);
}

// ---- Registers --------------------------------------------------------------------------------------------------

static void stop_disk(struct floppy *floppy)
{
    struct drive *drive = selected(floppy)->drive;
    floppy->abandoned = true;
    if (drive && floppy->request_running) {
        drive_cancel_parked(drive);
        drive_drain(drive);
    }
    floppy->abandoned = floppy->request_running = false;
}

static void controller_reset(struct floppy *floppy)
{
    stop_disk(floppy);
    timer_cancel(&floppy->id_timer);
    await_command(floppy);
    floppy->seeking = 0;
    floppy->interrupt = false;
    if (!floppy->locked)
        floppy->configure[1] = floppy->configure[2] = 0;
    set_interrupt(floppy, false);
}

static void write_dor(struct floppy *floppy, uint8_t value)
{
    bool was = floppy->dor & DOR_NOT_RESET, is = value & DOR_NOT_RESET;
    floppy->dor = value;
    if (was && !is) {
        controller_reset(floppy);
    } else if (!was && is) {
        floppy->reset_count = 4; // drive polling (datasheet, 6.2)
        set_interrupt(floppy, true);
    } else {
        set_interrupt(floppy, floppy->interrupt);
    }
}

static uint8_t read_msr(const struct floppy *floppy)
{
    if (!(floppy->dor & DOR_NOT_RESET))
        return 0;
    switch ((enum phase)floppy->phase) {
    case PHASE_COMMAND:
        return MSR_READY | (floppy->position ? MSR_BUSY : 0);
    case PHASE_EXECUTION:
        return MSR_BUSY;
    case PHASE_DATA:
        return MSR_READY | MSR_BUSY | MSR_NON_DMA | (floppy->action == ACTION_READ ? MSR_TO_HOST : 0);
    default:
        return MSR_READY | MSR_BUSY | MSR_TO_HOST;
    }
}

static uint8_t read_data_byte(struct floppy *floppy)
{
    uint8_t value = floppy->data[floppy->data_position++];
    floppy->moved = floppy->data_position;
    if (floppy->data_position >= floppy->data_length) {
        set_interrupt(floppy, false);
        end_transfer(floppy);
    }
    return value;
}

static uint8_t read_fifo(struct floppy *floppy)
{
    if (floppy->phase == PHASE_DATA && floppy->action == ACTION_READ)
        return read_data_byte(floppy);
    if (floppy->phase != PHASE_RESULT)
        return 0;
    set_interrupt(floppy, false);
    uint8_t value = floppy->fifo[floppy->position++];
    if (floppy->position == floppy->length)
        await_command(floppy);
    return value;
}

static void write_data_byte(struct floppy *floppy, uint8_t value)
{
    floppy->data[floppy->data_position++] = value;
    floppy->moved = floppy->data_position;
    if (floppy->data_position < floppy->data_length)
        return;
    set_interrupt(floppy, false);
    floppy->phase = PHASE_EXECUTION;
    store(floppy);
}

static void write_fifo(struct floppy *floppy, uint8_t value)
{
    if (!(floppy->dor & DOR_NOT_RESET))
        return;
    if (floppy->phase == PHASE_DATA && (floppy->action == ACTION_WRITE || floppy->action == ACTION_FORMAT)) {
        write_data_byte(floppy, value);
        return;
    }
    if (floppy->phase != PHASE_COMMAND)
        return;
    if (floppy->position == 0)
        floppy->length = find_command(value)->bytes;
    floppy->fifo[floppy->position++] = value;
    if (floppy->position == floppy->length)
        run_command(floppy);
}

static uint8_t read_dir(struct floppy *floppy)
{
    const struct floppy_drive *drive = &floppy->drives[floppy->dor & (DRIVES - 1)];
    bool motor = floppy->dor & DOR_MOTOR0 << (floppy->dor & DOR_SELECT);
    return drive->drive && motor && (drive->changed || !drive->geometry) ? 0x80 : 0;
}

static uint64_t floppy_read(void *opaque, uint64_t offset, unsigned size)
{
    struct floppy *floppy = opaque;
    switch (offset) {
    case PORT_SRA:
        return floppy->interrupt ? 0x80 : 0;
    case PORT_SRB:
        return 0xc0;
    case PORT_DOR:
        return floppy->dor;
    case PORT_TDR:
        return floppy->tdr;
    case PORT_MSR:
        return read_msr(floppy);
    case PORT_FIFO:
        return read_fifo(floppy);
    case PORT_DIR:
        return read_dir(floppy);
    }
    return 0xff;
}

static void floppy_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct floppy *floppy = opaque;
    switch (offset) {
    case PORT_DOR:
        write_dor(floppy, value);
        break;
    case PORT_TDR:
        floppy->tdr = value & 3;
        break;
    case PORT_MSR: // data rate select
        floppy->rate = value & 3;
        if (value & 0x80) { // software reset, clears itself
            controller_reset(floppy);
            floppy->reset_count = 4;
            set_interrupt(floppy, true);
        }
        break;
    case PORT_FIFO:
        write_fifo(floppy, value);
        break;
    case PORT_DIR: // configuration control
        floppy->rate = value & 3;
        break;
    }
}

static uint64_t floppy_high_read(void *opaque, uint64_t offset, unsigned size)
{
    return floppy_read(opaque, PORT_DIR, 1);
}

static void floppy_high_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    floppy_write(opaque, PORT_DIR, value, 1);
}

static const struct io_ops low_ops = {floppy_read, floppy_write, 1, 1};
static const struct io_ops high_ops = {floppy_high_read, floppy_high_write, 1, 1};

// ---- The device -------------------------------------------------------------------------------------------------

static void floppy_reset(struct device *device)
{
    struct floppy *floppy = (struct floppy *)device;
    floppy->locked = false;
    floppy->dor = 0;
    floppy->tdr = 0;
    floppy->rate = RATE_250K;
    controller_reset(floppy);
    floppy->reset_count = 0;
    memset(floppy->specify, 0, sizeof floppy->specify);
    for (unsigned i = 0; i < DRIVES; i++)
        floppy->drives[i].track = 0;
}

static bool floppy_realize(struct device *device, GError **error)
{
    struct floppy *floppy = (struct floppy *)device;
    if (!floppy->dma) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s has no DMA controller; give it one", device->id);
        return false;
    }
    for (unsigned i = 0; i < DRIVES; i++) {
        floppy->drives[i].drive = g_steal_pointer(&floppy->properties[i]);
        if (floppy->drives[i].drive)
            drive_set_client(floppy->drives[i].drive, &drive_client, &floppy->drives[i]);
        medium_changed(&floppy->drives[i]);
    }
    timer_init(&floppy->id_timer, device->machine->clock, id_found, floppy);
    region_init_io(&floppy->low, "floppy", &low_ops, floppy, 6);
    region_init_io(&floppy->high, "floppy-dir", &high_ops, floppy, 1);
    address_space_map(device->machine->ports, &floppy->low, PORTS, 0);
    address_space_map(device->machine->ports, &floppy->high, PORTS + PORT_DIR, 0);
    floppy_reset(device);
    return true;
}

static void floppy_unrealize(struct device *device)
{
    struct floppy *floppy = (struct floppy *)device;
    if (floppy->low.space)
        stop_disk(floppy);
    if (floppy->id_timer.clock)
        timer_destroy(&floppy->id_timer);
    address_space_unmap(&floppy->low);
    address_space_unmap(&floppy->high);
    for (unsigned i = 0; i < DRIVES; i++) {
        drive_free(floppy->properties[i]);
        drive_free(floppy->drives[i].drive);
    }
}

static void floppy_quiesce(struct device *device)
{
    struct floppy *floppy = (struct floppy *)device;
    struct drive *drive = selected(floppy)->drive;
    while (floppy->request_running && !drive->parked)
        drive_drain(drive);
}

// A request that waited for space on the host is made again from the saved fields.
static bool floppy_loaded(struct device *device, GError **error)
{
    struct floppy *floppy = (struct floppy *)device;
    floppy->unit %= DRIVES;
    floppy->length = MIN(floppy->length, sizeof floppy->fifo);
    floppy->data_length = MIN(floppy->data_length, CYLINDER_MAX);
    bool between = floppy->phase == PHASE_COMMAND && !floppy->position;
    if ((!between && floppy->phase != PHASE_EXECUTION && floppy->phase != PHASE_DATA &&
         floppy->position >= floppy->length) ||
        (floppy->phase == PHASE_DATA && floppy->data_position >= floppy->data_length))
        await_command(floppy);
    if (!floppy->request_running)
        return true;
    floppy->request_running = false;
    end_command(floppy, ST0_ABNORMAL, ST1_OVERRUN, 0); // drivers repeat the command
    return true;
}

static const struct property floppy_properties[] = {
    {"drive0", PROPERTY_POINTER, offsetof(struct floppy, properties[0]), .help = "drive A"},
    {"drive1", PROPERTY_POINTER, offsetof(struct floppy, properties[1]), .help = "drive B"},
    {"dma", PROPERTY_POINTER, offsetof(struct floppy, dma), .help = "the DMA controller"},
    PROPERTY_END,
};

static const struct field drive_fields[] = {
    FIELD_U8(struct floppy_drive, track),
    FIELD_BOOL(struct floppy_drive, changed),
    FIELD_END,
};

// clang-format off
static const struct field floppy_fields[] = {
    FIELD_STRUCT_ARRAY(struct floppy, drives, drive_fields), FIELD_U8(struct floppy, dor),
    FIELD_U8(struct floppy, tdr), FIELD_U8(struct floppy, rate),
    FIELD_U8(struct floppy, phase), FIELD_BYTES(struct floppy, fifo),
    FIELD_U8(struct floppy, position), FIELD_U8(struct floppy, length),
    FIELD_U8(struct floppy, seeking), FIELD_BYTES(struct floppy, seek_status),
    FIELD_U8(struct floppy, reset_count), FIELD_BOOL(struct floppy, interrupt),
    FIELD_BYTES(struct floppy, specify), FIELD_BYTES(struct floppy, configure),
    FIELD_U8(struct floppy, perpendicular), FIELD_BOOL(struct floppy, locked),
    FIELD_U8(struct floppy, action), FIELD_U8(struct floppy, unit),
    FIELD_U8(struct floppy, cylinder), FIELD_U8(struct floppy, head),
    FIELD_U8(struct floppy, sector), FIELD_U8(struct floppy, size_code),
    FIELD_U8(struct floppy, last_sector), FIELD_BOOL(struct floppy, multi_track),
    FIELD_U8(struct floppy, runs_done), FIELD_BOOL(struct floppy, request_running),
    FIELD_U32(struct floppy, data_position), FIELD_U32(struct floppy, data_length),
    FIELD_U32(struct floppy, moved), FIELD_BOOL(struct floppy, terminal_count),
    FIELD_BYTES(struct floppy, data), FIELD_TIMER(struct floppy, id_timer),
    FIELD_END,
};
// clang-format on

const struct device_class floppy_class = {
    .name = "floppy",
    .help = "82077AA floppy controller with two drives",
    .size = sizeof(struct floppy),
    .properties = floppy_properties,
    .realize = floppy_realize,
    .unrealize = floppy_unrealize,
    .reset = floppy_reset,
    .quiesce = floppy_quiesce,
    .fields = floppy_fields,
    .version = 1,
    .loaded = floppy_loaded,
    .internal = true,
};

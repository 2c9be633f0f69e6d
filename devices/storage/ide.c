// SPDX-License-Identifier: GPL-2.0-or-later
// The register file of an IDE channel: task file, data register, soft reset, and the steps that the disk carries out.
#include "devices/storage/ide.h"

#include <errno.h>
#include <string.h>

TRACE_POINT(ide_command);
TRACE_POINT(ide_step);

enum { CONTROL_NIEN = 0x02, CONTROL_SRST = 0x04, CONTROL_HOB = 0x80 };
enum { COMMAND_DEVICE_RESET = 0x08, COMMAND_DIAGNOSTIC = 0x90 };

// ---- Selection and interrupts -----------------------------------------------------------------------------------

struct ide_drive *ide_selected(struct ide_channel *channel)
{
    return &channel->drives[channel->device & IDE_DEVICE_UNIT ? 1 : 0];
}

static void lower(struct ide_channel *channel)
{
    channel->interrupt = false;
    irq_set(&channel->irq, false);
}

void ide_raise(struct ide_channel *channel)
{
    channel->interrupt = true;
    if (channel->control & CONTROL_NIEN)
        return;
    channel->bus_master.status |= 0x04;
    irq_set(&channel->irq, true);
}

void ide_finish(struct ide_drive *drive)
{
    drive->transfer = IDE_TRANSFER_NONE;
    drive->step = IDE_STEP_NONE;
    drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC;
    drive->error = 0;
    ide_raise(drive->channel);
}

void ide_fail(struct ide_drive *drive, uint8_t error)
{
    drive->transfer = IDE_TRANSFER_NONE;
    drive->step = IDE_STEP_NONE;
    drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC | IDE_STATUS_ERR;
    drive->error = error;
    ide_raise(drive->channel);
}

// What tells ATA from ATAPI after a reset (9.12).
void ide_signature(struct ide_drive *drive)
{
    drive->now = (struct ide_registers){.count = 1, .lba_low = 1};
    drive->before = (struct ide_registers){0};
    if (drive->packet) {
        drive->now.lba_mid = 0x14;
        drive->now.lba_high = 0xeb;
    }
}

// ---- The data register ------------------------------------------------------------------------------------------

static void open_block(struct ide_drive *drive, bool interrupt)
{
    drive->block_end = MIN(drive->position + drive->block, drive->end);
    drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC | IDE_STATUS_DRQ;
    if (interrupt)
        ide_raise(drive->channel);
}

void ide_transfer(struct ide_drive *drive, enum ide_transfer transfer, uint32_t length, uint32_t block, bool interrupt)
{
    drive->transfer = transfer;
    drive->position = 0;
    drive->end = MIN(length, IDE_BUFFER_SIZE);
    drive->block = block;
    open_block(drive, interrupt);
}

static void end_read_block(struct ide_drive *drive)
{
    if (drive->position < drive->end) {
        open_block(drive, true);
    } else if (drive->remaining) {
        ide_begin(drive, IDE_STEP_PIO_READ);
    } else {
        drive->transfer = IDE_TRANSFER_NONE;
        drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC;
    }
}

static void end_write_block(struct ide_drive *drive)
{
    if (drive->position < drive->end)
        open_block(drive, true);
    else
        ide_begin(drive, IDE_STEP_PIO_WRITE);
}

static void end_reply(struct ide_drive *drive)
{
    drive->transfer = IDE_TRANSFER_NONE;
    drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC;
}

static void end_packet(struct ide_drive *drive)
{
    uint8_t packet[IDE_PACKET_SIZE];
    memcpy(packet, drive->buffer, sizeof packet);
    drive->transfer = IDE_TRANSFER_NONE;
    ide_atapi_packet(drive, packet);
}

static void (*const end_of_block[IDE_TRANSFER_COUNT])(struct ide_drive *drive) = {
    [IDE_TRANSFER_READ] = end_read_block,
    [IDE_TRANSFER_WRITE] = end_write_block,
    [IDE_TRANSFER_REPLY] = end_reply,
    [IDE_TRANSFER_PACKET] = end_packet,
    [IDE_TRANSFER_PACKET_IN] = ide_atapi_continue,
};

static bool data_moves(const struct ide_drive *drive, bool out)
{
    bool wants_out = drive->transfer == IDE_TRANSFER_WRITE || drive->transfer == IDE_TRANSFER_PACKET;
    return drive->drive && (drive->status & IDE_STATUS_DRQ) && !(drive->status & IDE_STATUS_BSY) &&
           drive->transfer != IDE_TRANSFER_NONE && drive->position < drive->block_end && wants_out == out &&
           !(drive->dma_reply && drive->transfer == IDE_TRANSFER_PACKET_IN);
}

static void move_position(struct ide_drive *drive, unsigned size)
{
    drive->position += size;
    if (drive->position == drive->block_end)
        end_of_block[drive->transfer](drive);
}

static uint64_t data_read(struct ide_drive *drive, unsigned size)
{
    if (!data_moves(drive, false))
        return size == 4 ? 0xffffffff : 0xffff;
    unsigned part = MIN(size, drive->block_end - drive->position);
    uint8_t bytes[4] = {0};
    memcpy(bytes, drive->buffer + drive->position, part);
    move_position(drive, part);
    return load_le(bytes, 4);
}

static void data_write(struct ide_drive *drive, uint32_t value, unsigned size)
{
    if (!data_moves(drive, true))
        return;
    unsigned part = MIN(size, drive->block_end - drive->position);
    uint8_t bytes[4];
    store_le(bytes, 4, value);
    memcpy(drive->buffer + drive->position, bytes, part);
    move_position(drive, part);
}

// ---- Steps: what the disk does ----------------------------------------------------------------------------------

static void track_vectors(struct ide_drive *drive, void (*track)(struct ram *, uint64_t, uint64_t))
{
    struct ram *ram = drive->channel->pci->device.machine->ram;
    for (unsigned i = 0; i < drive->request.disk.iov_count; i++)
        track(ram, drive->iov_ram[i], drive->iov[i].iov_len);
}

static void use_buffer(struct ide_drive *drive, uint32_t bytes)
{
    drive->direct = false;
    drive->iov[0] = (struct iovec){drive->buffer, bytes};
    drive->request.disk.iov_count = 1;
}

// Vectors for a DMA step: straight into RAM where that is possible, else by the buffer. Returns the bytes, 0: none.
static uint32_t dma_vectors(struct ide_drive *drive, bool to_memory)
{
    struct ide_channel *channel = drive->channel;
    struct ide_bus_master walk = channel->bus_master;
    uint32_t wanted = MIN((uint64_t)drive->remaining * IDE_SECTOR, IDE_DMA_BYTES);
    uint32_t bytes = ide_dma_gather(drive, &walk, wanted);
    if (bytes % IDE_SECTOR) {
        walk = channel->bus_master;
        bytes = ide_dma_gather(drive, &walk, ALIGN_DOWN(bytes, IDE_SECTOR));
    }
    if (bytes) {
        drive->walk = walk;
        drive->direct = true;
        drive->into_memory = to_memory;
        if (to_memory)
            track_vectors(drive, ram_write_begin);
        return bytes;
    }
    walk = channel->bus_master;
    bytes = MIN(wanted, IDE_BUFFER_SIZE);
    if (!ide_dma_region(channel, &walk))
        return 0;
    if (!to_memory && ide_dma_copy(channel, drive->buffer, bytes, false) != bytes)
        return 0;
    use_buffer(drive, bytes);
    return bytes;
}

static bool prepare_pio(struct ide_drive *drive)
{
    drive->chunk = MIN(drive->remaining, IDE_BUFFER_SIZE / IDE_SECTOR);
    use_buffer(drive, drive->chunk * IDE_SECTOR);
    return true;
}

static bool prepare_dma_read(struct ide_drive *drive)
{
    drive->chunk = dma_vectors(drive, true) / IDE_SECTOR;
    return drive->chunk;
}

static bool prepare_dma_write(struct ide_drive *drive)
{
    drive->chunk = dma_vectors(drive, false) / IDE_SECTOR;
    return drive->chunk;
}

static bool prepare_packet_read(struct ide_drive *drive)
{
    drive->chunk = MIN(drive->remaining, IDE_BUFFER_SIZE / IDE_CD_SECTOR);
    use_buffer(drive, drive->chunk * IDE_CD_SECTOR);
    return true;
}

static bool prepare_flush(struct ide_drive *drive)
{
    drive->direct = false;
    return true;
}

// What DATA SET MANAGEMENT names at POSITION: 48 bits of address, 16 bits of count; neighbours go together, because a
// format can give back only whole blocks of its own. Returns where the list goes on.
static uint32_t take_ranges(struct ide_drive *drive)
{
    uint32_t at = drive->position;
    drive->lba = drive->chunk = 0;
    for (; at < drive->end; at += 8) {
        uint64_t lba = load_le(drive->buffer + at, 6), count = load_le(drive->buffer + at + 6, 2);
        if (count && drive->chunk && lba != drive->lba + drive->chunk)
            break;
        if (count && !drive->chunk)
            drive->lba = lba;
        drive->chunk += count;
    }
    return at;
}

// The list comes by DMA first.
static bool prepare_trim(struct ide_drive *drive)
{
    uint32_t bytes = drive->remaining * IDE_SECTOR;
    drive->direct = false;
    if (!drive->end && ide_dma_copy(drive->channel, drive->buffer, bytes, false) != bytes)
        return false;
    drive->end = bytes;
    take_ranges(drive);
    return true;
}

static void moved(struct ide_drive *drive)
{
    drive->lba += drive->chunk;
    drive->remaining -= drive->chunk;
}

static void failed(struct ide_drive *drive, int result)
{
    ide_ata_store_lba(drive);
    if (drive->step == IDE_STEP_DMA_READ || drive->step == IDE_STEP_DMA_WRITE)
        ide_dma_fault(drive->channel);
    bool reading = drive->step == IDE_STEP_PIO_READ || drive->step == IDE_STEP_DMA_READ;
    ide_fail(drive, result == -EINVAL ? IDE_ERROR_IDNF : reading ? IDE_ERROR_UNC : IDE_ERROR_ABRT);
}

static void pio_read_done(struct ide_drive *drive, int result)
{
    if (result < 0) {
        failed(drive, result);
        return;
    }
    moved(drive);
    drive->step = IDE_STEP_NONE;
    ide_transfer(drive, IDE_TRANSFER_READ, drive->chunk * IDE_SECTOR, drive->block, true);
}

static void pio_write_done(struct ide_drive *drive, int result)
{
    if (result < 0) {
        failed(drive, result);
        return;
    }
    moved(drive);
    drive->step = IDE_STEP_NONE;
    if (drive->remaining)
        ide_transfer(drive, IDE_TRANSFER_WRITE, MIN(drive->remaining * IDE_SECTOR, IDE_BUFFER_SIZE), drive->block,
                     true);
    else
        ide_finish(drive);
}

static void dma_done(struct ide_drive *drive, int result)
{
    struct ide_channel *channel = drive->channel;
    uint32_t bytes = drive->chunk * IDE_SECTOR;
    if (result < 0) {
        failed(drive, result);
        return;
    }
    if (drive->direct) {
        struct ide_bus_master *master = &channel->bus_master;
        master->entry = drive->walk.entry;
        master->address = drive->walk.address;
        master->left = drive->walk.left;
        master->last = drive->walk.last;
    } else if (drive->step == IDE_STEP_DMA_READ) {
        result = ide_dma_copy(channel, drive->buffer, bytes, true) == bytes ? 0 : -EIO;
    }
    if (result < 0) {
        failed(drive, result);
        return;
    }
    moved(drive);
    if (drive->remaining) {
        if (ide_dma_active(channel))
            ide_begin(drive, drive->step);
        return;
    }
    ide_dma_end(channel);
    ide_finish(drive);
}

static void flush_done(struct ide_drive *drive, int result)
{
    if (result < 0)
        ide_fail(drive, IDE_ERROR_ABRT);
    else
        ide_finish(drive);
}

static void trim_done(struct ide_drive *drive, int result)
{
    drive->position = take_ranges(drive);
    if (result == 0 && drive->position < drive->end) {
        ide_begin(drive, IDE_STEP_TRIM);
        return;
    }
    drive->position = drive->end = 0;
    ide_dma_end(drive->channel);
    if (result < 0)
        ide_fail(drive, result == -EINVAL ? IDE_ERROR_IDNF | IDE_ERROR_ABRT : IDE_ERROR_ABRT);
    else
        ide_finish(drive);
}

static const struct step {
    const char *name;
    enum disk_op op;
    unsigned sector;
    bool (*prepare)(struct ide_drive *drive); // sets CHUNK and the vectors; false: the table of regions is too short
    void (*done)(struct ide_drive *drive, int result);
} steps[IDE_STEP_COUNT] = {
    [IDE_STEP_PIO_READ] = {"read", DISK_READ, IDE_SECTOR, prepare_pio, pio_read_done},
    [IDE_STEP_PIO_WRITE] = {"write", DISK_WRITE, IDE_SECTOR, prepare_pio, pio_write_done},
    [IDE_STEP_DMA_READ] = {"DMA read", DISK_READ, IDE_SECTOR, prepare_dma_read, dma_done},
    [IDE_STEP_DMA_WRITE] = {"DMA write", DISK_WRITE, IDE_SECTOR, prepare_dma_write, dma_done},
    [IDE_STEP_FLUSH] = {"flush", DISK_FLUSH, 0, prepare_flush, flush_done},
    [IDE_STEP_PACKET_READ] = {"packet read", DISK_READ, IDE_CD_SECTOR, prepare_packet_read, ide_atapi_read_done},
    [IDE_STEP_TRIM] = {"trim", DISK_DISCARD, IDE_SECTOR, prepare_trim, trim_done},
};

static void step_done(struct drive_request *request, int result)
{
    struct ide_drive *drive = request->opaque;
    drive->step_running = false;
    if (drive->direct && drive->into_memory)
        track_vectors(drive, ram_write_end);
    TRACE(ide_step, "%s done: %d", steps[drive->step].name, result);
    if (result != -ECANCELED && !drive->abandoned)
        steps[drive->step].done(drive, result);
}

static void fill_request(struct ide_drive *drive)
{
    const struct step *step = &steps[drive->step];
    struct disk_request *disk = &drive->request.disk;
    unsigned count = disk->iov_count;
    memset(disk, 0, sizeof *disk);
    disk->op = step->op;
    disk->iov = drive->iov;
    disk->iov_count = step->op == DISK_FLUSH || step->op == DISK_DISCARD ? 0 : count;
    disk->offset = step->op == DISK_FLUSH ? 0 : drive->lba * step->sector;
    disk->length = step->op == DISK_FLUSH ? 0 : (uint64_t)drive->chunk * step->sector;
    disk->flags = step->op == DISK_WRITE && (drive->fua || !drive->write_cache) ? DISK_FUA : 0;
    drive->request.done = step_done;
    drive->request.opaque = drive;
    drive->request.locked = true;
    // Drivers of bus-master DMA are ready for the interrupt when they start it; those of PIO may not be.
    drive->request.prompt = drive->step == IDE_STEP_DMA_READ || drive->step == IDE_STEP_DMA_WRITE;
}

bool ide_step_needs_dma(const struct ide_drive *drive)
{
    return drive->step == IDE_STEP_DMA_READ || drive->step == IDE_STEP_DMA_WRITE ||
           (drive->step == IDE_STEP_TRIM && !drive->end);
}

void ide_begin(struct ide_drive *drive, enum ide_step kind)
{
    drive->step = kind;
    bool dma = ide_step_needs_dma(drive);
    drive->status = dma ? IDE_STATUS_DRDY | IDE_STATUS_DSC | IDE_STATUS_DRQ : IDE_STATUS_BSY;
    if (dma && !ide_dma_active(drive->channel))
        return; // until the bus master is started
    if (!steps[kind].prepare(drive)) {
        log_guest("ide", "a DMA table is shorter than its transfer");
        ide_dma_fault(drive->channel);
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    fill_request(drive);
    drive->step_running = true;
    TRACE(ide_step, "%s lba %" G_GUINT64_FORMAT " sectors %u", steps[kind].name, drive->lba, drive->chunk);
    drive_submit(drive->drive, &drive->request);
}

void ide_wait_for_disk(struct ide_drive *drive)
{
    if (!drive->drive || !drive->step_running)
        return;
    drive_cancel_parked(drive->drive);
    while (drive->step_running)
        drive_drain(drive->drive);
}

// ---- Commands and registers -------------------------------------------------------------------------------------

static void abandon(struct ide_drive *drive)
{
    drive->abandoned = true;
    ide_wait_for_disk(drive);
    drive->abandoned = false;
}

static void reset_drive(struct ide_drive *drive)
{
    abandon(drive);
    drive->transfer = IDE_TRANSFER_NONE;
    drive->step = IDE_STEP_NONE;
    drive->dma_reply = false;
    drive->status = drive->packet ? 0 : IDE_STATUS_DRDY | IDE_STATUS_DSC;
    drive->error = 1; // diagnostic code: no error
    drive->position = drive->block_end = drive->end = 0;
    ide_signature(drive);
}

static void diagnose(struct ide_channel *channel)
{
    channel->device = 0;
    for (unsigned unit = 0; unit < 2; unit++)
        reset_drive(&channel->drives[unit]);
    ide_raise(channel);
}

static void command_write(struct ide_channel *channel, uint8_t command)
{
    struct ide_drive *drive = ide_selected(channel);
    TRACE(ide_command, "irq %u unit %u command 0x%02x count %u lba %02x %02x %02x", channel->irq.number, drive->unit,
          command, drive->now.count, drive->now.lba_high, drive->now.lba_mid, drive->now.lba_low);
    if (command == COMMAND_DIAGNOSTIC) {
        diagnose(channel);
        return;
    }
    if (!drive->drive)
        return;
    if (command == COMMAND_DEVICE_RESET && drive->packet) {
        reset_drive(drive);
        return;
    }
    if (drive->status & (IDE_STATUS_BSY | IDE_STATUS_DRQ))
        return; // undefined by the standard: a command in hand goes on
    lower(channel);
    drive->command = command;
    drive->error = 0;
    ide_ata_command(drive, command);
}

static void control_write(struct ide_channel *channel, uint8_t value)
{
    bool was = channel->control & CONTROL_SRST, is = value & CONTROL_SRST;
    channel->control = value;
    if (!was && is) {
        for (unsigned unit = 0; unit < 2; unit++) {
            reset_drive(&channel->drives[unit]);
            channel->drives[unit].status = IDE_STATUS_BSY;
        }
    } else if (was && !is) {
        channel->device = 0;
        for (unsigned unit = 0; unit < 2; unit++)
            reset_drive(&channel->drives[unit]);
    }
    irq_set(&channel->irq, channel->interrupt && !(value & CONTROL_NIEN));
}

// Both drives of a channel hear the task file; each write keeps the byte before it for 48-bit commands.
static void register_write(struct ide_channel *channel, size_t member, uint8_t value)
{
    channel->control &= ~CONTROL_HOB;
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        if (drive->status & IDE_STATUS_BSY)
            continue;
        uint8_t *now = (uint8_t *)&drive->now + member, *before = (uint8_t *)&drive->before + member;
        *before = *now;
        *now = value;
    }
}

static uint8_t register_read(struct ide_channel *channel, size_t member)
{
    struct ide_drive *drive = ide_selected(channel);
    if (!drive->drive)
        return 0;
    return *((uint8_t *)(channel->control & CONTROL_HOB ? &drive->before : &drive->now) + member);
}

static const size_t members[] = {
    [1] = offsetof(struct ide_registers, features), [2] = offsetof(struct ide_registers, count),
    [3] = offsetof(struct ide_registers, lba_low),  [4] = offsetof(struct ide_registers, lba_mid),
    [5] = offsetof(struct ide_registers, lba_high),
};

static uint8_t status_read(struct ide_channel *channel)
{
    struct ide_drive *drive = ide_selected(channel);
    return drive->drive ? drive->status : 0;
}

static uint64_t command_region_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ide_channel *channel = opaque;
    struct ide_drive *drive = ide_selected(channel);
    switch (offset) {
    case 0:
        return data_read(drive, size);
    case 1:
        return drive->drive ? drive->error : 0;
    case 6:
        return channel->device | 0xa0;
    case 7:
        lower(channel);
        return status_read(channel);
    default:
        return register_read(channel, members[offset]);
    }
}

static void command_region_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct ide_channel *channel = opaque;
    switch (offset) {
    case 0:
        data_write(ide_selected(channel), value, size);
        break;
    case 6:
        channel->device = value;
        channel->control &= ~CONTROL_HOB;
        break;
    case 7:
        command_write(channel, value);
        break;
    default:
        register_write(channel, members[offset], value);
    }
}

static uint64_t control_region_read(void *opaque, uint64_t offset, unsigned size)
{
    return status_read(opaque); // alternate status: no interrupt is acknowledged
}

static void control_region_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    control_write(opaque, value);
}

// The data register takes 16 and 32 bits; the others are bytes, and a wider access to them means several of them.
static uint64_t command_port_read(void *opaque, uint64_t offset, unsigned size)
{
    if (offset == 0)
        return command_region_read(opaque, 0, MAX(size, 2));
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (command_region_read(opaque, offset + i, 1) & 0xff) << 8 * i;
    return value;
}

static void command_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == 0) {
        command_region_write(opaque, 0, value, MAX(size, 2));
        return;
    }
    for (unsigned i = 0; i < size; i++)
        command_region_write(opaque, offset + i, value >> 8 * i & 0xff, 1);
}

static const struct io_ops command_ops = {command_port_read, command_port_write, 1, 4};
static const struct io_ops control_ops = {control_region_read, control_region_write, 1, 1};

// ---- Life -------------------------------------------------------------------------------------------------------

void ide_channel_init(struct ide_channel *channel, struct pci_device *pci, const char *const names[2])
{
    channel->pci = pci;
    channel->bus_master.status = 0;
    region_init_io(&channel->command_region, names[0], &command_ops, channel, 8);
    region_init_io(&channel->control_region, names[1], &control_ops, channel, 1);
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        drive->channel = channel;
        drive->unit = unit;
        drive->buffer = g_malloc0(IDE_BUFFER_SIZE);
    }
}

static void set_defaults(struct ide_drive *drive)
{
    drive->heads = 16;
    drive->sectors = 63;
    drive->multiple = IDE_MULTIPLE_MAX;
    drive->write_cache = true;
    drive->standby = false;
    drive->transfer_mode = 0;
    drive->sense_key = drive->asc = drive->ascq = 0;
    drive->attention = false;
}

void ide_set_drive(struct ide_channel *channel, unsigned unit, struct drive *drive)
{
    struct ide_drive *slot = &channel->drives[unit];
    slot->drive = drive;
    slot->packet = drive && drive->kind == DRIVE_CDROM;
    if (slot->packet)
        drive_set_client(drive, &ide_atapi_client, slot);
    set_defaults(slot);
}

void ide_channel_exit(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        abandon(drive);
        g_clear_pointer(&drive->drive, drive_free);
        g_clear_pointer(&drive->buffer, g_free);
    }
}

void ide_channel_reset(struct ide_channel *channel)
{
    channel->device = channel->control = 0;
    channel->bus_master = (struct ide_bus_master){0};
    lower(channel);
    for (unsigned unit = 0; unit < 2; unit++) {
        reset_drive(&channel->drives[unit]);
        set_defaults(&channel->drives[unit]);
        if (channel->drives[unit].drive)
            channel->drives[unit].drive->tray_locked = false;
    }
}

// A step that waits for space on the host stays: it is begun again from its fields when the machine runs.
void ide_channel_quiesce(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        while (drive->step_running && !drive->drive->parked)
            drive_drain(drive->drive);
        drive->saved_bytes = MAX(drive->end, drive->step_running ? IDE_BUFFER_SIZE : 0);
    }
}

static void begin_later(struct ide_drive *drive)
{
    if (drive->step >= IDE_STEP_COUNT || !drive->drive || !steps[drive->step].prepare ||
        !steps[drive->step].prepare(drive)) {
        drive->step_running = false;
        return;
    }
    fill_request(drive);
    drive_park(drive->drive, &drive->request);
}

void ide_channel_loaded(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        drive->buffer = g_realloc(drive->buffer, IDE_BUFFER_SIZE);
        drive->end = MIN(drive->end, IDE_BUFFER_SIZE);
        drive->block_end = MIN(drive->block_end, drive->end);
        drive->position = MIN(drive->position, drive->block_end);
        if (drive->transfer >= IDE_TRANSFER_COUNT)
            drive->transfer = IDE_TRANSFER_NONE;
        if (drive->step_running)
            begin_later(drive);
    }
}

static const struct field register_fields[] = {
    FIELD_U8(struct ide_registers, features), FIELD_U8(struct ide_registers, count),
    FIELD_U8(struct ide_registers, lba_low),  FIELD_U8(struct ide_registers, lba_mid),
    FIELD_U8(struct ide_registers, lba_high), FIELD_END,
};

static const struct field drive_fields[] = {
    FIELD_STRUCT(struct ide_drive, now, register_fields),
    FIELD_STRUCT(struct ide_drive, before, register_fields),
    FIELD_U8(struct ide_drive, status),
    FIELD_U8(struct ide_drive, error),
    FIELD_U8(struct ide_drive, multiple),
    FIELD_U8(struct ide_drive, heads),
    FIELD_U8(struct ide_drive, sectors),
    FIELD_U8(struct ide_drive, transfer_mode),
    FIELD_BOOL(struct ide_drive, write_cache),
    FIELD_BOOL(struct ide_drive, standby),
    FIELD_U8(struct ide_drive, command),
    FIELD_BOOL(struct ide_drive, wide),
    FIELD_BOOL(struct ide_drive, dma_reply),
    FIELD_BOOL(struct ide_drive, fua),
    FIELD_U64(struct ide_drive, lba),
    FIELD_U32(struct ide_drive, remaining),
    FIELD_U8(struct ide_drive, step),
    FIELD_BOOL(struct ide_drive, step_running),
    FIELD_U32(struct ide_drive, chunk),
    FIELD_U32(struct ide_drive, block),
    FIELD_U16(struct ide_drive, byte_limit),
    FIELD_U8(struct ide_drive, transfer),
    FIELD_U32(struct ide_drive, position),
    FIELD_U32(struct ide_drive, block_end),
    FIELD_U32(struct ide_drive, end),
    FIELD_BUFFER(struct ide_drive, buffer, saved_bytes),
    FIELD_U8(struct ide_drive, sense_key),
    FIELD_U8(struct ide_drive, asc),
    FIELD_U8(struct ide_drive, ascq),
    FIELD_BOOL(struct ide_drive, attention),
    FIELD_U8(struct ide_drive, media_event),
    FIELD_END,
};

static const struct field bus_master_fields[] = {
    FIELD_U8(struct ide_bus_master, command),  FIELD_U8(struct ide_bus_master, status),
    FIELD_U32(struct ide_bus_master, table),   FIELD_U32(struct ide_bus_master, entry),
    FIELD_U32(struct ide_bus_master, address), FIELD_U32(struct ide_bus_master, left),
    FIELD_BOOL(struct ide_bus_master, last),   FIELD_END,
};

const struct field ide_channel_fields[] = {
    FIELD_STRUCT_ARRAY(struct ide_channel, drives, drive_fields),
    FIELD_U8(struct ide_channel, device),
    FIELD_U8(struct ide_channel, control),
    FIELD_BOOL(struct ide_channel, interrupt),
    FIELD_STRUCT(struct ide_channel, bus_master, bus_master_fields),
    FIELD_END,
};

// SPDX-License-Identifier: GPL-2.0-or-later
// ATA commands (ATA/ATAPI-6, chapter 8) by a table.
#include "devices/storage/ide.h"

#include <string.h>

enum command_flag {
    FLAG_WIDE = 1 << 0,     // 48-bit
    FLAG_MULTIPLE = 1 << 1, // blocks of the MULTIPLE setting
    FLAG_FUA = 1 << 2,
    FLAG_PACKET = 1 << 3, // for packet drives too
    FLAG_ONLY_PACKET = 1 << 4,
};

enum { SMART_LBA_MID = 0x4f, SMART_LBA_HIGH = 0xc2 };

// ---- Addresses --------------------------------------------------------------------------------------------------

static uint64_t registers_lba(struct ide_drive *drive)
{
    const struct ide_registers *now = &drive->now, *before = &drive->before;
    uint8_t device = drive->channel->device;
    uint64_t low = now->lba_low | now->lba_mid << 8 | (uint32_t)now->lba_high << 16;
    if (drive->wide)
        return low |
               ((uint64_t)before->lba_low << 24 | (uint64_t)before->lba_mid << 32 | (uint64_t)before->lba_high << 40);
    if (device & IDE_DEVICE_LBA)
        return low | (uint32_t)(device & 15) << 24;
    uint32_t cylinder = now->lba_mid | now->lba_high << 8, head = device & 15;
    if (!now->lba_low || head >= drive->heads || now->lba_low > drive->sectors)
        return UINT64_MAX;
    return ((uint64_t)cylinder * drive->heads + head) * drive->sectors + now->lba_low - 1;
}

void ide_ata_store_lba(struct ide_drive *drive)
{
    struct ide_registers *now = &drive->now, *before = &drive->before;
    uint64_t lba = drive->lba;
    if (!drive->wide && !(drive->channel->device & IDE_DEVICE_LBA)) {
        uint64_t track = lba / drive->sectors;
        now->lba_low = lba % drive->sectors + 1;
        now->lba_mid = track / drive->heads;
        now->lba_high = track / drive->heads >> 8;
        drive->channel->device = (drive->channel->device & 0xf0) | track % drive->heads;
        return;
    }
    now->lba_low = lba;
    now->lba_mid = lba >> 8;
    now->lba_high = lba >> 16;
    if (drive->wide) {
        before->lba_low = lba >> 24;
        before->lba_mid = lba >> 32;
        before->lba_high = lba >> 40;
    } else {
        drive->channel->device = (drive->channel->device & 0xf0) | (lba >> 24 & 15);
    }
}

static uint32_t registers_count(struct ide_drive *drive)
{
    uint32_t count = drive->now.count;
    if (!drive->wide)
        return count ? count : 256;
    count |= drive->before.count << 8;
    return count ? count : 65536;
}

// Takes address and count; fails the command where they do not lie on the disk.
static bool take_range(struct ide_drive *drive)
{
    uint64_t total = drive_size(drive->drive) / IDE_SECTOR;
    drive->lba = registers_lba(drive);
    drive->remaining = registers_count(drive);
    drive->standby = false;
    if (drive->lba < total && drive->remaining <= total - drive->lba)
        return true;
    ide_fail(drive, IDE_ERROR_IDNF);
    return false;
}

// ---- Commands ---------------------------------------------------------------------------------------------------

static void set_block(struct ide_drive *drive, unsigned flags)
{
    drive->block = (flags & FLAG_MULTIPLE ? drive->multiple : 1) * IDE_SECTOR;
    drive->fua = flags & FLAG_FUA;
}

static void read_sectors(struct ide_drive *drive, unsigned flags)
{
    set_block(drive, flags);
    if (!drive->block)
        ide_fail(drive, IDE_ERROR_ABRT);
    else if (take_range(drive))
        ide_begin(drive, IDE_STEP_PIO_READ);
}

static void write_sectors(struct ide_drive *drive, unsigned flags)
{
    set_block(drive, flags);
    if (!drive->block)
        ide_fail(drive, IDE_ERROR_ABRT);
    else if (take_range(drive))
        ide_transfer(drive, IDE_TRANSFER_WRITE, MIN(drive->remaining * IDE_SECTOR, IDE_BUFFER_SIZE), drive->block,
                     false);
}

static void read_dma(struct ide_drive *drive, unsigned flags)
{
    if (take_range(drive))
        ide_begin(drive, IDE_STEP_DMA_READ);
}

static void write_dma(struct ide_drive *drive, unsigned flags)
{
    set_block(drive, flags);
    if (take_range(drive))
        ide_begin(drive, IDE_STEP_DMA_WRITE);
}

// DATA SET MANAGEMENT with TRIM (ATA8-ACS-2, 7.10): a list of ranges that the guest no longer needs.
static void trim(struct ide_drive *drive, unsigned flags)
{
    drive->remaining = registers_count(drive);
    if (drive->now.features != 1 || drive->remaining > IDE_TRIM_BLOCKS) {
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    drive->transfer = IDE_TRANSFER_NONE;
    drive->position = drive->end = 0;
    ide_begin(drive, IDE_STEP_TRIM);
}

static void verify(struct ide_drive *drive, unsigned flags)
{
    if (take_range(drive))
        ide_finish(drive);
}

static void flush(struct ide_drive *drive, unsigned flags)
{
    ide_begin(drive, IDE_STEP_FLUSH);
}

static void nothing(struct ide_drive *drive, unsigned flags)
{
    ide_finish(drive);
}

static void refuse(struct ide_drive *drive, unsigned flags)
{
    ide_fail(drive, IDE_ERROR_ABRT);
}

static void identify(struct ide_drive *drive, unsigned flags)
{
    if (drive->packet) {
        // A packet drive answers with its signature, so that the host knows what it has (8.15.5.2).
        ide_signature(drive);
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    ide_identify_disk(drive, drive->buffer);
    ide_transfer(drive, IDE_TRANSFER_REPLY, IDE_SECTOR, IDE_SECTOR, true);
}

static void identify_packet(struct ide_drive *drive, unsigned flags)
{
    ide_identify_cd(drive, drive->buffer);
    ide_transfer(drive, IDE_TRANSFER_REPLY, IDE_SECTOR, IDE_SECTOR, true);
}

static void packet(struct ide_drive *drive, unsigned flags)
{
    if (drive->now.features & 2) { // overlapped
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    drive->dma_reply = drive->now.features & 1;
    drive->byte_limit = drive->now.lba_mid | drive->now.lba_high << 8;
    drive->now.count = 1; // command, to the device
    ide_transfer(drive, IDE_TRANSFER_PACKET, IDE_PACKET_SIZE, IDE_PACKET_SIZE, false);
}

static void set_multiple(struct ide_drive *drive, unsigned flags)
{
    uint8_t count = drive->now.count;
    if (count > IDE_MULTIPLE_MAX || (count & (count - 1))) {
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    drive->multiple = count;
    ide_finish(drive);
}

static void set_geometry(struct ide_drive *drive, unsigned flags)
{
    if (!drive->now.count) {
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    drive->heads = (drive->channel->device & 15) + 1;
    drive->sectors = drive->now.count;
    ide_finish(drive);
}

static void check_power(struct ide_drive *drive, unsigned flags)
{
    drive->now.count = drive->standby ? 0x00 : 0xff;
    ide_finish(drive);
}

static void stand_by(struct ide_drive *drive, unsigned flags)
{
    drive->standby = true;
    ide_finish(drive);
}

static void idle(struct ide_drive *drive, unsigned flags)
{
    drive->standby = false;
    ide_finish(drive);
}

static void native_max(struct ide_drive *drive, unsigned flags)
{
    uint64_t last = drive_size(drive->drive) / IDE_SECTOR - 1;
    drive->lba = drive->wide ? last : MIN(last, 0xfffffffu);
    ide_ata_store_lba(drive);
    ide_finish(drive);
}

static void set_features(struct ide_drive *drive, unsigned flags)
{
    switch (drive->now.features) {
    case 0x02: // write cache on
        drive->write_cache = true;
        break;
    case 0x82:
        drive->write_cache = false;
        ide_begin(drive, IDE_STEP_FLUSH);
        return;
    case 0x03: { // transfer mode: PIO, multiword DMA 0-2, ultra DMA 0-5
        uint8_t mode = drive->now.count, kind = mode >> 3, number = mode & 7;
        if (kind > 1 && !(kind == 4 && number <= 2) && !(kind == 8 && number <= 5)) {
            ide_fail(drive, IDE_ERROR_ABRT);
            return;
        }
        drive->transfer_mode = mode;
        break;
    }
    case 0x05: // advanced power management, and what else changes nothing here
    case 0x85:
    case 0x42:
    case 0xc2:
    case 0x55:
    case 0xaa:
    case 0x66:
    case 0xcc:
        break;
    default:
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    ide_finish(drive);
}

static void checksum(uint8_t *data)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < IDE_SECTOR - 1; i++)
        sum += data[i];
    data[IDE_SECTOR - 1] = -sum;
}

// The attributes that tools expect of any disk: all well, and no hours that we do not know.
static void smart_data(struct ide_drive *drive, bool thresholds)
{
    static const struct {
        uint8_t id, flags, value, threshold;
    } attributes[] = {{1, 3, 100, 6},  {3, 3, 100, 16}, {4, 2, 100, 20},
                      {5, 3, 100, 36}, {9, 3, 100, 0},  {12, 3, 100, 0}};
    uint8_t *data = drive->buffer;
    memset(data, 0, IDE_SECTOR);
    data[0] = 1;
    for (unsigned i = 0; i < G_N_ELEMENTS(attributes); i++) {
        uint8_t *row = data + 2 + 12 * i;
        row[0] = attributes[i].id;
        row[1] = thresholds ? attributes[i].threshold : attributes[i].flags;
        row[3] = row[4] = thresholds ? 0 : attributes[i].value;
    }
    if (!thresholds) {
        store_le(data + 364, 2, 60); // seconds of off-line collection
        data[367] = 0x10;            // self-tests
        data[368] = 3;
        data[370] = 1;
        data[372] = 2; // minutes of a short self-test
        data[373] = 54;
    }
    checksum(data);
    ide_transfer(drive, IDE_TRANSFER_REPLY, IDE_SECTOR, IDE_SECTOR, true);
}

static void smart(struct ide_drive *drive, unsigned flags)
{
    if (drive->now.lba_mid != SMART_LBA_MID || drive->now.lba_high != SMART_LBA_HIGH) {
        ide_fail(drive, IDE_ERROR_ABRT);
        return;
    }
    switch (drive->now.features) {
    case 0xd0:
    case 0xd1:
        smart_data(drive, drive->now.features == 0xd1);
        return;
    case 0xda: // return status: the same cylinder says "no threshold exceeded"
    case 0xd2: // autosave
    case 0xd4: // self-test: done at once
    case 0xd8: // enable
    case 0xd9: // disable
        ide_finish(drive);
        return;
    default:
        ide_fail(drive, IDE_ERROR_ABRT);
    }
}

static const struct command {
    void (*run)(struct ide_drive *drive, unsigned flags);
    unsigned flags;
} commands[256] = {
    [0x06] = {trim, FLAG_WIDE},
    [0x20] = {read_sectors, 0},
    [0x21] = {read_sectors, 0},
    [0x24] = {read_sectors, FLAG_WIDE},
    [0x25] = {read_dma, FLAG_WIDE},
    [0x27] = {native_max, FLAG_WIDE},
    [0x29] = {read_sectors, FLAG_WIDE | FLAG_MULTIPLE},
    [0x30] = {write_sectors, 0},
    [0x31] = {write_sectors, 0},
    [0x34] = {write_sectors, FLAG_WIDE},
    [0x35] = {write_dma, FLAG_WIDE},
    [0x39] = {write_sectors, FLAG_WIDE | FLAG_MULTIPLE},
    [0x3d] = {write_dma, FLAG_WIDE | FLAG_FUA},
    [0x40] = {verify, 0},
    [0x41] = {verify, 0},
    [0x42] = {verify, FLAG_WIDE},
    [0x70] = {nothing, 0}, // SEEK
    [0x91] = {set_geometry, 0},
    [0x94] = {stand_by, FLAG_PACKET},
    [0x95] = {idle, FLAG_PACKET},
    [0x96] = {stand_by, FLAG_PACKET},
    [0x97] = {idle, FLAG_PACKET},
    [0x98] = {check_power, FLAG_PACKET},
    [0x99] = {stand_by, FLAG_PACKET},
    [0xa0] = {packet, FLAG_PACKET | FLAG_ONLY_PACKET},
    [0xa1] = {identify_packet, FLAG_PACKET | FLAG_ONLY_PACKET},
    [0xb0] = {smart, 0},
    [0xc4] = {read_sectors, FLAG_MULTIPLE},
    [0xc5] = {write_sectors, FLAG_MULTIPLE},
    [0xc6] = {set_multiple, 0},
    [0xc8] = {read_dma, 0},
    [0xc9] = {read_dma, 0},
    [0xca] = {write_dma, 0},
    [0xcb] = {write_dma, 0},
    [0xce] = {write_sectors, FLAG_WIDE | FLAG_MULTIPLE | FLAG_FUA},
    [0xe0] = {stand_by, FLAG_PACKET},
    [0xe1] = {idle, FLAG_PACKET},
    [0xe2] = {stand_by, FLAG_PACKET},
    [0xe3] = {idle, FLAG_PACKET},
    [0xe5] = {check_power, FLAG_PACKET},
    [0xe6] = {stand_by, FLAG_PACKET},
    [0xe7] = {flush, 0},
    [0xea] = {flush, FLAG_WIDE},
    [0xec] = {identify, FLAG_PACKET},
    [0xef] = {set_features, FLAG_PACKET},
    [0xf8] = {native_max, 0},
};

void ide_ata_command(struct ide_drive *drive, uint8_t number)
{
    const struct command *command = &commands[number];
    bool recalibrate = (number & 0xf0) == 0x10 && !drive->packet;
    bool allowed =
        command->run && (drive->packet ? command->flags & FLAG_PACKET : !(command->flags & FLAG_ONLY_PACKET));
    drive->wide = command->flags & FLAG_WIDE;
    drive->fua = false;
    if (allowed)
        command->run(drive, command->flags);
    else if (recalibrate)
        nothing(drive, 0);
    else
        refuse(drive, 0);
}

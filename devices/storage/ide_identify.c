// SPDX-License-Identifier: GPL-2.0-or-later
// IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6, 8.15 and 8.16).
#include "devices/storage/ide.h"

#include <stdio.h>
#include <string.h>

static void put(uint8_t *data, unsigned word, uint16_t value)
{
    store_le(data + 2 * word, 2, value);
}

// Strings lie with the bytes of each word exchanged, padded by spaces.
static void put_string(uint8_t *data, unsigned word, unsigned words, const char *text)
{
    size_t length = strlen(text);
    for (unsigned i = 0; i < 2 * words; i++)
        data[2 * word + (i ^ 1)] = i < length ? text[i] : ' ';
}

// Transfer modes: the lower half says what is supported, the upper what is selected.
static uint16_t mode_word(const struct ide_drive *drive, uint8_t kind, uint8_t supported)
{
    uint8_t mode = drive->transfer_mode;
    return supported | (mode >> 3 == kind ? BIT(8 + (mode & 7)) : 0);
}

static void put_names(struct ide_drive *drive, uint8_t *data, const char *model)
{
    char serial[21];
    snprintf(serial, sizeof serial, "CL%.18s", drive->drive->id);
    put_string(data, 10, 10, serial);
    put_string(data, 23, 4, "1.0");
    put_string(data, 27, 20, model);
}

static void put_modes(struct ide_drive *drive, uint8_t *data)
{
    put(data, 49, 0x0300); // DMA and LBA
    put(data, 51, 0x0200);
    put(data, 52, 0x0200);
    put(data, 53, 7); // words 54-58, 64-70 and 88 are valid
    put(data, 63, mode_word(drive, 4, 0x07));
    put(data, 64, 0x03); // PIO 3 and 4
    for (unsigned word = 65; word <= 68; word++)
        put(data, word, 120); // cycle times in nanoseconds
    put(data, 80, 0x7e);      // ATA-1 to ATA/ATAPI-6
    put(data, 88, mode_word(drive, 8, 0x3f));
    put(data, 93, 0x4000 | 0x2000 | (drive->unit ? 0x0300 : 0x0003)); // 80-conductor cable
}

void ide_identify_disk(struct ide_drive *drive, uint8_t *data)
{
    uint64_t total = drive_size(drive->drive) / IDE_SECTOR;
    uint32_t cylinders = MIN(total / (16 * 63), 16383);
    uint32_t present = MIN(total / (drive->heads * drive->sectors), 65535);
    uint32_t present_total = present * drive->heads * drive->sectors, lba28 = MIN(total, 0xfffffffu);

    memset(data, 0, IDE_SECTOR);
    put(data, 0, 0x0040); // fixed disk
    put(data, 1, cylinders);
    put(data, 3, 16);
    put(data, 6, 63);
    put_names(drive, data, "CLOCHE HARDDISK");
    put(data, 20, 3);
    put(data, 21, 512);
    put(data, 22, 4);
    put(data, 47, 0x8000 | IDE_MULTIPLE_MAX);
    put(data, 48, 1);
    put_modes(drive, data);
    put(data, 54, present);
    put(data, 55, drive->heads);
    put(data, 56, drive->sectors);
    put(data, 57, present_total);
    put(data, 58, present_total >> 16);
    put(data, 59, drive->multiple ? 0x100 | drive->multiple : 0);
    put(data, 60, lba28);
    put(data, 61, lba28 >> 16);
    // Supported and enabled: SMART, power management, write cache; 48-bit addresses, both flushes; FUA writes.
    put(data, 82, 0x4029);
    put(data, 83, 0x7400);
    put(data, 84, 0x4040);
    put(data, 85, 0x4009 | (drive->write_cache ? 0x20 : 0));
    put(data, 86, 0x3400);
    put(data, 87, 0x4040);
    for (unsigned i = 0; i < 4; i++)
        put(data, 100 + i, total >> 16 * i);
    put(data, 106, 0x6003); // eight logical sectors in each physical one
    put(data, 80, 0x01fe);  // ATA-1 to ATA8-ACS, without which guests do not look at word 169
    put(data, 105, IDE_TRIM_BLOCKS);
    put(data, 169, 1); // TRIM
    // Integrity word (8.15.61).
    data[510] = 0xa5;
    uint8_t sum = 0;
    for (unsigned i = 0; i < 511; i++)
        sum += data[i];
    data[511] = -sum;
}

void ide_identify_cd(struct ide_drive *drive, uint8_t *data)
{
    memset(data, 0, IDE_SECTOR);
    put(data, 0, 0x85c0); // packet device, CD-ROM, removable, 12-byte packets, DRQ within 50 microseconds
    put_names(drive, data, "CLOCHE DVD-ROM");
    put_modes(drive, data);
    put(data, 71, 30); // nanoseconds to release the bus
    put(data, 72, 30);
    put(data, 82, 0x0210); // PACKET, DEVICE RESET
    put(data, 83, 0x4000);
    put(data, 84, 0x4000);
    put(data, 85, 0x0210);
    put(data, 87, 0x4000);
}

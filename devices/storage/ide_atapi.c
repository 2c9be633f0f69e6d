// SPDX-License-Identifier: GPL-2.0-or-later
// Packet commands of a CD/DVD drive (ATA/ATAPI-6, 9.8; MMC-4; SPC-3) by a table.
#include "devices/storage/ide.h"

#include <errno.h>
#include <string.h>

TRACE_POINT(ide_packet);

enum sense_key {
    SENSE_NONE,
    SENSE_NOT_READY = 2,
    SENSE_MEDIUM_ERROR = 3,
    SENSE_ILLEGAL_REQUEST = 5,
    SENSE_ATTENTION = 6
};
enum additional_sense {
    ASC_NONE = 0,
    ASC_UNRECOVERED_READ = 0x11,
    ASC_INVALID_COMMAND = 0x20,
    ASC_OUT_OF_RANGE = 0x21,
    ASC_INVALID_FIELD = 0x24,
    ASC_MEDIUM_CHANGED = 0x28,
    ASC_NO_MEDIUM = 0x3a,
    ASC_REMOVAL_PREVENTED = 0x53,
};
enum { REASON_COMMAND = 1, REASON_TO_HOST = 2 }; // the count register tells the phase
enum media_event { MEDIA_NONE, MEDIA_EJECT_REQUEST, MEDIA_NEW, MEDIA_REMOVAL };
enum { PROFILE_CD = 0x0008, PROFILE_DVD = 0x0010 };

#define CD_SECTORS_MAX     (80u * 60 * 75) // longer media are DVDs
#define BYTE_COUNT_DEFAULT 0xfffe

static uint32_t load_be(const uint8_t *p, unsigned size)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | p[i];
    return value;
}

static void store_be(uint8_t *p, unsigned size, uint32_t value)
{
    for (unsigned i = size; i-- > 0; value >>= 8)
        p[i] = value;
}

static uint32_t total_sectors(struct ide_drive *drive)
{
    return MIN(drive_size(drive->drive) / IDE_CD_SECTOR, UINT32_MAX - 1);
}

static bool medium_is_in(struct ide_drive *drive)
{
    return drive->drive->disk && !drive->drive->tray_open;
}

static uint16_t profile(struct ide_drive *drive)
{
    if (!medium_is_in(drive))
        return 0;
    return total_sectors(drive) > CD_SECTORS_MAX ? PROFILE_DVD : PROFILE_CD;
}

// ---- The end of a packet command --------------------------------------------------------------------------------

static void packet_good(struct ide_drive *drive)
{
    drive->now.count = REASON_COMMAND | REASON_TO_HOST;
    ide_finish(drive);
}

static void packet_bad(struct ide_drive *drive, enum sense_key key, enum additional_sense asc)
{
    drive->sense_key = key;
    drive->asc = asc;
    drive->ascq = key == SENSE_ILLEGAL_REQUEST && asc == ASC_REMOVAL_PREVENTED ? 2 : 0;
    drive->now.count = REASON_COMMAND | REASON_TO_HOST;
    if (drive->dma_reply && ide_dma_active(drive->channel))
        ide_dma_fault(drive->channel);
    ide_fail(drive, key << 4 | IDE_ERROR_ABRT);
}

// ---- Replies ----------------------------------------------------------------------------------------------------

// Bytes that the guest wants in each burst (9.8.2); what is odd is rounded down unless it is the rest.
static uint32_t burst(struct ide_drive *drive)
{
    uint32_t limit = drive->byte_limit;
    if (limit == 0 || limit == 0xffff)
        limit = BYTE_COUNT_DEFAULT;
    return limit > 1 ? limit & ~1u : 2;
}

static void announce(struct ide_drive *drive)
{
    uint32_t bytes = MIN(drive->block, drive->end - drive->position);
    drive->now.count = REASON_TO_HOST;
    drive->now.lba_mid = bytes;
    drive->now.lba_high = bytes >> 8;
}

static void end_reply(struct ide_drive *drive)
{
    if (drive->remaining)
        ide_begin(drive, IDE_STEP_PACKET_READ);
    else
        packet_good(drive);
}

// The reply in the buffer goes out by DMA, once the bus master runs.
void ide_atapi_dma_reply(struct ide_drive *drive)
{
    struct ide_channel *channel = drive->channel;
    uint32_t bytes = drive->end;
    if (!ide_dma_active(channel))
        return;
    if (ide_dma_copy(channel, drive->buffer, bytes, true) != bytes) {
        ide_dma_fault(channel);
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    if (!drive->remaining)
        ide_dma_end(channel);
    end_reply(drive);
}

// Sends LENGTH bytes of the buffer, cut to what the command allows.
static void reply(struct ide_drive *drive, uint32_t length, uint32_t allocated)
{
    length = MIN(length, allocated);
    if (!length) {
        packet_good(drive);
        return;
    }
    drive->transfer = IDE_TRANSFER_PACKET_IN;
    drive->position = 0;
    drive->end = length;
    if (drive->dma_reply) {
        drive->status = IDE_STATUS_DRDY | IDE_STATUS_DSC | IDE_STATUS_DRQ;
        drive->now.count = REASON_TO_HOST;
        ide_atapi_dma_reply(drive);
        return;
    }
    drive->block = burst(drive);
    announce(drive);
    ide_transfer(drive, IDE_TRANSFER_PACKET_IN, length, drive->block, true);
}

void ide_atapi_continue(struct ide_drive *drive)
{
    if (drive->position >= drive->end) {
        end_reply(drive);
        return;
    }
    announce(drive);
    drive->block_end = MIN(drive->position + drive->block, drive->end);
    ide_raise(drive->channel);
}

void ide_atapi_read_done(struct ide_drive *drive, int result)
{
    if (result < 0) {
        if (result == -ENOMEDIUM)
            packet_bad(drive, SENSE_NOT_READY, ASC_NO_MEDIUM);
        else
            packet_bad(drive, SENSE_MEDIUM_ERROR, ASC_UNRECOVERED_READ);
        return;
    }
    drive->lba += drive->chunk;
    drive->remaining -= drive->chunk;
    drive->step = IDE_STEP_NONE;
    reply(drive, drive->chunk * IDE_CD_SECTOR, UINT32_MAX);
}

// ---- Commands: each gets the twelve bytes -----------------------------------------------------------------------

static void test_unit_ready(struct ide_drive *drive, const uint8_t *packet)
{
    packet_good(drive);
}

static void request_sense(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    memset(data, 0, 18);
    data[0] = 0x70;
    data[2] = drive->sense_key;
    data[7] = 10;
    data[12] = drive->asc;
    data[13] = drive->ascq;
    drive->sense_key = drive->asc = drive->ascq = 0;
    reply(drive, 18, packet[4]);
}

static void inquiry(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    if (packet[1] & 1) { // vital product data: none
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    memset(data, 0, 36);
    data[0] = 0x05; // CD/DVD
    data[1] = 0x80; // removable
    data[3] = 0x21; // ATAPI
    data[4] = 31;
    memcpy(data + 8, "CLOCHE  DVD-ROM         1.0 ", 28);
    reply(drive, 36, packet[4]);
}

static void start_stop(struct ide_drive *drive, const uint8_t *packet)
{
    bool load_eject = packet[4] & 2, start = packet[4] & 1;
    if (load_eject && !start && drive->drive->tray_locked) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_REMOVAL_PREVENTED);
        return;
    }
    if (load_eject) {
        bool was = drive->drive->tray_open;
        drive_set_tray(drive->drive, !start);
        if (was && start && drive->drive->disk) {
            drive->attention = true;
            drive->media_event = MEDIA_NEW;
        }
    }
    packet_good(drive);
}

static void prevent_removal(struct ide_drive *drive, const uint8_t *packet)
{
    drive->drive->tray_locked = packet[4] & 1;
    packet_good(drive);
}

static void read_capacity(struct ide_drive *drive, const uint8_t *packet)
{
    store_be(drive->buffer, 4, total_sectors(drive) ? total_sectors(drive) - 1 : 0);
    store_be(drive->buffer + 4, 4, IDE_CD_SECTOR);
    reply(drive, 8, 8);
}

static void begin_read(struct ide_drive *drive, uint32_t lba, uint32_t count)
{
    uint32_t total = total_sectors(drive);
    if (lba > total || count > total - lba) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
        return;
    }
    if (!count) {
        packet_good(drive);
        return;
    }
    drive->lba = lba;
    drive->remaining = count;
    ide_begin(drive, IDE_STEP_PACKET_READ);
}

static void read_10(struct ide_drive *drive, const uint8_t *packet)
{
    begin_read(drive, load_be(packet + 2, 4), load_be(packet + 7, 2));
}

static void read_12(struct ide_drive *drive, const uint8_t *packet)
{
    begin_read(drive, load_be(packet + 2, 4), load_be(packet + 6, 4));
}

// READ CD for data sectors without their headers, which is what data media are read with.
static void read_cd(struct ide_drive *drive, const uint8_t *packet)
{
    uint32_t count = load_be(packet + 6, 3);
    switch (packet[9] & 0xf8) {
    case 0x00:
        packet_good(drive);
        return;
    case 0x10:
        begin_read(drive, load_be(packet + 2, 4), count);
        return;
    default:
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    }
}

static void seek(struct ide_drive *drive, const uint8_t *packet)
{
    if (load_be(packet + 2, 4) >= total_sectors(drive))
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
    else
        packet_good(drive);
}

static void store_address(uint8_t *at, uint32_t lba, bool msf)
{
    if (!msf) {
        store_be(at, 4, lba);
        return;
    }
    lba += 150;
    at[0] = 0;
    at[1] = lba / 75 / 60;
    at[2] = lba / 75 % 60;
    at[3] = lba % 75;
}

// One data track and the lead-out.
static unsigned toc_tracks(uint8_t *data, uint32_t total, bool msf, uint8_t first)
{
    uint8_t *at = data + 4;
    data[2] = data[3] = 1;
    if (first <= 1) {
        memset(at, 0, 8);
        at[1] = 0x14;
        at[2] = 1;
        store_address(at + 4, 0, msf);
        at += 8;
    }
    memset(at, 0, 8);
    at[1] = 0x14;
    at[2] = 0xaa;
    store_address(at + 4, total, msf);
    return at + 8 - data;
}

static unsigned toc_sessions(uint8_t *data, bool msf)
{
    memset(data, 0, 12);
    data[2] = data[3] = 1;
    data[5] = 0x14;
    data[6] = 1;
    store_address(data + 8, 0, msf);
    return 12;
}

// Points A0, A1, A2 and track 1 of the raw form.
static unsigned toc_raw(uint8_t *data, uint32_t total)
{
    static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};
    data[2] = data[3] = 1;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *at = data + 4 + 11 * i;
        memset(at, 0, 11);
        at[0] = 1;
        at[1] = 0x14;
        at[3] = points[i];
        if (i < 2)
            at[8] = 1; // first and last track
        else
            store_address(at + 7, i == 2 ? total : 0, true);
    }
    return 4 + 44;
}

static void read_toc(struct ide_drive *drive, const uint8_t *packet)
{
    bool msf = packet[1] & 2;
    unsigned format = packet[2] & 15 ? packet[2] & 15 : packet[9] >> 6, length;
    uint8_t *data = drive->buffer, first = packet[6];
    if (format == 0 && (first <= 1 || first == 0xaa)) {
        length = toc_tracks(data, total_sectors(drive), msf, first);
    } else if (format == 1) {
        length = toc_sessions(data, msf);
    } else if (format == 2) {
        length = toc_raw(data, total_sectors(drive));
    } else {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    store_be(data, 2, length - 2);
    reply(drive, length, load_be(packet + 7, 2));
}

static unsigned add_feature(uint8_t *at, uint16_t code, uint8_t flags, const uint8_t *body, uint8_t length)
{
    store_be(at, 2, code);
    at[2] = flags;
    at[3] = length;
    memcpy(at + 4, body, length);
    return 4 + length;
}

// Profiles, core, removable medium, random readable, CD read, DVD read (MMC-4, chapter 5).
static void get_configuration(struct ide_drive *drive, const uint8_t *packet)
{
    uint16_t current = profile(drive);
    const uint8_t profiles[] = {0, PROFILE_DVD, current == PROFILE_DVD, 0, 0, PROFILE_CD, current == PROFILE_CD, 0};
    static const uint8_t core[] = {0, 0, 0, 2, 1, 0, 0, 0}, removable[] = {0x29, 0, 0, 0};
    static const uint8_t readable[] = {0, 0, 8, 0, 0, 1, 0, 0}, cd_read[] = {0, 0, 0, 0}, dvd_read[] = {0, 0, 0, 0};
    const struct {
        uint16_t code;
        uint8_t flags;
        bool current;
        const uint8_t *body;
        uint8_t length;
    } features[] = {
        {0x00, 0x03, true, profiles, sizeof profiles},   {0x01, 0x0b, true, core, sizeof core},
        {0x03, 0x03, true, removable, sizeof removable}, {0x10, 0x00, current, readable, sizeof readable},
        {0x1e, 0x08, current == PROFILE_CD, cd_read, 4}, {0x1f, 0x00, current == PROFILE_DVD, dvd_read, 4},
    };
    unsigned wanted = packet[1] & 3, start = load_be(packet + 2, 2), length = 8;
    if (wanted == 3) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    memset(drive->buffer, 0, 8);
    store_be(drive->buffer + 6, 2, current);
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        bool chosen =
            wanted == 2 ? features[i].code == start : features[i].code >= start && (wanted == 0 || features[i].current);
        if (chosen)
            length += add_feature(drive->buffer + length, features[i].code, features[i].flags | features[i].current,
                                  features[i].body, features[i].length);
    }
    store_be(drive->buffer, 4, length - 4);
    reply(drive, length, load_be(packet + 7, 2));
}

static void get_event_status(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    if (!(packet[1] & 1)) { // asynchronous: not offered
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    memset(data, 0, 8);
    data[3] = 0x10; // the media class is what we report
    if (!(packet[4] & 0x10)) {
        data[2] = 0x80; // no event of the classes asked for
        store_be(data, 2, 2);
        reply(drive, 4, load_be(packet + 7, 2));
        return;
    }
    store_be(data, 2, 6);
    data[2] = 4;
    data[4] = drive->media_event;
    data[5] = (drive->drive->tray_open ? 1 : 0) | (medium_is_in(drive) ? 2 : 0);
    drive->media_event = MEDIA_NONE;
    reply(drive, 8, load_be(packet + 7, 2));
}

static void read_disc_information(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    if (packet[1] & 7) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    memset(data, 0, 34);
    data[1] = 32;
    data[2] = 0x0e; // complete, last session complete
    data[3] = data[4] = data[5] = data[6] = 1;
    data[7] = 0x20; // unrestricted use
    reply(drive, 34, load_be(packet + 7, 2));
}

static void read_track_information(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    memset(data, 0, 36);
    data[1] = 34;
    data[2] = data[3] = 1;
    data[5] = 0x04; // data track
    data[6] = 0x01;
    store_be(data + 24, 4, total_sectors(drive));
    reply(drive, 36, load_be(packet + 7, 2));
}

// Page 0x01: error recovery; 0x2a: capabilities and mechanical status.
static unsigned mode_page(struct ide_drive *drive, unsigned page, uint8_t *at)
{
    if (page == 0x01) {
        memset(at, 0, 8);
        at[0] = 0x01;
        at[1] = 6;
        at[3] = 5; // retries
        return 8;
    }
    memset(at, 0, 22);
    at[0] = 0x2a;
    at[1] = 20;
    at[2] = 0x3b;                                       // reads CD-R, CD-RW, DVD-ROM, DVD-R
    at[4] = 0x71;                                       // audio play, mode 2, multisession
    at[6] = 0x29 | (drive->drive->tray_locked ? 2 : 0); // tray, eject, lock
    store_be(at + 8, 2, 706);
    store_be(at + 12, 2, 128); // KiB of buffer
    store_be(at + 14, 2, 706);
    return 22;
}

static void mode_sense(struct ide_drive *drive, const uint8_t *packet)
{
    unsigned page = packet[2] & 0x3f, control = packet[2] >> 6, length = 8;
    uint8_t *data = drive->buffer;
    if ((page != 0x01 && page != 0x2a && page != 0x3f) || control == 3) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, control == 3 ? 0x39 : ASC_INVALID_FIELD);
        return;
    }
    memset(data, 0, 8);
    if (page != 0x2a)
        length += mode_page(drive, 0x01, data + length);
    if (page != 0x01)
        length += mode_page(drive, 0x2a, data + length);
    store_be(data, 2, length - 2);
    data[2] = !medium_is_in(drive) ? 0x70 : profile(drive) == PROFILE_DVD ? 0x41 : 0x01;
    reply(drive, length, load_be(packet + 7, 2));
}

static void mechanism_status(struct ide_drive *drive, const uint8_t *packet)
{
    memset(drive->buffer, 0, 8);
    drive->buffer[1] = drive->drive->tray_open ? 0x10 : 0;
    drive->buffer[5] = 1;
    reply(drive, 8, load_be(packet + 8, 2));
}

static void read_subchannel(struct ide_drive *drive, const uint8_t *packet)
{
    memset(drive->buffer, 0, 4);
    drive->buffer[1] = 0x15; // no audio status
    reply(drive, 4, load_be(packet + 7, 2));
}

// Physical format information of layer 0, for DVDs.
static void read_dvd_structure(struct ide_drive *drive, const uint8_t *packet)
{
    uint8_t *data = drive->buffer;
    if (packet[7] != 0 || packet[6] != 0 || profile(drive) != PROFILE_DVD) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    memset(data, 0, 2052);
    store_be(data, 2, 2050);
    data[4] = 1; // DVD-ROM, version 1
    data[5] = 0x0f;
    data[6] = 1;
    store_be(data + 8, 4, 0x30000);
    store_be(data + 12, 4, 0x30000 + total_sectors(drive) - 1);
    reply(drive, 2052, load_be(packet + 8, 2));
}

static void set_speed(struct ide_drive *drive, const uint8_t *packet)
{
    packet_good(drive);
}

enum packet_flag { NEEDS_MEDIUM = 1, IGNORES_ATTENTION = 2 };

static const struct packet_command {
    void (*run)(struct ide_drive *drive, const uint8_t *packet);
    unsigned flags;
} packet_commands[256] = {
    [0x00] = {test_unit_ready, NEEDS_MEDIUM},
    [0x03] = {request_sense, IGNORES_ATTENTION},
    [0x12] = {inquiry, IGNORES_ATTENTION},
    [0x1b] = {start_stop, 0},
    [0x1e] = {prevent_removal, 0},
    [0x25] = {read_capacity, NEEDS_MEDIUM},
    [0x28] = {read_10, NEEDS_MEDIUM},
    [0x2b] = {seek, NEEDS_MEDIUM},
    [0x42] = {read_subchannel, NEEDS_MEDIUM},
    [0x43] = {read_toc, NEEDS_MEDIUM},
    [0x46] = {get_configuration, IGNORES_ATTENTION},
    [0x4a] = {get_event_status, IGNORES_ATTENTION},
    [0x51] = {read_disc_information, NEEDS_MEDIUM},
    [0x52] = {read_track_information, NEEDS_MEDIUM},
    [0x5a] = {mode_sense, 0},
    [0xa8] = {read_12, NEEDS_MEDIUM},
    [0xad] = {read_dvd_structure, NEEDS_MEDIUM},
    [0xbb] = {set_speed, 0},
    [0xbd] = {mechanism_status, 0},
    [0xbe] = {read_cd, NEEDS_MEDIUM},
};

void ide_atapi_packet(struct ide_drive *drive, const uint8_t *packet)
{
    const struct packet_command *command = &packet_commands[packet[0]];
    TRACE(ide_packet, "packet %02x %02x %02x%02x%02x%02x %02x %02x%02x %02x", packet[0], packet[1], packet[2],
          packet[3], packet[4], packet[5], packet[6], packet[7], packet[8], packet[9]);
    drive->remaining = 0;
    drive->status = IDE_STATUS_BSY;
    if (drive->attention && !(command->flags & IGNORES_ATTENTION)) {
        drive->attention = false;
        packet_bad(drive, SENSE_ATTENTION, ASC_MEDIUM_CHANGED);
    } else if (!command->run) {
        packet_bad(drive, SENSE_ILLEGAL_REQUEST, ASC_INVALID_COMMAND);
    } else if ((command->flags & NEEDS_MEDIUM) && !medium_is_in(drive)) {
        packet_bad(drive, SENSE_NOT_READY, ASC_NO_MEDIUM);
    } else {
        command->run(drive, packet);
    }
}

// ---- People change the medium -----------------------------------------------------------------------------------

static void medium_changed(void *opaque)
{
    struct ide_drive *drive = opaque;
    drive->attention = medium_is_in(drive);
    drive->media_event = medium_is_in(drive) ? MEDIA_NEW : MEDIA_REMOVAL;
}

static void eject_requested(void *opaque)
{
    struct ide_drive *drive = opaque;
    drive->media_event = MEDIA_EJECT_REQUEST;
}

const struct drive_client ide_atapi_client = {.medium_changed = medium_changed, .eject_requested = eject_requested};

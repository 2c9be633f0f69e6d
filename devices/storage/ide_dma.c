// SPDX-License-Identifier: GPL-2.0-or-later
// Bus-master DMA of an IDE channel (SFF-8038i): registers, and the walk over the table of physical regions.
#include "devices/storage/ide.h"

enum { COMMAND_START = 0x01, COMMAND_TO_MEMORY = 0x08 };
enum { STATUS_ACTIVE = 0x01, STATUS_ERROR = 0x02, STATUS_INTERRUPT = 0x04, STATUS_CAPABLE = 0x60 };

#define TABLE_ENTRIES 8192 // of 64 KiB, the most a table may span

bool ide_dma_active(const struct ide_channel *channel)
{
    return channel->bus_master.status & STATUS_ACTIVE;
}

static void start(struct ide_channel *channel)
{
    struct ide_bus_master *master = &channel->bus_master;
    master->status |= STATUS_ACTIVE;
    master->entry = master->table;
    master->left = 0;
    master->last = false;
    // A command that came first waits for this.
    for (unsigned unit = 0; unit < 2; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        if (ide_step_needs_dma(drive) && !drive->step_running)
            ide_begin(drive, drive->step);
        else if (drive->dma_reply && drive->transfer == IDE_TRANSFER_PACKET_IN)
            ide_atapi_dma_reply(drive);
    }
}

// The guest takes the start bit away: what the disk has in hand ends first, the rest is not moved.
static void stop(struct ide_channel *channel)
{
    channel->bus_master.status &= ~STATUS_ACTIVE;
    for (unsigned unit = 0; unit < 2; unit++)
        ide_wait_for_disk(&channel->drives[unit]);
}

void ide_bus_master_write(struct ide_channel *channel, unsigned offset, uint32_t value, unsigned size)
{
    struct ide_bus_master *master = &channel->bus_master;
    for (unsigned i = 0; i < size; i++, offset++, value >>= 8) {
        uint8_t byte = value;
        if (offset == 0) {
            bool was = master->command & COMMAND_START;
            master->command = byte & (COMMAND_START | COMMAND_TO_MEMORY);
            if (!was && (byte & COMMAND_START))
                start(channel);
            else if (was && !(byte & COMMAND_START))
                stop(channel);
        } else if (offset == 2) {
            master->status = (byte & STATUS_CAPABLE) | (master->status & STATUS_ACTIVE) |
                             (master->status & ~byte & (STATUS_ERROR | STATUS_INTERRUPT));
        } else if (offset >= 4 && offset < 8) {
            unsigned shift = 8 * (offset - 4);
            master->table = ((master->table & ~(0xffu << shift)) | (uint32_t)byte << shift) & ~3u;
        }
    }
}

uint32_t ide_bus_master_read(struct ide_channel *channel, unsigned offset)
{
    const struct ide_bus_master *master = &channel->bus_master;
    switch (offset) {
    case 0:
        return master->command;
    case 2:
        return master->status;
    case 4:
    case 5:
    case 6:
    case 7:
        return master->table >> 8 * (offset - 4) & 0xff;
    }
    return 0xff;
}

bool ide_dma_region(struct ide_channel *channel, struct ide_bus_master *walk)
{
    if (walk->left)
        return true;
    if (walk->last || !pci_bus_master(channel->pci) || walk->entry - walk->table >= 8 * TABLE_ENTRIES)
        return false;
    uint8_t entry[8];
    pci_dma_read(channel->pci, walk->entry, entry, sizeof entry);
    walk->entry += sizeof entry;
    walk->address = load_le(entry, 4) & ~1u;
    uint32_t count = load_le(entry + 4, 2) & 0xfffe;
    walk->left = count ? count : 0x10000;
    walk->last = entry[7] & 0x80;
    return true;
}

static void advance(struct ide_bus_master *walk, uint32_t bytes)
{
    walk->address += bytes;
    walk->left -= bytes;
}

uint32_t ide_dma_gather(struct ide_drive *drive, struct ide_bus_master *walk, uint32_t bytes)
{
    struct ide_channel *channel = drive->channel;
    struct address_space *memory = channel->pci->device.machine->memory;
    uint32_t done = 0;
    unsigned count = 0;
    while (done < bytes && ide_dma_region(channel, walk)) {
        uint32_t piece = MIN(walk->left, bytes - done);
        uint64_t ram_offset;
        uint8_t *host = address_space_dma(memory, walk->address, piece, &ram_offset);
        if (!host)
            return 0;
        struct iovec *last = count ? &drive->iov[count - 1] : NULL;
        if (last && (uint8_t *)last->iov_base + last->iov_len == host) {
            last->iov_len += piece;
        } else {
            if (count == IDE_DMA_VECTORS)
                break;
            drive->iov[count] = (struct iovec){host, piece};
            drive->iov_ram[count++] = ram_offset;
        }
        advance(walk, piece);
        done += piece;
    }
    drive->request.disk.iov_count = count;
    return done;
}

uint32_t ide_dma_copy(struct ide_channel *channel, void *data, uint32_t bytes, bool to_memory)
{
    struct ide_bus_master *walk = &channel->bus_master;
    uint32_t done = 0;
    while (done < bytes && ide_dma_region(channel, walk)) {
        uint32_t piece = MIN(walk->left, bytes - done);
        if (to_memory)
            pci_dma_write(channel->pci, walk->address, (uint8_t *)data + done, piece);
        else
            pci_dma_read(channel->pci, walk->address, (uint8_t *)data + done, piece);
        advance(walk, piece);
        done += piece;
    }
    return done;
}

// The active bit stays where the table describes more memory than the drive had data for (SFF-8038i, 3.1).
void ide_dma_end(struct ide_channel *channel)
{
    struct ide_bus_master *master = &channel->bus_master;
    if (master->last && !master->left)
        master->status &= ~STATUS_ACTIVE;
}

void ide_dma_fault(struct ide_channel *channel)
{
    channel->bus_master.status = (channel->bus_master.status & ~STATUS_ACTIVE) | STATUS_ERROR;
}

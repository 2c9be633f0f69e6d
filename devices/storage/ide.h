// SPDX-License-Identifier: GPL-2.0-or-later
// An IDE channel with its two drives (ATA/ATAPI-6, T13/1410D): what the register file (ide.c), bus-master DMA
// (ide_dma.c), ATA commands (ide_ata.c) and packet commands (ide_atapi.c) call of each other. All of it runs under the
// machine lock; the disk's threads only hand completions over.
#ifndef CLOCHE_IDE_H
#define CLOCHE_IDE_H

#include "core/machine/drive.h"
#include "core/machine/pci.h"

#define IDE_SECTOR       512u
#define IDE_CD_SECTOR    2048u
#define IDE_BUFFER_SIZE  (128u * 1024)
#define IDE_DMA_VECTORS  256u
#define IDE_DMA_BYTES    (1024u * 1024) // most of one step
#define IDE_PACKET_SIZE  12
#define IDE_MULTIPLE_MAX 16
#define IDE_TRIM_BLOCKS  8 // of 64 ranges, most of one command

enum ide_status_bit {
    IDE_STATUS_ERR = 0x01,
    IDE_STATUS_DRQ = 0x08,
    IDE_STATUS_DSC = 0x10, // seek complete
    IDE_STATUS_DF = 0x20,
    IDE_STATUS_DRDY = 0x40,
    IDE_STATUS_BSY = 0x80,
};
enum ide_error_bit { IDE_ERROR_ABRT = 0x04, IDE_ERROR_IDNF = 0x10, IDE_ERROR_UNC = 0x40 };
enum ide_device_bit { IDE_DEVICE_UNIT = 0x10, IDE_DEVICE_LBA = 0x40 };

struct ide_registers {
    uint8_t features, count, lba_low, lba_mid, lba_high;
};

// What the disk is doing for the present command; all that a step needs is in saved fields, so it can be begun again.
enum ide_step {
    IDE_STEP_NONE,
    IDE_STEP_PIO_READ,
    IDE_STEP_PIO_WRITE,
    IDE_STEP_DMA_READ,
    IDE_STEP_DMA_WRITE,
    IDE_STEP_FLUSH,
    IDE_STEP_PACKET_READ,
    IDE_STEP_TRIM, // ranges in BUFFER from POSITION to END; END 0: still to be fetched
    IDE_STEP_COUNT,
};

// What the data register moves.
enum ide_transfer {
    IDE_TRANSFER_NONE,
    IDE_TRANSFER_READ,      // sectors to the guest
    IDE_TRANSFER_WRITE,     // sectors from it
    IDE_TRANSFER_REPLY,     // one block, such as IDENTIFY's
    IDE_TRANSFER_PACKET,    // a packet command from the guest
    IDE_TRANSFER_PACKET_IN, // its reply
    IDE_TRANSFER_COUNT,
};

struct ide_channel;

// Bus-master DMA of one channel (Intel PIIX3 datasheet, 2.7; SFF-8038i).
struct ide_bus_master {
    uint8_t command, status;
    uint32_t table;   // physical region descriptors
    uint32_t entry;   // address of the next one
    uint32_t address; // of what is left of the present one
    uint32_t left;
    bool last; // the present one ends the table
};

struct ide_drive {
    struct ide_channel *channel;
    unsigned unit;
    struct drive *drive;              // NULL: there is no drive
    bool packet;                      // ATAPI
    struct ide_registers now, before; // BEFORE: the contents written before, for 48-bit commands
    uint8_t status, error;
    uint8_t multiple;       // sectors per block of READ/WRITE MULTIPLE, 0: off
    uint8_t heads, sectors; // of CHS addressing
    uint8_t transfer_mode;  // as SET FEATURES gave it
    bool write_cache;
    bool standby;

    uint8_t command;
    bool wide;      // 48-bit command
    bool dma_reply; // a packet command that answers by DMA
    bool fua;
    uint64_t lba;        // next sector (of the drive's own size)
    uint32_t remaining;  // sectors that the command still has to move
    uint8_t step;        // enum ide_step
    bool step_running;   // submitted
    uint32_t chunk;      // sectors of the step
    uint32_t block;      // bytes per DRQ block
    uint16_t byte_limit; // of a packet command's bursts, as the guest gave it

    uint8_t transfer;                  // enum ide_transfer
    uint32_t position, block_end, end; // of the data register in BUFFER
    uint8_t *buffer;                   // IDE_BUFFER_SIZE bytes
    uint32_t saved_bytes;              // of BUFFER, in a saved state

    uint8_t sense_key, asc, ascq; // ATAPI
    bool attention;               // the medium is new: the next command is told
    uint8_t media_event;          // of GET EVENT STATUS NOTIFICATION

    struct drive_request request;
    struct iovec iov[IDE_DMA_VECTORS];
    uint64_t iov_ram[IDE_DMA_VECTORS];
    bool direct;                // the step's vectors are guest RAM
    bool into_memory;           // and written by the disk
    struct ide_bus_master walk; // where the table's walk stands after the step
    bool abandoned;             // a reset waits: the step's end has no effect
};

struct ide_channel {
    struct pci_device *pci; // the function that masters the bus
    struct irq irq;
    struct ide_drive drives[2];
    uint8_t device;  // device/head register
    uint8_t control; // device control register
    bool interrupt;  // INTRQ
    struct ide_bus_master bus_master;
    struct region command_region, control_region;
};

// ---- ide.c ----
void ide_channel_init(struct ide_channel *channel, struct pci_device *pci, const char *const names[2]);
void ide_channel_exit(struct ide_channel *channel);
void ide_channel_reset(struct ide_channel *channel);
void ide_channel_quiesce(struct ide_channel *channel);
void ide_channel_loaded(struct ide_channel *channel);
void ide_set_drive(struct ide_channel *channel, unsigned unit, struct drive *drive);
struct ide_drive *ide_selected(struct ide_channel *channel);
void ide_raise(struct ide_channel *channel);
void ide_signature(struct ide_drive *drive);

// The end of a command, with an interrupt.
void ide_finish(struct ide_drive *drive);
void ide_fail(struct ide_drive *drive, uint8_t error);
// Opens the data register for bytes [0, LENGTH) of the buffer, BLOCK bytes per interrupt.
void ide_transfer(struct ide_drive *drive, enum ide_transfer transfer, uint32_t length, uint32_t block, bool interrupt);
// Does the present step move data by bus-master DMA?
bool ide_step_needs_dma(const struct ide_drive *drive);
// Begins a step: the drive is busy until the disk is done with it.
void ide_begin(struct ide_drive *drive, enum ide_step step);
void ide_wait_for_disk(struct ide_drive *drive); // until no step runs (a reset, an aborted transfer)

// ---- ide_dma.c ----
void ide_bus_master_write(struct ide_channel *channel, unsigned offset, uint32_t value, unsigned size);
uint32_t ide_bus_master_read(struct ide_channel *channel, unsigned offset);
bool ide_dma_active(const struct ide_channel *channel);
// Makes sure that the walk stands on a region with bytes left. False at the end of the table.
bool ide_dma_region(struct ide_channel *channel, struct ide_bus_master *walk);
// Collects up to BYTES bytes of the table as vectors into RAM. Returns how many; 0 also where a region is no RAM.
uint32_t ide_dma_gather(struct ide_drive *drive, struct ide_bus_master *walk, uint32_t bytes);
// Copies between the buffer and the regions of the table; returns the bytes moved.
uint32_t ide_dma_copy(struct ide_channel *channel, void *data, uint32_t bytes, bool to_memory);
void ide_dma_end(struct ide_channel *channel); // the drive is done: status bits
void ide_dma_fault(struct ide_channel *channel);

// ---- ide_ata.c ----
void ide_ata_command(struct ide_drive *drive, uint8_t command);
void ide_ata_store_lba(struct ide_drive *drive); // LBA into the registers

// ---- ide_identify.c ----
void ide_identify_disk(struct ide_drive *drive, uint8_t *data);
void ide_identify_cd(struct ide_drive *drive, uint8_t *data);

// ---- ide_atapi.c ----
void ide_atapi_packet(struct ide_drive *drive, const uint8_t *packet);
void ide_atapi_read_done(struct ide_drive *drive, int result);
void ide_atapi_continue(struct ide_drive *drive); // the guest took a part of the reply
void ide_atapi_dma_reply(struct ide_drive *drive);
extern const struct drive_client ide_atapi_client;

extern const struct field ide_channel_fields[];

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
// Counters of a drive, and which parts of its disk were written.
#include "core/machine/drive_count.h"

static struct drive_count *count_of(struct drive *drive, enum disk_op op)
{
    static const enum drive_work kinds[] = {[DISK_READ] = DRIVE_READS,
                                            [DISK_WRITE] = DRIVE_WRITES,
                                            [DISK_WRITE_ZEROES] = DRIVE_WRITES,
                                            [DISK_FLUSH] = DRIVE_FLUSHES,
                                            [DISK_DISCARD] = DRIVE_UNMAPS};
    return &drive->counts[kinds[op]];
}

void drive_count_begin(struct drive *drive, struct drive_request *request)
{
    request->begun = g_get_monotonic_time();
    g_mutex_lock(&drive->lock);
    struct drive_count *count = count_of(drive, request->disk.op);
    count->operations++;
    if (request->disk.op != DISK_FLUSH)
        count->bytes += request->disk.length;
    g_mutex_unlock(&drive->lock);
}

static void mark_changes(struct drive *drive, const struct disk_request *request)
{
    if (!request->length)
        return;
    uint64_t first = request->offset / DRIVE_CHANGE_PIECE,
             last = (request->offset + request->length - 1) / DRIVE_CHANGE_PIECE;
    for (uint64_t piece = first; piece <= last && piece < drive->change_pieces; piece++)
        drive->changes[piece / 64] |= BIT(piece % 64);
}

// The request belongs to its owner again when this returns: all that is needed is read here.
void drive_count_end(struct drive *drive, struct drive_request *request, int result)
{
    const struct disk_request *disk = &request->disk;
    int64_t now = g_get_monotonic_time();
    g_mutex_lock(&drive->lock);
    struct drive_count *count = count_of(drive, disk->op);
    count->time_us += now - request->begun;
    count->failed += result < 0;
    drive->errors += result < 0;
    drive->last_end = now;
    if (disk->op == DISK_WRITE || disk->op == DISK_WRITE_ZEROES)
        drive->highest_write = MAX(drive->highest_write, disk->offset + disk->length);
    if (drive->changes && disk->op != DISK_READ && disk->op != DISK_FLUSH)
        mark_changes(drive, disk);
    g_mutex_unlock(&drive->lock);
}

void drive_count_invalid(struct drive *drive, const struct drive_request *request)
{
    g_mutex_lock(&drive->lock);
    count_of(drive, request->disk.op)->invalid++;
    drive->last_end = g_get_monotonic_time();
    g_mutex_unlock(&drive->lock);
}

// ---- Changes ----

void drive_watch_changes(struct drive *drive, bool on)
{
    uint64_t pieces = on ? (disk_size(drive->disk) + DRIVE_CHANGE_PIECE - 1) / DRIVE_CHANGE_PIECE : 0;
    uint64_t *changes = on ? g_new0(uint64_t, pieces / 64 + 1) : NULL;
    g_mutex_lock(&drive->lock);
    g_free(drive->changes);
    drive->changes = changes;
    drive->change_pieces = pieces;
    g_mutex_unlock(&drive->lock);
}

uint64_t drive_changed_bytes(struct drive *drive)
{
    uint64_t count = 0;
    g_mutex_lock(&drive->lock);
    for (uint64_t word = 0; drive->changes && word <= drive->change_pieces / 64; word++)
        count += (unsigned)__builtin_popcountll(drive->changes[word]);
    g_mutex_unlock(&drive->lock);
    return count * DRIVE_CHANGE_PIECE;
}

uint64_t *drive_take_changes(struct drive *drive, uint64_t *pieces)
{
    g_mutex_lock(&drive->lock);
    uint64_t *changes = drive->changes;
    *pieces = drive->change_pieces;
    drive->changes = g_new0(uint64_t, drive->change_pieces / 64 + 1);
    g_mutex_unlock(&drive->lock);
    return changes;
}

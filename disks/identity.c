// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/identity.h"
#include "disks/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SAMPLES = 64, SAMPLE_LENGTH = 4096 };

struct identity {
    uint64_t size, file_length, inode;
    int64_t seconds;
    long nanoseconds;
    char samples[65], generation[37]; // "-": the format has none
};

static char *sample_checksum(struct disk *base)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree uint8_t *data = g_malloc(SAMPLE_LENGTH);
    uint64_t step = ALIGN_DOWN(base->size / SAMPLES, SAMPLE_LENGTH);
    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t offset = i * step, length = offset < base->size ? MIN(SAMPLE_LENGTH, base->size - offset) : 0;
        if (length == 0 || (i && step == 0))
            break;
        if (disk_read(base, offset, data, length))
            return NULL;
        g_checksum_update(sum, data, length);
    }
    return g_strdup(g_checksum_get_string(sum));
}

static void stat_identity(struct disk *base, struct identity *id)
{
    struct stat st;
    const char *generation = base->driver->generation ? base->driver->generation(base) : NULL;
    g_snprintf(id->generation, sizeof id->generation, "%.36s", generation ? generation : "-");
    id->size = base->size;
    if (fstat(base->file->fd, &st) < 0)
        return;
    id->file_length = st.st_size;
    id->inode = st.st_ino;
    id->seconds = st.st_mtim.tv_sec;
    id->nanoseconds = st.st_mtim.tv_nsec;
}

char *identity_of(struct disk *base)
{
    struct identity id = {0};
    stat_identity(base, &id);
    g_autofree char *samples = sample_checksum(base);
    return samples
               ? g_strdup_printf("size=%" PRIu64 " file=%" PRIu64 " inode=%" PRIu64 " time=%" PRId64
                                 ".%09ld generation=%s samples=%s",
                                 id.size, id.file_length, id.inode, id.seconds, id.nanoseconds, id.generation, samples)
               : NULL;
}

char *identity_in_transit(struct disk *base)
{
    return g_strdup_printf("size=%" PRIu64 " file=0 inode=0 time=0.0 generation=- samples=transit", base->size);
}

static bool parse(const char *text, struct identity *id)
{
    return sscanf(text,
                  "size=%" SCNu64 " file=%" SCNu64 " inode=%" SCNu64 " time=%" SCNd64
                  ".%ld generation=%36s samples=%64s",
                  &id->size, &id->file_length, &id->inode, &id->seconds, &id->nanoseconds, id->generation,
                  id->samples) == 7;
}

bool identity_check(struct disk *disk, GError **error)
{
    struct identity then = {0}, now = {0};
    if (!disk->backing_identity)
        return true; // made by another tool, which remembers nothing
    if (!parse(disk->backing_identity, &then)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                    "%s has a damaged note about its base: check the base, then accept it with cloche-disk rebase -u",
                    disk->path);
        return false;
    }
    if (strcmp(then.samples, "transit") == 0)
        return true; // an interrupted commit: the overlay still hides whatever the base has already got
    stat_identity(disk->backing, &now);
    if (then.size != now.size) {
        g_set_error(
            error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
            "The base %s of %s has a size of %" PRIu64 " bytes where it had %" PRIu64
            " when the overlay was made: put the right base back, or accept this one with cloche-disk rebase -u",
            disk->backing->path, disk->path, now.size, then.size);
        return false;
    }
    if (then.file_length == now.file_length && then.seconds == now.seconds && then.nanoseconds == now.nanoseconds)
        return true;
    // The format's own mark of changes decides where it has one. Without one, another time on the same file is a
    // change; on another file it may be a copy, which is compared at the samples.
    bool same = strcmp(then.generation, now.generation) == 0;
    if (strcmp(now.generation, "-") == 0 && then.inode == now.inode)
        same = false;
    g_autofree char *samples = same ? sample_checksum(disk->backing) : NULL;
    if (samples && strcmp(samples, then.samples) == 0) {
        log_info("disks",
                 "the base %s of %s was copied or touched since the overlay was made; its samples are the same",
                 disk->backing->path, disk->path);
        return true;
    }
    g_set_error(
        error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
        "The base %s of %s has other contents than when the overlay was made: put the right base back, or accept "
        "this one with cloche-disk rebase -u",
        disk->backing->path, disk->path);
    return false;
}

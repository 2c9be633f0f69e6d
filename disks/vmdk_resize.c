// SPDX-License-Identifier: GPL-2.0-or-later
// Growing and shrinking VMDK images.
//
// monolithicSparse: more grain tables, the directories that have them too, and the new descriptor go to the end of the
// file, and one write of the header's sector makes all of it valid. Then the descriptor returns to its old place, where
// other programs look for it.
// monolithicFlat: the data file is never shorter than the descriptor says; a new descriptor replaces the old one.
#include "disks/staging.h"
#include "disks/vmdk.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t sectors_of(uint64_t bytes)
{
    return (bytes + VMDK_SECTOR - 1) / VMDK_SECTOR;
}

static void take_descriptor(struct vmdk *v, const char *text)
{
    g_free(v->descriptor);
    v->descriptor = g_malloc0(MAX(v->descriptor_room, strlen(text)) + 1);
    strcpy(v->descriptor, text);
}

// ---- Sparse ----
// What goes to the end of the file. Sectors; TABLES is their number, all of them.
struct growth {
    uint64_t start, tables;
    uint64_t directory_at, redundant_at; // as they are where no table is added
    uint64_t kept_end;                   // what is there to stay ends here
    uint64_t descriptor_at;
};

static void plan(const struct vmdk_extent *e, uint64_t tables, struct growth *g)
{
    uint64_t per = sectors_of(e->per_table * 4ull), set = sectors_of(tables * 4) + (tables - e->tables) * per;
    *g = (struct growth){.start = ALIGN_UP(file_size(e->file), e->grains.grain_size) / VMDK_SECTOR,
                         .tables = tables,
                         .directory_at = e->directory_at,
                         .redundant_at = e->redundant_at};
    g->kept_end = g->start;
    if (tables > e->tables) {
        g->directory_at = g->start;
        g->redundant_at = e->redundant ? g->start + set : 0;
        g->kept_end += e->redundant ? 2 * set : set;
    }
    g->descriptor_at = g->kept_end;
}

// A directory at AT with the tables of OLD and new ones behind it, which the file's new end shows as zeroes.
static uint32_t *put_directory(struct vmdk_extent *e, const struct growth *g, const uint32_t *old, uint64_t at, int *rc)
{
    uint64_t per = sectors_of(e->per_table * 4ull), first = at + sectors_of(g->tables * 4);
    uint32_t *directory = g_try_new0(uint32_t, g->tables + 1);
    g_autofree uint32_t *out = g_try_new0(uint32_t, g->tables + 1);
    *rc = directory && out ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < g->tables && !*rc; i++) {
        directory[i] = i < e->tables ? old[i] : first + (i - e->tables) * per;
        out[i] = GUINT32_TO_LE(directory[i]);
    }
    if (!*rc)
        *rc = file_write(e->file, at * VMDK_SECTOR, out, g->tables * 4);
    if (!*rc)
        return directory;
    g_free(directory);
    return NULL;
}

static int put_header(struct vmdk_extent *e, uint64_t size, const struct growth *g, uint64_t descriptor_at)
{
    uint8_t h[VMDK_HEADER];
    int rc = file_read(e->file, 0, h, VMDK_HEADER);
    store_le(h + H_CAPACITY, 8, size / VMDK_SECTOR);
    store_le(h + H_DESCRIPTOR, 8, descriptor_at);
    store_le(h + H_DIRECTORY, 8, g->directory_at);
    if (e->redundant)
        store_le(h + H_REDUNDANT, 8, g->redundant_at);
    if (!rc)
        rc = file_write(e->file, 0, h, VMDK_HEADER);
    return rc ? rc : file_sync(e->file);
}

static int put_descriptor(struct vmdk *v, const char *text, uint64_t at)
{
    g_autofree char *padded = g_malloc0(v->descriptor_room);
    memcpy(padded, text, strlen(text));
    int rc = file_write(v->disk->file, at, padded, v->descriptor_room);
    return rc ? rc : file_sync(v->disk->file);
}

// New tables and the descriptor lie behind the file's end until the header says that they count.
static int put_metadata(struct vmdk_extent *e, const struct growth *g, const char *text, uint32_t **directory,
                        uint32_t **redundant)
{
    uint64_t end = g->descriptor_at * VMDK_SECTOR + e->vmdk->descriptor_room;
    int rc = file_extend(e->file, end);
    if (!rc && g->tables > e->tables)
        *directory = put_directory(e, g, e->directory, g->directory_at, &rc);
    if (!rc && g->tables > e->tables && e->redundant)
        *redundant = put_directory(e, g, e->redundant, g->redundant_at, &rc);
    return rc ? rc : put_descriptor(e->vmdk, text, g->descriptor_at * VMDK_SECTOR);
}

static void take_directory(uint32_t **old, uint32_t *now)
{
    if (!now)
        return;
    g_free(*old);
    *old = now;
}

// The sector behind the header, unless what is there is no descriptor.
static uint64_t descriptor_home(const struct vmdk *v)
{
    static const char start[] = "# Disk DescriptorFile";
    char text[sizeof start];
    bool is_there = file_read(v->disk->file, VMDK_SECTOR, text, sizeof text) == 0 &&
                    g_ascii_strncasecmp(text, start, sizeof start - 1) == 0;
    return is_there ? VMDK_SECTOR : v->descriptor_offset;
}

// All of the above, in order. What is in memory follows the header.
static int switch_size(struct vmdk_extent *e, uint64_t size, const struct growth *g, const char *text)
{
    struct vmdk *v = e->vmdk;
    uint32_t *directory = NULL, *redundant = NULL;
    int rc = put_metadata(e, g, text, &directory, &redundant);
    if (!rc)
        rc = put_header(e, size, g, g->descriptor_at);
    if (rc) { // the header may have got there all the same: what it says then stays where it is
        e->end = ALIGN_UP(file_size(e->file), e->grains.grain_size);
        g_free(directory);
        g_free(redundant);
        return rc;
    }
    take_directory(&e->directory, directory);
    take_directory(&e->redundant, redundant);
    take_descriptor(v, text);
    e->directory_at = g->directory_at;
    e->redundant_at = g->redundant_at;
    e->tables = g->tables;
    e->length = v->disk->size = size;
    rc = grains_set_count(&e->grains, (size + e->grains.grain_size - 1) / e->grains.grain_size);
    uint64_t home = descriptor_home(v);
    v->descriptor_offset = g->descriptor_at * VMDK_SECTOR;
    e->end = ALIGN_UP(file_size(e->file), e->grains.grain_size);
    if (!rc)
        rc = put_descriptor(v, text, home);
    if (!rc)
        rc = put_header(e, size, g, home / VMDK_SECTOR);
    if (rc)
        return rc;
    v->descriptor_offset = home;
    e->end = ALIGN_UP(g->kept_end * VMDK_SECTOR, e->grains.grain_size);
    return e->file->regular ? file_truncate(e->file, e->end) : 0;
}

// Nothing that is in use lies behind the end that is set.
static int cut_sparse(struct vmdk_extent *e)
{
    uint64_t top, end = vmdk_metadata_end(e);
    int rc = grains_top(&e->grains, &top);
    if (rc)
        return rc;
    if (top)
        end = MAX(end, (top - 1) * VMDK_SECTOR + e->grains.grain_size);
    e->end = ALIGN_UP(MAX(end, e->overhead * VMDK_SECTOR), e->grains.grain_size);
    rc = e->file->regular && file_size(e->file) > e->end ? file_truncate(e->file, e->end) : 0;
    return rc ? rc : file_sync(e->file);
}

static int resize_sparse(struct vmdk_extent *e, uint64_t size, const char *text)
{
    struct grains *grains = &e->grains;
    uint64_t old = e->vmdk->disk->size, grain = grains->grain_size, count = (size + grain - 1) / grain;
    uint64_t rest = MIN(old, count * grain), tables = (count + e->per_table - 1) / e->per_table;
    struct growth growth;
    int rc = rest > size ? grains_zero(grains, size, rest - size, 0) : 0;
    if (!rc)
        rc = size < old ? grains_drop(grains, count) : grains_flush(grains);
    plan(e, tables, &growth);
    if (!rc && growth.descriptor_at > UINT32_MAX)
        return -EFBIG;
    if (!rc)
        rc = switch_size(e, size, &growth, text);
    return rc ? rc : cut_sparse(e);
}

// ---- Flat ----
// Another file takes the place of the descriptor at PATH: there is the old text or the new one, never a part.
static int replace_descriptor(struct vmdk *v, const char *path, const char *text)
{
    struct disk *disk = v->disk;
    g_autofree char *fresh = g_strdup_printf("%s.new-%d", path, (int)getpid());
    struct stat st;
    struct file *file = file_open(fresh, FILE_OPEN_CREATE, disk->hooks, NULL);
    int rc = file ? file_write(file, 0, text, strlen(text)) : -EIO;
    if (!rc && fstat(disk->file->fd, &st) == 0)
        rc = fchmod(file->fd, st.st_mode & 07777) < 0 || fchown(file->fd, st.st_uid, st.st_gid) < 0 ? -errno : 0;
    if (!rc)
        rc = file_sync(file);
    if (!rc && g_rename(fresh, path) < 0)
        rc = -errno;
    if (rc) {
        file_close(file);
        g_unlink(fresh);
        return rc;
    }
    g_free(file->path);
    file->path = g_strdup(disk->path);
    file_close(disk->file);
    disk->file = file;
    v->descriptor_room = strlen(text);
    take_descriptor(v, text);
    return 0;
}

static int resize_flat(struct vmdk_extent *e, uint64_t size, const char *text)
{
    struct disk *disk = e->vmdk->disk;
    uint64_t old_end = e->flat_offset + e->length, end = e->flat_offset + size;
    g_autofree char *path = realpath(disk->path, NULL); // g_free() is free()
    int rc = path ? 0 : -errno;
    if (!rc && end > old_end) {
        bool full = file_allocated(e->file) >= e->length;
        rc = file_truncate(e->file, old_end); // what a shrinking that was cut short left behind
        if (!rc)
            rc = full ? file_allocate(e->file, old_end, end - old_end) : file_truncate(e->file, end);
    }
    if (!rc)
        rc = file_sync(e->file);
    if (!rc)
        rc = replace_descriptor(e->vmdk, path, text);
    if (rc) {
        if (end > old_end)
            file_truncate(e->file, old_end);
        return rc;
    }
    e->length = disk->size = size;
    rc = sync_folder_of(path);
    return !rc && end < old_end ? file_truncate(e->file, end) : rc;
}

bool vmdk_may_resize(struct disk *disk, uint64_t size, GError **error)
{
    struct vmdk_extent *e = &((struct vmdk *)disk->state)->extents[0];
    if (size && size <= VMDK_MOST && (e->kind != VMDK_FLAT || e->file->regular))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "%s cannot get that size: a VMDK image has from 512 bytes to just under 2 TiB, in a file", disk->path);
    return false;
}

int vmdk_resize(struct disk *disk, uint64_t size)
{
    struct vmdk *v = disk->state;
    struct vmdk_extent *e = &v->extents[0];
    int rc = v->marked ? 0 : vmdk_mark(v);
    if (rc)
        return rc;
    g_autofree char *text = vmdk_descriptor_resized(v, size);
    if (e->kind == VMDK_FLAT)
        return resize_flat(e, size, text);
    return strlen(text) > v->descriptor_room ? -EFBIG : resize_sparse(e, size, text);
}

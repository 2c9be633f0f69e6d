// SPDX-License-Identifier: GPL-2.0-or-later
// Internal snapshots: the table, and opening one of them read-only.
#include "disks/qcow2.h"

#include <errno.h>

enum { ENTRY_FIXED = 40, MOST_TABLE = 16 << 20, MOST_EXTRA = 1024 };

static bool damaged(struct qcow2 *q, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s cannot be opened: its table of snapshots is not valid",
                q->disk->path);
    return false;
}

// One entry at *AT. -EIO where it does not fit in the file.
static int read_entry(struct qcow2 *q, uint64_t *at, struct qcow2_snapshot *snapshot)
{
    uint8_t h[ENTRY_FIXED];
    if (*at > file_size(q->file))
        return -EIO;
    int rc = file_read(q->file, *at, h, sizeof h);
    if (rc)
        return rc;
    uint16_t id = load_be16(h + 12), name = load_be16(h + 14);
    uint32_t extra = load_be32(h + 36);
    if (extra > MOST_EXTRA)
        return -EIO;
    uint8_t *data = snapshot->extra = g_malloc0(extra + id + name + 16);
    rc = file_read(q->file, *at + ENTRY_FIXED, data, extra + id + name);
    if (rc)
        return rc;
    snapshot->l1_offset = load_be64(h);
    snapshot->l1_size = load_be32(h + 8);
    snapshot->seconds = load_be32(h + 16);
    snapshot->nanoseconds = load_be32(h + 20);
    snapshot->vm_clock = load_be64(h + 24);
    snapshot->vm_state_size = extra >= 8 ? load_be64(data) : load_be32(h + 32);
    snapshot->disk_size = extra >= 16 ? load_be64(data + 8) : q->disk->size;
    snapshot->extra_length = extra;
    snapshot->id = g_strndup((char *)data + extra, id);
    snapshot->name = g_strndup((char *)data + extra + id, name);
    *at = ALIGN_UP(*at + ENTRY_FIXED + extra + id + name, 8);
    return 0;
}

bool qcow2_snapshots_read(struct qcow2 *q, uint32_t count, uint64_t offset, GError **error)
{
    if (!count)
        return true;
    if (count > QCOW2_MOST_SNAPSHOTS || offset & (q->cluster_size - 1) || offset > file_size(q->file))
        return damaged(q, error);
    q->snapshots = g_new0(struct qcow2_snapshot, count);
    q->snapshots_offset = offset;
    uint64_t at = offset;
    for (; q->snapshot_count < count; q->snapshot_count++) {
        struct qcow2_snapshot *snapshot = &q->snapshots[q->snapshot_count];
        int rc = at - offset < MOST_TABLE ? read_entry(q, &at, snapshot) : -EIO;
        if (rc || snapshot->l1_size > QCOW2_MOST_L1 / 8 || snapshot->l1_offset & (q->cluster_size - 1)) {
            q->snapshot_count++; // the entry's texts are freed with the others
            return damaged(q, error);
        }
    }
    q->snapshots_length = ALIGN_UP(at - offset, q->cluster_size);
    return true;
}

void qcow2_snapshots_free(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->snapshot_count; i++) {
        g_free(q->snapshots[i].id);
        g_free(q->snapshots[i].name);
        g_free(q->snapshots[i].extra);
    }
    g_free(q->snapshots);
    q->snapshots = NULL;
    q->snapshot_count = 0;
}

bool qcow2_snapshot_select(struct qcow2 *q, const char *name, GError **error)
{
    for (unsigned by_id = 0; by_id < 2; by_id++)
        for (uint32_t i = 0; i < q->snapshot_count; i++) {
            const struct qcow2_snapshot *snapshot = &q->snapshots[i];
            if (strcmp(by_id ? snapshot->id : snapshot->name, name) != 0)
                continue;
            q->l1_offset = snapshot->l1_offset;
            q->l1_size = snapshot->l1_size;
            q->disk->size = snapshot->disk_size;
            return true;
        }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "%s has no snapshot “%s”: cloche-disk snapshot lists those that it has", q->disk->path, name);
    return false;
}

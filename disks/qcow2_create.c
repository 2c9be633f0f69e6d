// SPDX-License-Identifier: GPL-2.0-or-later
// A new, empty image: header, refcount table, refcount blocks, L1 table.
#include "disks/create.h"
#include "disks/qcow2.h"

#include <errno.h>

struct layout {
    uint64_t l1_entries, l1_clusters, blocks, table_clusters, total;
};

static void make_layout(const struct qcow2 *q, uint64_t size, struct layout *l)
{
    uint64_t span = q->cluster_size << q->l2_bits;
    l->l1_entries = size / span + !!(size % span);
    l->l1_clusters = qcow2_clusters(q, l->l1_entries * 8);
    l->blocks = l->table_clusters = 1;
    for (;;) {
        l->total = 1 + l->table_clusters + l->blocks + l->l1_clusters;
        uint64_t per_block = qcow2_refcounts_per_block(q), blocks = (l->total + per_block - 1) / per_block;
        uint64_t table = qcow2_clusters(q, blocks * 8);
        if (blocks <= l->blocks && table <= l->table_clusters)
            return;
        l->blocks = MAX(blocks, l->blocks);
        l->table_clusters = MAX(table, l->table_clusters);
    }
}

static int write_refcounts(struct qcow2 *q, const struct layout *l)
{
    g_autofree uint8_t *data = g_malloc0(MAX(l->blocks, l->table_clusters) << q->cluster_bits);
    uint64_t first_block = (1 + l->table_clusters) << q->cluster_bits;
    for (uint64_t cluster = 0; cluster < l->total; cluster++)
        qcow2_refcount_store(q, data, cluster, 1);
    int rc = file_write(q->file, first_block, data, l->blocks << q->cluster_bits);
    memset(data, 0, MAX(l->blocks, l->table_clusters) << q->cluster_bits);
    for (uint64_t i = 0; i < l->blocks; i++)
        store_be64(data + i * 8, first_block + (i << q->cluster_bits));
    return rc ? rc : file_write(q->file, q->cluster_size, data, l->table_clusters << q->cluster_bits);
}

static bool check_options(struct qcow2 *q, const struct disk_create_options *options, GError **error)
{
    unsigned bits = options->refcount_bits ? options->refcount_bits : 16;
    const char *problem = NULL;
    if (q->cluster_size & (q->cluster_size - 1) || q->cluster_size < 512 || q->cluster_size > 2 * MiB)
        problem = "the cluster size must be a power of two from 512 bytes to 2 MiB";
    else if (bits > 64 || bits & (bits - 1))
        problem = "reference counts must have 1, 2, 4, 8, 16, 32 or 64 bits";
    else if (q->version != 2 && q->version != 3)
        problem = "the version must be 2 or 3";
    else if (q->version == 2 && (bits != 16 || options->lazy_refcounts || options->extended_l2 || options->compression))
        problem = "these options need version 3";
    else if (options->extended_l2 && q->cluster_size < 16 * KiB)
        problem = "subclusters need clusters of 16 KiB or more";
    else if (options->preallocate)
        problem = "a qcow2 image takes its space as it is written; only raw, vdi, vhd and vmdk can take it before";
    else if (options->size > INT64_MAX - q->cluster_size)
        problem = "the size must be below 8 EiB";
    if (problem)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Cannot create this qcow2 image: %s", problem);
    return !problem;
}

static void take_options(struct qcow2 *q, const struct disk_create_options *options)
{
    q->version = options->version ? options->version : 3;
    q->cluster_size = options->cluster_size ? options->cluster_size : 64 * KiB;
    q->cluster_bits = g_bit_nth_lsf(q->cluster_size, -1);
    q->refcount_order = g_bit_nth_lsf(options->refcount_bits ? options->refcount_bits : 16, -1);
    q->compatible = options->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0;
    q->compression = options->compression == DISK_COMPRESS_ZSTD;
    q->incompatible = (q->compression ? QCOW2_COMPRESSION : 0) | (options->extended_l2 ? QCOW2_EXTENDED_L2 : 0);
    q->l2_bits = q->cluster_bits - (options->extended_l2 ? 4 : 3);
}

static int write_image(struct qcow2 *q, struct layout *l)
{
    q->header_reftable_offset = q->cluster_size;
    q->header_reftable_clusters = l->table_clusters;
    q->l1_size = l->l1_entries;
    q->l1_offset = (1 + l->table_clusters + l->blocks) << q->cluster_bits;
    int rc = file_truncate(q->file, l->total << q->cluster_bits); // the L1 table is a hole: zeroes
    if (!rc)
        rc = write_refcounts(q, l);
    if (!rc)
        rc = file_sync(q->file);
    g_autofree char *generation = g_uuid_string_random();
    qcow2_extension_set(q, QCOW2_EXT_GENERATION, generation, strlen(generation));
    if (!rc)
        rc = qcow2_header_write(q);
    return rc ? rc : file_sync(q->file);
}

int qcow2_create(struct file *file, const struct disk_create_options *options, GError **error)
{
    struct disk disk = {.path = file->path, .size = options->size};
    struct qcow2 q = {.disk = &disk, .file = file};
    struct layout layout;
    take_options(&q, options);
    if (!check_options(&q, options, error))
        return -EINVAL;
    make_layout(&q, options->size, &layout);
    if (layout.l1_entries > QCOW2_MOST_L1 / 8) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Cannot create %s: the disk is too large for its cluster size; take larger clusters", file->path);
        return -EINVAL;
    }
    q.extensions = g_ptr_array_new_with_free_func(g_free);
    int rc = write_image(&q, &layout);
    g_ptr_array_free(q.extensions, TRUE);
    return rc;
}

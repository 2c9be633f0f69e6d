// SPDX-License-Identifier: GPL-2.0-or-later
// The header and its extensions, in the first cluster.
#include "disks/qcow2.h"

#include <errno.h>

enum { HEADER_V2 = 72, HEADER_V3 = 104, HEADER_OURS = 112, MOST_NAME = 1023 };

static bool bad(GError **error, struct qcow2 *q, enum cloche_error code, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, code, "%s cannot be opened: %s", q->disk->path, what);
    return false;
}

#define CORRUPT(what)     bad(error, q, CLOCHE_ERROR_CORRUPT, what)
#define UNSUPPORTED(what) bad(error, q, CLOCHE_ERROR_UNSUPPORTED, what)

static void parse_fixed(struct qcow2 *q, const uint8_t *h)
{
    q->version = load_be32(h + 4);
    q->cluster_bits = load_be32(h + 20);
    q->disk->size = load_be64(h + 24);
    q->l1_size = load_be32(h + 36);
    q->l1_offset = load_be64(h + 40);
    q->reftable_offset = load_be64(h + 48);
    q->reftable_clusters = load_be32(h + 56);
    q->refcount_order = 4;
    if (q->version < 3)
        return;
    q->incompatible = load_be64(h + 72);
    q->compatible = load_be64(h + 80);
    q->autoclear = load_be64(h + 88);
    q->refcount_order = load_be32(h + 96);
    q->compression = q->incompatible & QCOW2_COMPRESSION ? h[104] : 0;
}

static bool check_features(struct qcow2 *q, const uint8_t *h, GError **error)
{
    const uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_EXTERNAL_DATA | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2;
    if (load_be32(h + 32))
        return UNSUPPORTED("it is encrypted; convert it to a plain image with the tool that made it");
    if (q->incompatible & QCOW2_EXTERNAL_DATA)
        return UNSUPPORTED(
            "it keeps its data in an external data file; convert it to a plain qcow2 with qemu-img convert");
    if (q->incompatible & ~known)
        return UNSUPPORTED("it uses a feature that is not known here; convert it with the tool that made it");
    if (q->compression > 1)
        return UNSUPPORTED("its compression method is not known here; convert it with the tool that made it");
    if (q->incompatible & QCOW2_CORRUPT && !q->disk->read_only && !(q->disk->flags & DISK_OPEN_REPAIR))
        return CORRUPT("it is marked as damaged; repair it with cloche-disk check --repair");
    return true;
}

static bool check_geometry(struct qcow2 *q, GError **error)
{
    if (q->version != 2 && q->version != 3)
        return UNSUPPORTED("its qcow version is not 2 or 3; convert it with the tool that made it");
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return CORRUPT("its cluster size is not between 512 bytes and 2 MiB");
    if (q->refcount_order > 6)
        return CORRUPT("its reference counts are wider than 64 bits");
    uint64_t cluster = 1ull << q->cluster_bits, mask = cluster - 1;
    if (q->disk->size > (uint64_t)INT64_MAX - cluster)
        return CORRUPT("its size is beyond 8 EiB");
    if (q->l1_size > QCOW2_MOST_L1 / 8 || q->l1_offset & mask || q->l1_offset > (uint64_t)INT64_MAX / 2)
        return CORRUPT("its L1 table is too large or not aligned");
    if (q->reftable_clusters > (uint64_t)QCOW2_MOST_REFTABLE >> q->cluster_bits || q->reftable_offset & mask ||
        q->reftable_offset > (uint64_t)INT64_MAX / 2)
        return CORRUPT("its refcount table is too large or not aligned");
    if (q->incompatible & QCOW2_EXTENDED_L2 && q->cluster_bits < 14)
        return CORRUPT("it has subclusters in clusters below 16 KiB");
    return true;
}

static void derive(struct qcow2 *q)
{
    q->cluster_size = 1ull << q->cluster_bits;
    q->extended = q->incompatible & QCOW2_EXTENDED_L2;
    q->subclusters = q->extended ? 32 : 1;
    q->subcluster_size = q->cluster_size / q->subclusters;
    q->entry_bits = q->extended ? 4 : 3;
    q->entry_size = 1u << q->entry_bits;
    q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
    q->reftable_size = (q->reftable_clusters << q->cluster_bits) / 8;
    q->header_reftable_offset = q->reftable_offset;
    q->header_reftable_clusters = q->reftable_clusters;
}

// ---- Extensions ----
const struct qcow2_extension *qcow2_extension_find(struct qcow2 *q, uint32_t type)
{
    for (unsigned i = 0; i < q->extensions->len; i++) {
        struct qcow2_extension *extension = q->extensions->pdata[i];
        if (extension->type == type)
            return extension;
    }
    return NULL;
}

void qcow2_extension_set(struct qcow2 *q, uint32_t type, const void *data, uint32_t length)
{
    const struct qcow2_extension *old = qcow2_extension_find(q, type);
    if (old)
        g_ptr_array_remove(q->extensions, (gpointer)old);
    if (!data)
        return;
    struct qcow2_extension *extension = g_malloc(sizeof *extension + length);
    extension->type = type;
    extension->length = length;
    memcpy(extension->data, data, length);
    g_ptr_array_add(q->extensions, extension);
}

static bool parse_extensions(struct qcow2 *q, const uint8_t *cluster, uint64_t at, uint64_t end, GError **error)
{
    while (end - at >= 8) {
        uint32_t type = load_be32(cluster + at), length = load_be32(cluster + at + 4);
        at += 8;
        if (type == QCOW2_EXT_END)
            return true;
        if (length > end - at)
            return CORRUPT("a header extension is longer than the header");
        if (type == QCOW2_EXT_ENCRYPTION)
            return UNSUPPORTED("it is encrypted; convert it to a plain image with the tool that made it");
        qcow2_extension_set(q, type, cluster + at, length);
        at += MIN(ALIGN_UP((uint64_t)length, 8), end - at);
    }
    return true;
}

static bool take_backing(struct qcow2 *q, const uint8_t *cluster, GError **error)
{
    uint64_t offset = load_be64(cluster + 8);
    uint32_t length = load_be32(cluster + 16);
    if (!offset)
        return true;
    if (length == 0 || length > MOST_NAME || offset > q->cluster_size - length)
        return CORRUPT("the name of its base lies outside its header");
    q->disk->backing_path = g_strndup((const char *)cluster + offset, length);
    const struct qcow2_extension *format = qcow2_extension_find(q, QCOW2_EXT_BACKING_FORMAT);
    if (format && format->length && format->length < 64)
        q->disk->backing_format = g_strndup((const char *)format->data, format->length);
    const struct qcow2_extension *identity = qcow2_extension_find(q, QCOW2_EXT_IDENTITY);
    if (identity && identity->length < 1024)
        q->disk->backing_identity = g_strndup((const char *)identity->data, identity->length);
    return true;
}

bool qcow2_header_read(struct qcow2 *q, GError **error)
{
    uint8_t fixed[HEADER_OURS];
    int rc = file_read(q->file, 0, fixed, sizeof fixed);
    if (rc) {
        set_errno_error(error, rc, "Cannot read %s", q->disk->path);
        return false;
    }
    if (load_be32(fixed) != QCOW2_MAGIC)
        return CORRUPT("it is not a qcow2 image");
    parse_fixed(q, fixed);
    if (!check_geometry(q, error) || !check_features(q, fixed, error))
        return false;
    derive(q);
    uint32_t length = q->version < 3 ? HEADER_V2 : load_be32(fixed + 100);
    if (length < (q->version < 3 ? HEADER_V2 : HEADER_V3) || length > q->cluster_size || length % 8)
        return CORRUPT("its header length is not valid");
    g_autofree uint8_t *cluster = g_malloc(q->cluster_size);
    rc = file_read(q->file, 0, cluster, q->cluster_size);
    if (rc) {
        set_errno_error(error, rc, "Cannot read %s", q->disk->path);
        return false;
    }
    uint64_t backing = load_be64(cluster + 8);
    uint64_t end = backing >= length && backing < q->cluster_size ? backing : q->cluster_size;
    return parse_extensions(q, cluster, length, end, error) && take_backing(q, cluster, error) &&
           qcow2_snapshots_read(q, load_be32(cluster + 60), load_be64(cluster + 64), error);
}

// ---- Writing ----
static void put_fixed(struct qcow2 *q, uint8_t *h)
{
    store_be32(h, QCOW2_MAGIC);
    store_be32(h + 4, q->version);
    store_be32(h + 20, q->cluster_bits);
    store_be64(h + 24, q->disk->size);
    store_be32(h + 36, q->l1_size);
    store_be64(h + 40, q->l1_offset);
    store_be64(h + 48, q->header_reftable_offset);
    store_be32(h + 56, q->header_reftable_clusters);
    store_be32(h + 60, q->snapshot_count);
    store_be64(h + 64, q->snapshots_offset);
    if (q->version < 3)
        return;
    store_be64(h + 72, q->incompatible);
    store_be64(h + 80, q->compatible);
    store_be64(h + 88, q->autoclear);
    store_be32(h + 96, q->refcount_order);
    store_be32(h + 100, HEADER_OURS);
    h[104] = q->compression;
}

int qcow2_header_write(struct qcow2 *q)
{
    g_autofree uint8_t *cluster = g_malloc0(q->cluster_size);
    uint64_t at = q->version < 3 ? HEADER_V2 : HEADER_OURS;
    put_fixed(q, cluster);
    for (unsigned i = 0; i < q->extensions->len; i++) {
        const struct qcow2_extension *extension = q->extensions->pdata[i];
        uint64_t length = 8 + ALIGN_UP((uint64_t)extension->length, 8);
        if (length + 8 > q->cluster_size - at) {
            // Small clusters: what only we understand has to go first.
            if (extension->type == QCOW2_EXT_GENERATION || extension->type == QCOW2_EXT_IDENTITY ||
                extension->type == QCOW2_EXT_FEATURES)
                continue;
            return -ENOSPC;
        }
        store_be32(cluster + at, extension->type);
        store_be32(cluster + at + 4, extension->length);
        memcpy(cluster + at + 8, extension->data, extension->length);
        at += length;
    }
    at += 8; // the end mark
    if (q->disk->backing_path) {
        size_t length = strlen(q->disk->backing_path);
        if (length > MOST_NAME || length > q->cluster_size - at)
            return -ENAMETOOLONG;
        store_be64(cluster + 8, at);
        store_be32(cluster + 16, length);
        memcpy(cluster + at, q->disk->backing_path, length);
        at += length;
    }
    return file_write(q->file, 0, cluster, MIN(ALIGN_UP(at, 512), q->cluster_size));
}

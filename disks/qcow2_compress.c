// SPDX-License-Identifier: GPL-2.0-or-later
// Compressed clusters: read anywhere, written once by conversions.
#include "disks/qcow2.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

void qcow2_compressed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned size_shift = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (entry >> size_shift & ((1ull << (q->cluster_bits - 8)) - 1)) + 1;
    *offset = entry & ((1ull << size_shift) - 1);
    *length = sectors * 512 - (*offset & 511);
}

static int unpack_zlib(const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length)
{
    z_stream stream = {.next_in = (uint8_t *)in, .avail_in = in_length, .next_out = out, .avail_out = out_length};
    if (inflateInit2(&stream, -12) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    // Bytes of the next cluster may follow in the last sector.
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && stream.avail_out == 0 ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context)
        return -ENOMEM;
    ZSTD_inBuffer input = {in, in_length, 0};
    ZSTD_outBuffer output = {out, out_length, 0};
    int rc = 0;
    while (output.pos < output.size) {
        size_t before = output.pos, consumed = input.pos;
        size_t n = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(n) || (output.pos == before && input.pos == consumed)) {
            rc = -EIO;
            break;
        }
    }
    ZSTD_freeDCtx(context);
    return rc;
}

static int unpack(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t offset, length;
    qcow2_compressed_range(q, entry, &offset, &length);
    if (offset >= file_size(q->file) || length > 2 * q->cluster_size)
        return -EIO;
    g_autofree uint8_t *packed = g_try_malloc(length);
    if (!packed)
        return -ENOMEM;
    int rc = file_read(q->file, offset, packed, length);
    if (!rc)
        rc = q->compression ? unpack_zstd(packed, length, out, q->cluster_size)
                            : unpack_zlib(packed, length, out, q->cluster_size);
    if (rc == -EIO)
        log_guest("disks", "%s is damaged: a compressed cluster cannot be unpacked", q->disk->path);
    return rc;
}

static int entry_at(struct qcow2 *q, uint64_t offset, uint64_t *entry)
{
    struct qcow2_slice *slice;
    unsigned index;
    int rc = qcow2_slice_at(q, offset, true, &slice, &index);
    *entry = !rc && slice ? qcow2_entry_get(q, slice, index).entry : 0;
    return rc;
}

int qcow2_read_compressed(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
    struct qcow2 *q = disk->state;
    uint64_t in_cluster = offset & (q->cluster_size - 1), length = iov_length(iov, iov_count), entry;
    pthread_mutex_lock(&q->lock);
    int rc = entry_at(q, offset, &entry);
    bool compressed = entry & QCOW2_COMPRESSED, hit = q->unpacked && q->unpacked_entry == entry;
    if (!rc && compressed && hit)
        iov_from_buffer(iov, iov_count, 0, q->unpacked + in_cluster, length);
    unsigned generation = q->unpacked_generation;
    pthread_mutex_unlock(&q->lock);
    if (rc || (compressed && hit))
        return rc;
    if (!compressed) // overwritten since it was looked up
        return disk_readv(disk, offset, length, iov, iov_count);
    uint8_t *data = g_try_malloc(q->cluster_size);
    if (!data)
        return -ENOMEM;
    rc = unpack(q, entry, data);
    if (rc) {
        g_free(data);
        return rc;
    }
    iov_from_buffer(iov, iov_count, 0, data + in_cluster, length);
    pthread_mutex_lock(&q->lock);
    if (generation == q->unpacked_generation) {
        uint8_t *old = q->unpacked;
        q->unpacked = data;
        q->unpacked_entry = entry;
        data = old;
    }
    pthread_mutex_unlock(&q->lock);
    g_free(data);
    return 0;
}

// ---- Writing ----
static size_t pack_zlib(const void *in, size_t in_length, uint8_t *out, size_t room)
{
    z_stream stream = {.next_in = (uint8_t *)in, .avail_in = in_length, .next_out = out, .avail_out = room};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    int rc = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return rc == Z_STREAM_END ? room - stream.avail_out : 0;
}

static size_t pack_zstd(const void *in, size_t in_length, uint8_t *out, size_t room)
{
    size_t n = ZSTD_compress(out, room, in, in_length, 3);
    return ZSTD_isError(n) ? 0 : n;
}

// Room for LENGTH bytes: after the last compressed ones where it fits, else in new clusters. Counts the references.
static int pack_room(struct qcow2 *q, uint64_t length, uint64_t *offset)
{
    uint64_t mask = q->cluster_size - 1, count;
    uint64_t left = q->pack_offset & mask ? q->cluster_size - (q->pack_offset & mask) : 0;
    uint64_t here = q->pack_offset;
    int rc = 0;
    if (left >= length) {
        rc = qcow2_refcount_get(q, here >> q->cluster_bits, &count);
        if (!rc)
            rc = qcow2_refcount_add(q, here >> q->cluster_bits, 1);
    }
    if (left < length || rc == -ERANGE) { // the counter is full
        rc = qcow2_allocate(q, 1, NULL, &here);
    }
    if (rc)
        return rc;
    *offset = here;
    q->pack_offset = here + length;
    return 0;
}

static int write_packed(struct qcow2 *q, uint64_t offset, const uint8_t *packed, uint64_t length)
{
    struct qcow2_slice *slice;
    unsigned index, size_shift = 62 - (q->cluster_bits - 8);
    uint64_t at = 0;
    pthread_mutex_lock(&q->lock);
    int rc = pack_room(q, length, &at);
    pthread_mutex_unlock(&q->lock);
    if (!rc)
        rc = file_write(q->file, at, packed, length);
    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = qcow2_slice_for_change(q, offset, &slice, &index);
    if (!rc) {
        uint64_t sectors = ((at + length - 1) >> 9) - (at >> 9);
        qcow2_free_entry(q, qcow2_entry_get(q, slice, index));
        qcow2_entry_set(q, slice, index, (struct qcow2_entry){QCOW2_COMPRESSED | sectors << size_shift | at, 0});
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_write_compressed(struct disk *disk, uint64_t offset, const void *data, uint64_t length)
{
    struct qcow2 *q = disk->state;
    g_autofree uint8_t *padded = NULL;
    if (offset & (q->cluster_size - 1) || length > q->cluster_size)
        return -EINVAL;
    if (length < q->cluster_size) {
        padded = g_malloc0(q->cluster_size);
        memcpy(padded, data, length);
    }
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    g_autofree uint8_t *packed = g_malloc(q->cluster_size);
    size_t n = q->compression ? pack_zstd(padded ? padded : data, q->cluster_size, packed, q->cluster_size - 1)
                              : pack_zlib(padded ? padded : data, q->cluster_size, packed, q->cluster_size - 1);
    if (rc)
        return rc;
    if (!n) // does not get smaller
        return qcow2_write(disk, offset, length, &(struct iovec){(void *)data, length}, 1);
    rc = write_packed(q, offset, packed, n);
    return rc ? rc : qcow2_throttle(q);
}

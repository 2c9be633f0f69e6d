// SPDX-License-Identifier: GPL-2.0-or-later
// VirtualBox disk images: dynamic and fixed ones are read and written, differencing ones read.
// Layout after the public description of the format ("VDI format", VirtualBox forum, and its headers' field names).
#include "disks/check.h"
#include "disks/create.h"
#include "disks/info.h"
#include "disks/vdi.h"

#include <errno.h>
#include <string.h>

static bool vdi_probe(const struct probe *probe)
{
    return probe->head_length >= VDI_HEADER && load_le(probe->head + VDI_SIGNATURE_AT, 4) == VDI_SIGNATURE;
}

// ---- The block map ----
static enum grain_kind vdi_kind(struct grains *g, uint32_t entry, uint64_t *offset)
{
    struct vdi *v = g->opaque;
    if (entry == VDI_NONE)
        return GRAIN_NONE;
    if (entry == VDI_ZERO)
        return GRAIN_ZERO;
    *offset = v->data_at + entry * v->block_size;
    return *offset < file_size(g->file) ? GRAIN_DATA : GRAIN_INVALID;
}

static int vdi_allocate(struct grains *g, uint64_t grain, uint32_t *entry)
{
    struct vdi *v = g->opaque;
    uint64_t end = v->data_at + v->allocated * v->block_size, place;
    if (v->allocated >= VDI_ZERO)
        return -EFBIG;
    int rc = grains_append(g, &end, v->block_size, 1, &place);
    if (rc)
        return rc;
    *entry = v->allocated++;
    g->header_dirty = true;
    return 0;
}

// The count of blocks goes out before the map that needs it.
static int vdi_before_store(struct grains *g)
{
    struct vdi *v = g->opaque;
    store_le(v->header + VDI_ALLOCATED, 4, v->allocated);
    int rc = file_write(g->file, 0, v->header, VDI_HEADER);
    g->header_dirty = rc != 0;
    return rc;
}

// ---- Opening ----
static bool refuse(struct disk *disk, GError **error, enum cloche_error code, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, code, "%s cannot be opened: %s", disk->path, what);
    return false;
}

static bool check_header(struct disk *disk, struct vdi *v, GError **error)
{
    if (vdi_get32(v, VDI_SIGNATURE_AT) != VDI_SIGNATURE)
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "it is not a VDI image");
    if (vdi_get32(v, VDI_VERSION) >> 16 != 1 || vdi_get32(v, VDI_SECTOR_SIZE) != 512)
        return refuse(disk, error, CLOCHE_ERROR_UNSUPPORTED,
                      "its VDI version is not known; convert it with VBoxManage");
    if (v->type != VDI_DYNAMIC && v->type != VDI_FIXED && v->type != VDI_DIFFERENCING)
        return refuse(disk, error, CLOCHE_ERROR_UNSUPPORTED,
                      "its VDI variant is not known; convert it with VBoxManage");
    uint64_t blocks = v->grains.count, block = v->block_size;
    if (block < 4096 || block > 64 * MiB || block & (block - 1) || vdi_get32(v, VDI_BLOCK_EXTRA))
        return refuse(disk, error, CLOCHE_ERROR_UNSUPPORTED,
                      "its block size is not a power of two from 4 KiB to 64 MiB");
    if (disk->size % 512 || disk->size > blocks * block || blocks > disk->size / block + 1)
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its size and its number of blocks do not fit together");
    if (v->map_at < VDI_HEADER || v->map_at % 512 || v->data_at % 512 || v->data_at < v->map_at + blocks * 4 ||
        v->map_at + blocks * 4 > ALIGN_UP(file_size(disk->file), 512))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its block map lies outside the file");
    return true;
}

// The number of places that are given out; a crash may have left the header's count behind.
static bool count_allocated(struct disk *disk, struct vdi *v, GError **error)
{
    uint64_t top;
    int rc = grains_top(&v->grains, &top);
    if (rc) {
        set_errno_error(error, rc, "Cannot read the block map of %s", disk->path);
        return false;
    }
    if (top > v->grains.count + vdi_spare_places(v))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT,
                      "its block map has places past the end; run cloche-disk check");
    v->allocated = top;
    v->grains.header_dirty = v->allocated != vdi_get32(v, VDI_ALLOCATED);
    return true;
}

// A differencing image names its parent by UUID alone: it is looked for in the same folder.
static void find_parent(struct disk *disk, struct vdi *v)
{
    g_autofree char *folder = g_path_get_dirname(disk->path);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && !disk->backing_path && (name = g_dir_read_name(dir))) {
        uint8_t header[VDI_HEADER];
        if (!g_str_has_suffix(name, ".vdi") && !g_str_has_suffix(name, ".VDI"))
            continue;
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (!g_file_test(path, G_FILE_TEST_IS_REGULAR))
            continue;
        struct file *file = file_open(path, FILE_OPEN_NO_LOCK, NULL, NULL);
        if (file && file_read(file, 0, header, sizeof header) == 0 &&
            load_le(header + VDI_SIGNATURE_AT, 4) == VDI_SIGNATURE &&
            memcmp(header + VDI_UUID, v->header + VDI_UUID_PARENT, 16) == 0)
            disk->backing_path = g_strdup(name);
        file_close(file);
    }
    if (dir)
        g_dir_close(dir);
    disk->backing_format = disk->backing_path ? g_strdup("vdi") : NULL;
}

static bool open_parent(struct disk *disk, struct vdi *v, GError **error)
{
    disk->read_only_reason = g_strdup("differencing VDI images are only read here; make a qcow2 overlay on top of it");
    find_parent(disk, v);
    if (disk->backing_path || disk->flags & DISK_OPEN_NO_BACKING)
        return true;
    return refuse(disk, error, CLOCHE_ERROR_NOT_FOUND,
                  "the image that it is the difference to is not in its folder; put that VDI file there");
}

static bool vdi_open(struct disk *disk, GError **error)
{
    struct vdi *v = disk->state = g_new0(struct vdi, 1);
    v->grains.disk = disk;
    int rc = file_read(disk->file, 0, v->header, VDI_HEADER);
    if (rc) {
        set_errno_error(error, rc, "Cannot read %s", disk->path);
        return false;
    }
    v->type = vdi_get32(v, VDI_TYPE);
    v->map_at = vdi_get32(v, VDI_MAP_AT);
    v->data_at = vdi_get32(v, VDI_DATA_AT);
    v->block_size = vdi_get32(v, VDI_BLOCK_SIZE);
    disk->size = load_le(v->header + VDI_DISK_SIZE, 8);
    v->grains = (struct grains){.disk = disk,
                                .file = disk->file,
                                .opaque = v,
                                .grain_size = v->block_size,
                                .none = VDI_NONE,
                                .count = vdi_get32(v, VDI_BLOCKS),
                                .per_page = 1024,
                                .table_at = v->map_at,
                                .load = grains_load,
                                .store = grains_store,
                                .kind = vdi_kind,
                                .allocate = vdi_allocate,
                                .before_store = vdi_before_store};
    for (unsigned i = 0; i < 16; i++)
        g_snprintf(v->generation + 2 * i, 3, "%02x", v->header[VDI_UUID_MODIFY + i]);
    if (!check_header(disk, v, error)) {
        v->grains.count = 0;
        return false;
    }
    if (!grains_init(&v->grains, error))
        return false;
    if (v->type == VDI_DIFFERENCING)
        return open_parent(disk, v, error);
    return disk->read_only || disk->flags & DISK_OPEN_REPAIR || count_allocated(disk, v, error);
}

static bool vdi_check_base(struct disk *disk, GError **error)
{
    struct vdi *v = disk->state, *parent = disk->backing->state;
    if (memcmp(v->header + VDI_UUID_PARENT_MODIFY, parent->header + VDI_UUID_MODIFY, 16) == 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                "The base %s was changed after %s was made on top of it: put the unchanged base back",
                disk->backing->path, disk->path);
    return false;
}

static void vdi_close(struct disk *disk)
{
    struct vdi *v = disk->state;
    grains_free(&v->grains);
    g_free(v);
}

// ---- Requests ----
static void new_uuid(uint8_t *out)
{
    for (unsigned i = 0; i < 4; i++)
        store_le(out + 4 * i, 4, g_random_int());
    out[7] = (out[7] & 0x0f) | 0x40;
    out[8] = (out[8] & 0x3f) | 0x80;
}

static int vdi_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct vdi *v = disk->state;
    int rc = grains_map(&v->grains, offset, length, flags, extent);
    if (!rc)
        extent->writable &= v->marked;
    return rc;
}

int vdi_mark(struct vdi *v)
{
    struct grains *g = &v->grains;
    pthread_mutex_lock(&g->allocate_lock);
    int rc = 0;
    if (!v->marked) {
        new_uuid(v->header + VDI_UUID_MODIFY);
        rc = file_write(g->file, 0, v->header, VDI_HEADER);
        v->marked = !rc;
    }
    pthread_mutex_unlock(&g->allocate_lock);
    return rc;
}

static int vdi_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    struct vdi *v = disk->state;
    int rc = v->marked ? 0 : vdi_mark(v);
    return rc ? rc : grains_write(&v->grains, offset, length, iov, iov_count);
}

static int vdi_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct vdi *v = disk->state;
    int rc = v->marked ? 0 : vdi_mark(v);
    return rc ? rc : grains_zero(&v->grains, offset, length, flags);
}

static int vdi_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return vdi_zero(disk, offset, length, DISK_MAY_UNMAP);
}

static int vdi_flush(struct disk *disk)
{
    return grains_flush(&((struct vdi *)disk->state)->grains);
}

// ---- What it is ----
static void vdi_info(struct disk *disk, struct disk_info *info)
{
    struct vdi *v = disk->state;
    static const char *const variants[] = {
        [VDI_DYNAMIC] = "dynamic", [VDI_FIXED] = "fixed", [VDI_DIFFERENCING] = "differencing"};
    info->variant = g_strdup(variants[v->type]);
    info->cluster_size = v->block_size;
}

static uint64_t vdi_cluster_size(struct disk *disk)
{
    return ((struct vdi *)disk->state)->block_size;
}

static const char *vdi_generation(struct disk *disk)
{
    return ((struct vdi *)disk->state)->generation;
}

static void make_header(uint8_t *h, uint64_t size, bool fixed, uint64_t blocks, uint64_t data_at)
{
    strcpy((char *)h, "<<< Cloche VM Virtual Disk Image >>>\n");
    store_le(h + VDI_SIGNATURE_AT, 4, VDI_SIGNATURE);
    store_le(h + VDI_VERSION, 4, 0x00010001);
    store_le(h + VDI_HEADER_SIZE, 4, 0x190);
    store_le(h + VDI_TYPE, 4, fixed ? VDI_FIXED : VDI_DYNAMIC);
    store_le(h + VDI_MAP_AT, 4, VDI_HEADER);
    store_le(h + VDI_DATA_AT, 4, data_at);
    store_le(h + VDI_SECTOR_SIZE, 4, 512);
    store_le(h + VDI_DISK_SIZE, 8, size);
    store_le(h + VDI_BLOCK_SIZE, 4, MiB);
    store_le(h + VDI_BLOCKS, 4, blocks);
    store_le(h + VDI_ALLOCATED, 4, fixed ? blocks : 0);
    new_uuid(h + VDI_UUID);
    new_uuid(h + VDI_UUID_MODIFY);
}

static int vdi_create(struct file *file, const struct disk_create_options *options, GError **error)
{
    uint64_t blocks = (options->size + MiB - 1) / MiB, data_at = ALIGN_UP(VDI_HEADER + blocks * 4, MiB);
    if (blocks > VDI_MOST_BLOCKS) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "A VDI image cannot be larger than 512 TiB: use qcow2");
        return -EINVAL;
    }
    g_autofree uint32_t *map = g_new(uint32_t, blocks + 1);
    for (uint64_t i = 0; i < blocks; i++)
        map[i] = GUINT32_TO_LE(options->preallocate ? i : VDI_NONE);
    uint8_t header[VDI_HEADER] = {0};
    make_header(header, options->size, options->preallocate, blocks, data_at);
    uint64_t length = data_at + (options->preallocate ? blocks * MiB : 0);
    int rc = file_truncate(file, length);
    if (!rc && options->preallocate && blocks)
        rc = file_allocate(file, data_at, blocks * MiB);
    if (!rc)
        rc = file_write(file, VDI_HEADER, map, blocks * 4);
    return rc ? rc : file_write(file, 0, header, sizeof header);
}

// ---- Check: each block has one place, inside the file; no place is left out; the header's count agrees ----
struct vdi_check {
    struct disk *disk;
    struct vdi *v;
    struct disk_check_result *result;
    uint32_t *owner; // of each place: block + 1, or 0
    uint64_t most;   // places that there can be
    uint64_t places; // one past the highest in use
};

static int find_owners(struct vdi_check *c)
{
    struct grains *g = &c->v->grains;
    int rc = 0;
    for (uint64_t i = 0; i < g->count && !rc; i++) {
        uint32_t entry;
        rc = grains_entry(g, i, true, &entry);
        if (rc || entry >= VDI_ZERO)
            continue;
        bool outside = entry >= c->most || c->v->data_at + entry * c->v->block_size >= file_size(c->disk->file);
        if (outside || c->owner[entry]) {
            c->result->corruptions++;
            disk_check_note(c->result, "Block %u %s", (unsigned)i,
                            outside ? "lies outside the file" : "shares its place with another");
            continue;
        }
        c->owner[entry] = i + 1;
        c->result->clusters_used++;
        c->places = MAX(c->places, (uint64_t)entry + 1);
    }
    return rc;
}

static int write_entry(struct vdi *v, uint64_t block, uint32_t place)
{
    uint8_t entry[4];
    store_le(entry, 4, place);
    int rc = file_write(v->grains.file, v->map_at + block * 4, entry, 4);
    return rc ? rc : file_sync(v->grains.file);
}

// The last block moves to the place that nobody uses: data first, then the map, then the count.
static int fill_place(struct vdi_check *c, uint64_t place)
{
    struct vdi *v = c->v;
    g_autofree void *data = g_malloc(v->block_size);
    uint64_t last = c->places - 1, block = c->owner[last] - 1;
    int rc = file_read(c->disk->file, v->data_at + last * v->block_size, data, v->block_size);
    if (!rc)
        rc = file_write(c->disk->file, v->data_at + place * v->block_size, data, v->block_size);
    if (!rc)
        rc = file_sync(c->disk->file);
    if (!rc)
        rc = write_entry(v, block, place);
    c->owner[place] = block + 1;
    c->owner[last] = 0;
    while (c->places && !c->owner[c->places - 1])
        c->places--;
    return rc;
}

static int check_places(struct vdi_check *c, bool repair)
{
    int rc = 0;
    for (uint64_t place = 0; place < c->places && !rc; place++) {
        if (c->owner[place])
            continue;
        c->result->leaks++;
        disk_check_note(c->result, "No block uses place %u", (unsigned)place);
        if (repair && (rc = fill_place(c, place)) == 0)
            c->result->leaks_fixed++;
    }
    return rc;
}

static int check_count(struct vdi_check *c, bool repair)
{
    uint64_t stored = vdi_get32(c->v, VDI_ALLOCATED);
    if (stored == c->places)
        return 0;
    disk_check_note(c->result, "The header counts %u blocks where %u are in use", (unsigned)stored,
                    (unsigned)c->places);
    bool leak = stored > c->places;
    *(leak ? &c->result->leaks : &c->result->corruptions) += 1;
    if (!repair)
        return 0;
    c->v->allocated = c->places;
    *(leak ? &c->result->leaks_fixed : &c->result->corruptions_fixed) += 1;
    int rc = vdi_before_store(&c->v->grains);
    return rc ? rc : file_sync(c->disk->file);
}

static bool vdi_check(struct disk *disk, bool repair, struct disk_check_result *result, struct job *job, GError **error)
{
    struct vdi *v = disk->state;
    uint64_t most = v->grains.count + vdi_spare_places(v);
    g_autofree uint32_t *owner = g_try_new0(uint32_t, most);
    struct vdi_check c = {.disk = disk, .v = v, .result = result, .owner = owner, .most = most};
    result->clusters_total = v->grains.count;
    int rc = owner ? find_owners(&c) : -ENOMEM;
    if (!rc)
        rc = check_places(&c, repair && !result->corruptions);
    if (!rc)
        rc = check_count(&c, repair && !result->corruptions);
    if (rc)
        set_errno_error(error, rc, "Cannot check %s", disk->path);
    return rc == 0;
}

const struct disk_driver vdi_driver = {
    .name = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .map = vdi_map,
    .write = vdi_write,
    .zero = vdi_zero,
    .discard = vdi_discard,
    .flush = vdi_flush,
    .resize = vdi_resize,
    .size_limit = "a VDI image ends at 512 TiB; convert it to qcow2",
    .info = vdi_info,
    .create = vdi_create,
    .check = vdi_check,
    .check_base = vdi_check_base,
    .cluster_size = vdi_cluster_size,
    .generation = vdi_generation,
};

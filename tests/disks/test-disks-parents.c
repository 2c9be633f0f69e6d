// SPDX-License-Identifier: GPL-2.0-or-later
// Images that are only read here: differencing VDI and VHD, built by this test after the formats' descriptions (no tool
// that makes them is free and at hand), VMDK with a parent and VMDK in 2 GiB pieces, made by qemu-img. A parent that is
// missing, another one or changed is refused by name. CLOCHE_KEEP=FOLDER keeps copies for the fuzzers' corpus.
#include "disks/be.h"
#include "disks/create.h"
#include "disks/tools.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (8 * MiB)

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-parents-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    const char *keep = getenv("CLOCHE_KEEP");
    if (keep)
        run_command(false, "cp %s/child* %s", folder, keep);
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
}

static char *path_of(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static void expect_refusal(const char *path, const char *words)
{
    GError *error = NULL;
    struct disk *disk = disk_open(path, NULL, DISK_OPEN_READ_ONLY, &error);
    ck_assert_msg(!disk, "%s was opened", path);
    ck_assert_msg(strstr(error->message, words) != NULL, "%s", error->message);
    g_error_free(error);
}

// The image at PATH shows MIRROR, is read-only, and says why.
static void expect_contents(const char *path, const uint8_t *mirror, const char *why)
{
    GError *error = NULL;
    struct disk *disk = disk_open(path, NULL, 0, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    ck_assert(disk_read_only(disk));
    ck_assert_msg(disk_read_only_reason(disk) && strstr(disk_read_only_reason(disk), why), "%s",
                  disk_read_only_reason(disk));
    ck_assert_uint_eq(disk_size(disk), SIZE);
    g_autofree uint8_t *now = g_malloc(SIZE);
    ck_assert_int_eq(disk_read(disk, 0, now, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i += 512)
        ck_assert_msg(memcmp(now + i, mirror + i, 512) == 0, "sector %u starts with %02x, not with %02x", i / 512,
                      now[i], mirror[i]);
    GRand *random = g_rand_new_with_seed(1); // and in pieces, over the borders
    for (unsigned i = 0; i < 500; i++) {
        uint64_t at = g_rand_int(random) % (SIZE / 512) * 512;
        uint64_t length = g_rand_int_range(random, 1, 300) * 512;
        length = MIN(length, SIZE - at);
        ck_assert_int_eq(disk_read(disk, at, now, length), 0);
        ck_assert_int_eq(memcmp(now, mirror + at, length), 0);
    }
    g_rand_free(random);
    ck_assert_int_eq(disk_write(disk, 0, now, 512), -EROFS);
    disk_close(disk);
    // A qcow2 overlay on top of it is how it is written.
    g_autofree char *top = path_of("top.qcow2"), *name = g_path_get_basename(path);
    struct disk_create_options options = {.backing = name, .force = true};
    ck_assert_msg(disk_create(top, &options, &error), "%s", error ? error->message : "");
    disk = disk_open(top, NULL, 0, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    ck_assert_int_eq(disk_write(disk, SIZE / 2, now, 512), 0);
    disk_close(disk);
}

// ---- A parent with data here and there ----
static uint8_t *make_parent(const char *path, const char *format)
{
    struct disk_create_options options = {.format = format, .size = SIZE};
    uint8_t *mirror = g_malloc0(SIZE);
    ck_assert(disk_create(path, &options, NULL));
    struct disk *disk = disk_open(path, format, 0, NULL);
    GRand *random = g_rand_new_with_seed(4);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t at = g_rand_int(random) % (SIZE / 512 - 64) * 512;
        memset(mirror + at, 1 + i, 64 * 512);
        ck_assert_int_eq(disk_write(disk, at, mirror + at, 64 * 512), 0);
    }
    g_rand_free(random);
    disk_close(disk);
    return mirror;
}

static void write_file(const char *path, const void *data, size_t length)
{
    ck_assert(g_file_set_contents(path, data, length, NULL));
}

static uint8_t *read_head(const char *path, size_t length)
{
    uint8_t *data = g_malloc(length);
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(pread(fd, data, length, 0), (ssize_t)length);
    close(fd);
    return data;
}

// ---- VDI: blocks are here, zero (-2) or the parent's (-1) ----
enum { VDI_TYPE = 0x4c, VDI_ALLOCATED = 0x184, VDI_UUID = 0x188, VDI_MODIFY = 0x198, VDI_PARENT = 0x1a8 };
enum { VDI_PARENT_MODIFY = 0x1b8, VDI_MAP = 512, VDI_DATA = 1024 * 1024, VDI_BLOCK = 1024 * 1024 };

static void make_vdi_child(const char *path, const char *parent, uint8_t *mirror, uint8_t stamp)
{
    g_autofree uint8_t *head = read_head(parent, 512), *file = g_malloc0(VDI_DATA + 2 * VDI_BLOCK);
    memcpy(file, head, 512);
    store_le(file + VDI_TYPE, 4, 4);
    memcpy(file + VDI_PARENT, head + VDI_UUID, 16);
    memcpy(file + VDI_PARENT_MODIFY, head + VDI_MODIFY, 16);
    memset(file + VDI_UUID, stamp, 32);
    store_le(file + VDI_ALLOCATED, 4, 2);
    for (unsigned i = 0; i < SIZE / VDI_BLOCK; i++)
        store_le(file + VDI_MAP + 4 * i, 4, 0xffffffff);
    unsigned zero = stamp % 8, first = (stamp + 3) % 8, second = (stamp + 1) % 8;
    store_le(file + VDI_MAP + 4 * zero, 4, 0xfffffffe);
    store_le(file + VDI_MAP + 4 * first, 4, 1);
    store_le(file + VDI_MAP + 4 * second, 4, 0);
    memset(mirror + zero * VDI_BLOCK, 0, VDI_BLOCK);
    for (unsigned i = 0; i < VDI_BLOCK; i++) {
        mirror[first * VDI_BLOCK + i] = file[VDI_DATA + VDI_BLOCK + i] = stamp ^ i >> 9;
        mirror[second * VDI_BLOCK + i] = file[VDI_DATA + i] = stamp + (i >> 10);
    }
    write_file(path, file, VDI_DATA + 2 * VDI_BLOCK);
}

START_TEST(vdi_differencing)
{
    g_autofree char *parent = path_of("parent.vdi"), *child = path_of("child.vdi"), *second = path_of("second.vdi");
    g_autofree char *moved = path_of("moved"), *image = path_of("image.qcow2");
    g_autofree uint8_t *mirror = make_parent(parent, "vdi");
    make_vdi_child(child, parent, mirror, 0x42);
    expect_contents(child, mirror, "differencing");
    make_vdi_child(second, child, mirror, 0x17); // of three
    expect_contents(second, mirror, "differencing");
    struct disk_convert_options options = {.target.format = "qcow2"};
    ck_assert(disk_convert(second, image, &options, NULL, NULL));
    struct disk *disk = disk_open(image, NULL, 0, NULL);
    g_autofree uint8_t *now = g_malloc(SIZE);
    ck_assert_int_eq(disk_read(disk, 0, now, SIZE), 0);
    ck_assert_int_eq(memcmp(now, mirror, SIZE), 0);
    disk_close(disk);
    ck_assert_int_eq(g_rename(parent, moved), 0);
    expect_refusal(second, "not in its folder");
    ck_assert_int_eq(g_rename(moved, parent), 0);
    disk = disk_open(parent, NULL, 0, NULL);
    ck_assert_int_eq(disk_write(disk, 0, mirror, 512), 0);
    disk_close(disk);
    expect_refusal(child, "was changed after");
}
END_TEST

// ---- VHD: a bit for each sector says whether it is here or in the parent ----
enum { VHD_BLOCK = 2 * 1024 * 1024, VHD_TABLE = 512 + 1024, VHD_FIRST = VHD_TABLE + 512 };

static void put_checksum(uint8_t *data, unsigned length, unsigned at)
{
    uint32_t sum = 0;
    store_be32(data + at, 0);
    for (unsigned i = 0; i < length; i++)
        sum += data[i];
    store_be32(data + at, ~sum);
}

static bool is_in_child(unsigned sector, uint8_t stamp)
{
    return sector % 7 == stamp % 7 || (sector / 100) % 3 == 1;
}

static void make_vhd_child(const char *path, const char *parent, const char *name, uint8_t *mirror, uint8_t stamp)
{
    enum { BLOCKS = SIZE / VHD_BLOCK, USED = 2, STEP = 512 + VHD_BLOCK };
    size_t length = VHD_FIRST + USED * STEP + 512;
    g_autofree uint8_t *file = g_malloc0(length), *footer = read_head(parent, 512);
    uint8_t *header = file + 512;
    memcpy(header, "cxsparse", 8);
    store_be64(header + 8, UINT64_MAX);
    store_be64(header + 16, VHD_TABLE);
    store_be32(header + 24, 0x10000);
    store_be32(header + 28, BLOCKS);
    store_be32(header + 32, VHD_BLOCK);
    memcpy(header + 40, footer + 68, 16); // the parent's identity
    for (unsigned i = 0; name[i]; i++)
        store_be16(header + 64 + 2 * i, name[i]);
    put_checksum(header, 1024, 36);
    store_be32(footer + 60, 4);
    memset(footer + 68, stamp, 16);
    put_checksum(footer, 512, 64);
    memset(file + VHD_TABLE, 0xff, 512);
    for (unsigned n = 0; n < USED; n++) {
        unsigned block = (stamp + 2 * n) % BLOCKS;
        uint8_t *bitmap = file + VHD_FIRST + n * STEP;
        store_be32(file + VHD_TABLE + 4 * block, (VHD_FIRST + n * STEP) / 512);
        for (unsigned sector = 0; sector < VHD_BLOCK / 512; sector++) {
            memset(bitmap + 512 + sector * 512, 0xee, 512); // must not show where the bit is not set
            if (!is_in_child(sector, stamp))
                continue;
            bitmap[sector / 8] |= 0x80 >> sector % 8;
            memset(bitmap + 512 + sector * 512, stamp ^ sector, 512);
            memset(mirror + (uint64_t)block * VHD_BLOCK + sector * 512, stamp ^ sector, 512);
        }
    }
    memcpy(file, footer, 512);
    memcpy(file + length - 512, footer, 512);
    write_file(path, file, length);
}

START_TEST(vhd_differencing)
{
    g_autofree char *parent = path_of("parent.vhd"), *child = path_of("child.vhd"), *second = path_of("second.vhd");
    g_autofree char *moved = path_of("moved"), *other = path_of("other.vhd");
    g_autofree uint8_t *mirror = make_parent(parent, "vhd");
    make_vhd_child(child, parent, "C:\\Disks\\parent.vhd", mirror, 0x31);
    expect_contents(child, mirror, "differencing");
    make_vhd_child(second, child, "child.vhd", mirror, 0x54); // of three
    expect_contents(second, mirror, "differencing");
    ck_assert_int_eq(g_rename(parent, moved), 0);
    expect_refusal(second, "is missing");
    g_free(make_parent(parent, "vhd")); // of the same name and contents, but not the one
    expect_refusal(second, "is not the image that");
}
END_TEST

// ---- VMDK ----
START_TEST(vmdk_parent)
{
    static const char *const kinds[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"};
    g_autofree char *parent = path_of("parent.vmdk"), *child = path_of("child.vmdk"), *raw = path_of("raw");
    ck_assert_int_eq(run_command(true, "qemu-img create -q -f vmdk -o subformat=%s %s 8M", kinds[_i], parent), 0);
    ck_assert_int_eq(
        run_command(true, "qemu-io -f vmdk -c 'write -P 1 0 1M' -c 'write -P 2 3M 100k' -c 'write -P 3 7M 1M' %s",
                    parent),
        0);
    if (run_command(false, "qemu-img create -q -f vmdk -F vmdk -b parent.vmdk %s", child))
        return; // qemu-img makes children of sparse parents only
    ck_assert_int_eq(run_command(true,
                                 "qemu-io -f vmdk -c 'write -P 9 512k 1M' -c 'write -P 8 3090k 3k' "
                                 "-c 'write -P 7 5M 512' %s",
                                 child),
                     0);
    ck_assert_int_eq(run_command(true, "qemu-img convert -f vmdk -O raw %s %s", child, raw), 0);
    g_autofree char *mirror = NULL;
    gsize length;
    ck_assert(g_file_get_contents(raw, &mirror, &length, NULL));
    ck_assert_uint_eq(length, SIZE);
    expect_contents(child, (uint8_t *)mirror, "with a parent");
    g_autofree char *moved = path_of("moved");
    ck_assert_int_eq(g_rename(parent, moved), 0);
    expect_refusal(child, "is missing");
    ck_assert_int_eq(g_rename(moved, parent), 0);
    if (_i == 0) {
        struct disk *disk = disk_open(parent, NULL, 0, NULL);
        ck_assert_int_eq(disk_write(disk, 0, mirror, 512), 0);
        disk_close(disk);
        expect_refusal(child, "was changed after");
    }
}
END_TEST

// A dynamic VHD of another program's, whose block lacks some sectors: those read as zeroes until they are written to,
// and after that the bitmap says that the block has all of them.
START_TEST(vhd_absent_sectors)
{
    g_autofree char *path = path_of("absent.vhd");
    uint8_t header[4], bitmap[512], data[64 * KiB], expected[64 * KiB];
    ck_assert_int_eq(run_command(true, "qemu-img create -q -f vpc -o force_size=on %s 8M", path), 0);
    ck_assert_int_eq(run_command(true, "qemu-io -f vpc -c 'write -P 7 2M 64k' %s", path), 0);
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, header, 4, 1536 + 4), 4); // the second block's entry
    uint64_t block = load_be32(header) * 512ull;
    ck_assert_int_eq(pread(fd, bitmap, 512, block), 512);
    memset(bitmap, 0xff, 512);
    bitmap[1] = 0x0f; // without sectors 8 to 11
    ck_assert_int_eq(pwrite(fd, bitmap, 512, block), 512);
    memset(expected, 7, sizeof expected);
    memset(expected + 8 * 512, 0, 4 * 512);
    for (unsigned round = 0; round < 3; round++) {
        struct disk *disk = disk_open(path, "vhd", 0, NULL);
        ck_assert_ptr_nonnull(disk);
        if (round == 1) {
            memset(expected + 9 * 512, 5, 512);
            ck_assert_int_eq(disk_write(disk, 2 * MiB + 9 * 512, expected + 9 * 512, 512), 0);
        }
        ck_assert_int_eq(disk_read(disk, 2 * MiB, data, sizeof data), 0);
        ck_assert_int_eq(memcmp(data, expected, sizeof data), 0);
        disk_close(disk);
        ck_assert_int_eq(pread(fd, bitmap, 512, block), 512);
        ck_assert_uint_eq(bitmap[1], round ? 0xff : 0x0f);
    }
    close(fd);
}
END_TEST

// Pieces of 2 GiB: data in each, and over their borders.
START_TEST(vmdk_pieces)
{
    static const char *const kinds[] = {"twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"};
    g_autofree char *image = path_of("pieces.vmdk"), *raw = path_of("raw");
    bool same = false;
    uint64_t where = 0;
    GError *error = NULL;
    ck_assert_int_eq(run_command(true, "qemu-img create -q -f raw %s 4500M", raw), 0);
    ck_assert_int_eq(run_command(true,
                                 "qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 2147418112 200k' "
                                 "-c 'write -P 3 4294967000 3000' -c 'write -P 4 4499M 1M' %s",
                                 raw),
                     0);
    ck_assert_int_eq(run_command(true, "qemu-img convert -f raw -O vmdk -o subformat=%s %s %s", kinds[_i], raw, image),
                     0);
    ck_assert_msg(disk_compare(image, NULL, raw, "raw", &same, &where, NULL, &error), "%s",
                  error ? error->message : "");
    ck_assert_msg(same, "differs at %" G_GUINT64_FORMAT, where);
    struct disk *disk = disk_open(image, NULL, 0, &error);
    ck_assert(disk && disk_read_only(disk) && strstr(disk_read_only_reason(disk), kinds[_i]));
    disk_close(disk);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-parents");
    TCase *c = tcase_create("parents");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, vdi_differencing);
    tcase_add_test(c, vhd_differencing);
    tcase_add_loop_test(c, vmdk_parent, 0, 3);
    tcase_add_test(c, vhd_absent_sectors);
    tcase_add_loop_test(c, vmdk_pieces, 0, 3);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    return run_suite(suite());
}

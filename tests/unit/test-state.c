// SPDX-License-Identifier: GPL-2.0-or-later
// Saved state: field tables, versions, damage, whole machines, memory images while somebody writes.
#include "core/base/file.h"
#include "core/state/fields.h"
#include "core/state/machine_state.h"
#include "core/state/ram_image.h"

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct inner {
    uint16_t word;
    bool flag;
};
struct gadget {
    struct device device;
    bool on;
    uint8_t small;
    uint16_t medium;
    uint32_t list[3];
    uint64_t big;
    int32_t signed_small;
    int64_t signed_big;
    uint8_t raw[5];
    char *buffer;
    uint32_t buffer_length;
    struct inner inner[2];
    struct timer timer;
    uint32_t newer; // since version 2
    bool loaded;
    unsigned fired;
};
static const struct field inner_fields[] = {FIELD_U16(struct inner, word), FIELD_BOOL(struct inner, flag), FIELD_END};
#define COMMON_FIELDS                                                                                                  \
    FIELD_BOOL(struct gadget, on), FIELD_U8(struct gadget, small), FIELD_U16(struct gadget, medium),                   \
        FIELD_ARRAY(U32, struct gadget, list), FIELD_U64(struct gadget, big), FIELD_S32(struct gadget, signed_small),  \
        FIELD_S64(struct gadget, signed_big), FIELD_BYTES(struct gadget, raw),                                         \
        FIELD_BUFFER(struct gadget, buffer, buffer_length), FIELD_STRUCT_ARRAY(struct gadget, inner, inner_fields),    \
        FIELD_TIMER(struct gadget, timer)
static const struct field gadget_fields[] = {COMMON_FIELDS, FIELD_SCALAR(FIELD_TYPE_U32, struct gadget, newer, 2, 77),
                                             FIELD_END};
static const struct field old_gadget_fields[] = {COMMON_FIELDS, FIELD_END};

static void timer_fired(void *opaque)
{
    ((struct gadget *)opaque)->fired++;
}

static bool gadget_realize(struct device *device, GError **error)
{
    struct gadget *gadget = (struct gadget *)device;
    timer_init(&gadget->timer, device->machine->clock, timer_fired, gadget);
    return true;
}

static void gadget_unrealize(struct device *device)
{
    struct gadget *gadget = (struct gadget *)device;
    if (gadget->timer.clock)
        timer_destroy(&gadget->timer);
    g_free(gadget->buffer);
}

static bool gadget_loaded(struct device *device, GError **error)
{
    struct gadget *gadget = (struct gadget *)device;
    gadget->loaded = true;
    if (gadget->small == 0xee)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "small is impossible");
    return gadget->small != 0xee;
}

static const struct property no_properties[] = {PROPERTY_END};
static const struct device_class gadget_class = {.name = "gadget",
                                                 .help = "a test device",
                                                 .size = sizeof(struct gadget),
                                                 .properties = no_properties,
                                                 .realize = gadget_realize,
                                                 .unrealize = gadget_unrealize,
                                                 .fields = gadget_fields,
                                                 .version = 2,
                                                 .loaded = gadget_loaded};
static const struct device_class mute_class = {
    .name = "mute", .help = "has no table", .size = sizeof(struct device), .properties = no_properties};
const struct device_class *const device_classes[] = {&gadget_class, &mute_class, NULL};

static struct machine *machine_with(const char *class_name, struct device **device)
{
    struct machine *machine = machine_create(2 * MiB, clock_new_manual(), NULL);
    ck_assert_ptr_nonnull(machine);
    *device = device_new(machine, class_name, "one", NULL);
    ck_assert(device_realize(*device, NULL));
    return machine;
}

static void fill(struct gadget *gadget)
{
    gadget->on = true;
    gadget->small = 0x12;
    gadget->medium = 0x3456;
    gadget->list[0] = 1, gadget->list[1] = 0xffffffff, gadget->list[2] = 3;
    gadget->big = 0x1122334455667788;
    gadget->signed_small = -5;
    gadget->signed_big = INT64_MIN + 1;
    memcpy(gadget->raw, "bytes", 5);
    gadget->buffer = g_strdup("a buffer");
    gadget->buffer_length = 8;
    gadget->inner[0] = (struct inner){0xaaaa, true};
    gadget->inner[1] = (struct inner){0x5555, false};
    gadget->newer = 9;
}

static GByteArray *save(struct machine *machine)
{
    GByteArray *out = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    machine_lock(machine);
    machine_state_quiesce(machine);
    ck_assert_msg(machine_state_save(machine, out, &error), "%s", error ? error->message : "");
    machine_unlock(machine);
    return out;
}

static bool load(struct machine *machine, const GByteArray *data, GError **error)
{
    machine_lock(machine);
    bool good = machine_state_load(machine, data->data, data->len, error);
    machine_unlock(machine);
    return good;
}

START_TEST(test_round_trip)
{
    struct device *first, *second;
    struct machine *from = machine_with("gadget", &first), *to = machine_with("gadget", &second);
    struct gadget *a = (struct gadget *)first, *b = (struct gadget *)second;
    fill(a);
    b->buffer = g_strdup("x"); // too small: it grows
    b->buffer_length = 1;
    clock_start(from->clock);
    clock_advance(from->clock, 1000);
    timer_arm(&a->timer, 5000);
    clock_stop(from->clock);
    g_autoptr(GByteArray) data = save(from);
    g_autoptr(GError) error = NULL;
    ck_assert_msg(load(to, data, &error), "%s", error ? error->message : "");
    ck_assert(b->loaded && strncmp(b->buffer, "a buffer", 8) == 0 && b->list[1] == 0xffffffff && b->signed_small == -5);
    g_autoptr(GString) differences = g_string_new(NULL);
    ck_assert_uint_eq(state_diff_fields(differences, gadget_fields, a, b, ""), 0);
    g_autofree char *one = machine_state_print(from), *two = machine_state_print(to);
    ck_assert_str_eq(one, two);
    ck_assert_int_eq(clock_now(to->clock), 1000);
    g_autoptr(GByteArray) again = save(to);
    ck_assert(again->len == data->len && memcmp(again->data, data->data, data->len) == 0);
    clock_start(to->clock);
    clock_advance(to->clock, 3999);
    ck_assert_uint_eq(b->fired, 0);
    clock_advance(to->clock, 1);
    ck_assert_uint_eq(b->fired, 1);
    b->inner[1].word = 1;
    ck_assert_uint_eq(state_diff_fields(differences, gadget_fields, a, b, "gadget."), 2); // the timer is off now
    ck_assert_ptr_nonnull(strstr(differences->str, "gadget.inner[1].word = 0x5555, 0x1"));
    machine_destroy(from);
    machine_destroy(to);
}
END_TEST

START_TEST(test_older_version)
{
    struct gadget a = {0}, b = {.newer = 1, .timer.deadline = INT64_MAX};
    struct clock *clock = clock_new_manual();
    timer_init(&a.timer, clock, timer_fired, &a);
    timer_init(&b.timer, clock, timer_fired, &b);
    fill(&a);
    g_autoptr(GByteArray) old = g_byte_array_new();
    state_save_fields(old, old_gadget_fields, &a);
    g_autoptr(GError) error = NULL;
    struct state_reader reader = {old->data, old->len, 0};
    ck_assert(state_load_fields(&reader, gadget_fields, &b, 1, &error));
    ck_assert_uint_eq(b.newer, 77); // what an older file implies
    reader.at = 0;
    ck_assert(!state_load_fields(&reader, gadget_fields, &b, 2, &error)); // a file of version 2 must have it
    ck_assert_ptr_nonnull(strstr(error->message, "newer"));
    g_clear_error(&error);
    g_autoptr(GByteArray) present = g_byte_array_new();
    state_save_fields(present, gadget_fields, &a);
    reader = (struct state_reader){present->data, present->len, 0};
    ck_assert(!state_load_fields(&reader, old_gadget_fields, &b, 2, &error)); // this build does not know the field
    g_free(a.buffer);
    g_free(b.buffer);
    timer_destroy(&a.timer);
    timer_destroy(&b.timer);
    clock_free(clock);
}
END_TEST

START_TEST(test_refusals)
{
    struct device *device, *mute;
    struct machine *from = machine_with("gadget", &device), *silent = machine_with("mute", &mute);
    g_autoptr(GError) error = NULL;
    ck_assert(!machine_state_savable(silent, &error));
    ck_assert(strstr(error->message, "mute") && strstr(error->message, "one"));
    g_clear_error(&error);
    g_autoptr(GByteArray) data = save(from);
    ck_assert(!load(silent, data, &error)); // another make
    g_clear_error(&error);
    struct machine *larger = machine_create(4 * MiB, clock_new_manual(), NULL);
    ck_assert(device_realize(device_new(larger, "gadget", "one", NULL), NULL));
    ck_assert(!load(larger, data, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "4 MiB"));
    g_clear_error(&error);
    ((struct gadget *)device)->small = 0xee;
    g_autoptr(GByteArray) bad = save(from);
    ck_assert(!load(from, bad, &error) && strstr(error->message, "impossible"));
    machine_destroy(from);
    machine_destroy(silent);
    machine_destroy(larger);
}
END_TEST

// Every damaged file is refused: the checksum first, and with a right checksum the structure.
START_TEST(test_damage)
{
    struct device *device;
    struct machine *machine = machine_with("gadget", &device);
    fill((struct gadget *)device);
    g_autoptr(GByteArray) data = save(machine);
    for (unsigned length = 0; length < data->len; length += 3) {
        g_autoptr(GByteArray) cut = g_byte_array_new();
        g_byte_array_append(cut, data->data, length);
        ck_assert(!load(machine, cut, NULL));
    }
    g_autoptr(GRand) random = g_rand_new_with_seed(3);
    unsigned refused = 0;
    for (unsigned round = 0; round < 2000; round++) {
        g_autoptr(GByteArray) mutant = g_byte_array_new();
        g_byte_array_append(mutant, data->data, data->len);
        mutant->data[g_rand_int_range(random, 0, data->len)] ^= 1 << g_rand_int_range(random, 0, 8);
        refused += !load(machine, mutant, NULL);
        // The same with the checksum made right.
        g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
        gsize size = 32;
        g_checksum_update(sum, mutant->data, mutant->len - 32);
        g_checksum_get_digest(sum, mutant->data + mutant->len - 32, &size);
        g_autoptr(GError) error = NULL;
        ck_assert(load(machine, mutant, &error) == (error == NULL));
    }
    ck_assert_uint_eq(refused, 2000);
    machine_destroy(machine);
}
END_TEST

// ---- Memory images ----

#define RAM_PAGES 512

struct writer {
    struct ram *ram;
    atomic_bool stop;
    _Atomic uint64_t writes;
};

static gpointer write_randomly(gpointer data)
{
    struct writer *writer = data;
    g_autoptr(GRand) random = g_rand_new_with_seed(5);
    while (!atomic_load(&writer->stop)) {
        uint64_t offset =
            (uint64_t)g_rand_int_range(random, 0, RAM_PAGES) * PAGE_SIZE + g_rand_int_range(random, 0, 4088);
        uint64_t value = g_rand_int(random);
        ram_write_begin(writer->ram, offset, 8);
        memcpy(writer->ram->host + offset, &value, 8);
        ram_write_end(writer->ram, offset, 8);
        writer->writes++;
    }
    return NULL;
}

static int temporary_file(void)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("cloche-ram-XXXXXX", &path, NULL);
    unlink(path);
    return fd;
}

START_TEST(test_live_image)
{
    struct ram *ram = ram_new(RAM_PAGES * PAGE_SIZE, NULL);
    ram_alloc(ram, RAM_PAGES * PAGE_SIZE);
    for (unsigned page = 0; page < RAM_PAGES; page += 2) // every other page is a hole
        memset(ram->host + page * PAGE_SIZE, page, PAGE_SIZE);
    for (unsigned round = 0; round < 20; round++) {
        g_autofree uint8_t *moment = g_memdup2(ram->host, RAM_PAGES * PAGE_SIZE);
        int fd = temporary_file();
        struct ram_image *image = ram_image_new(ram, dup(fd), NULL);
        ram_image_begin(image);
        ck_assert_ptr_nonnull(image);
        struct writer writer = {.ram = ram};
        GThread *threads[2] = {g_thread_new("writer", write_randomly, &writer),
                               g_thread_new("writer", write_randomly, &writer)};
        while (atomic_load(&writer.writes) < 200)
            g_usleep(10);
        struct progress progress = {0};
        g_autoptr(GError) error = NULL;
        ck_assert_msg(ram_image_finish(image, &progress, &error), "%s", error ? error->message : "");
        ck_assert_uint_eq(progress.done, progress.total);
        ck_assert_uint_gt(ram_image_early(image), 0);
        atomic_store(&writer.stop, true);
        g_thread_join(threads[0]);
        g_thread_join(threads[1]);
        for (unsigned page = 0; page < RAM_PAGES; page++)
            ck_assert_uint_eq(ram_tracked(ram, page * PAGE_SIZE), 0);
        g_autofree uint8_t *file = g_malloc(RAM_PAGES * PAGE_SIZE);
        ck_assert_int_eq(pread(fd, file, RAM_PAGES * PAGE_SIZE, 0), RAM_PAGES * PAGE_SIZE);
        ck_assert(memcmp(file, moment, RAM_PAGES * PAGE_SIZE) == 0);
        ram_image_free(image);
        close(fd);
    }
    ram_free(ram);
}
END_TEST

START_TEST(test_sparse_image_and_mapping)
{
    struct ram *ram = ram_new(64 * MiB, NULL), *mapped = ram_new(64 * MiB, NULL), *read = ram_new(64 * MiB, NULL);
    ram_alloc(ram, 64 * MiB);
    ram_alloc(mapped, 64 * MiB);
    ram_alloc(read, 64 * MiB);
    memset(ram->host + 5 * MiB, 'a', 3 * PAGE_SIZE);
    memset(ram->host + 63 * MiB, 'b', PAGE_SIZE);
    memset(read->host + 7 * MiB, 'z', PAGE_SIZE); // must vanish
    int fd = temporary_file();
    ck_assert(ram_image_write(ram, dup(fd), NULL, NULL));
    struct stat st;
    fstat(fd, &st);
    ck_assert_uint_eq(st.st_size, 64 * MiB);
    ck_assert_uint_le(st.st_blocks * 512, MiB);
    fstat(ram->memfd, &st);
    ck_assert_uint_le(st.st_blocks * 512, MiB); // looking did not fill the holes
    ck_assert(ram_image_load(mapped, fd, true, NULL) && ram_image_load(read, fd, false, NULL));
    ck_assert(memcmp(mapped->host, ram->host, 64 * MiB) == 0 && memcmp(read->host, ram->host, 64 * MiB) == 0);
    mapped->host[5 * MiB] = 'x'; // private
    char byte;
    ck_assert(pread(fd, &byte, 1, 5 * MiB) == 1 && byte == 'a');
    // An image of mapped memory.
    int second = temporary_file();
    ck_assert(ram_image_write(mapped, dup(second), NULL, NULL));
    ck_assert(pread(second, &byte, 1, 5 * MiB) == 1 && byte == 'x');
    ck_assert_int_eq(ftruncate(fd, 32 * MiB), 0);
    g_autoptr(GError) error = NULL;
    ck_assert(!ram_image_load(read, fd, false, &error) && strstr(error->message, "does not fit"));
    close(fd);
    close(second);
    ram_free(ram);
    ram_free(read);
    ram_free(mapped);
}
END_TEST

START_TEST(test_cancelled_image)
{
    struct ram *ram = ram_new(32 * MiB, NULL);
    ram_alloc(ram, 32 * MiB);
    memset(ram->host, 1, 32 * MiB);
    struct ram_image *image = ram_image_new(ram, temporary_file(), NULL);
    ram_image_begin(image);
    struct progress progress = {.cancelled = true};
    g_autoptr(GError) error = NULL;
    ck_assert(!ram_image_finish(image, &progress, &error) &&
              g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED));
    for (uint64_t page = 0; page < 32 * MiB; page += PAGE_SIZE)
        ck_assert_uint_eq(ram_tracked(ram, page), 0);
    ram_image_free(image);
    ram_free(ram);
}
END_TEST

START_TEST(test_folder)
{
    g_autofree char *folder = g_dir_make_tmp("cloche-state-XXXXXX", NULL);
    struct device *first, *second;
    struct machine *from = machine_with("gadget", &first), *to = machine_with("gadget", &second);
    fill((struct gadget *)first);
    strcpy((char *)from->ram->host + 0x1234, "hello");
    g_autoptr(GError) error = NULL;
    ck_assert_msg(machine_state_write_folder(from, folder, NULL, &error), "%s", error ? error->message : "");
    ck_assert_msg(machine_state_read_folder(to, folder, true, &error), "%s", error ? error->message : "");
    ck_assert_str_eq((char *)to->ram->host + 0x1234, "hello");
    g_autofree char *one = machine_state_print(from), *two = machine_state_print(to);
    ck_assert_str_eq(one, two);
    ck_assert(host_folder_remove(folder, NULL));
    ck_assert(!machine_state_read_folder(to, folder, false, &error));
    machine_destroy(from);
    machine_destroy(to);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("state");
    TCase *tests = tcase_create("state");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_round_trip);
    tcase_add_test(tests, test_older_version);
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_damage);
    tcase_add_test(tests, test_live_image);
    tcase_add_test(tests, test_sparse_image_and_mapping);
    tcase_add_test(tests, test_cancelled_image);
    tcase_add_test(tests, test_folder);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

// SPDX-License-Identifier: GPL-2.0-or-later
// Definitions and library: the option table, machine.conf, migration, conversion, scanning, locks, monitors.
#include "core/base/file.h"
#include "core/config/config.h"
#include "core/config/host.h"
#include "core/config/library.h"
#include "core/config/migrate.h"
#include "core/machine/options.h"

#include <check.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct config *parse(const char *text, GError **error)
{
    return config_parse(text, strlen(text), "test.conf", error);
}

static char *make_folder(void)
{
    return g_dir_make_tmp("cloche-config-XXXXXX", NULL);
}

START_TEST(test_table_is_sound)
{
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options_table[i];
        ck_assert_msg(option->title && option->help && option->since >= 1 && option->default_text, "%s", option->key);
        if (option->default_text[0])
            ck_assert_msg(option_check(option, option->default_text, NULL, NULL), "default of %s", option->key);
        ck_assert_msg((option->type == OPTION_CHOICE) == (option->choices != NULL), "choices of %s", option->key);
        ck_assert_msg(!option->check || option->allowed, "%s says what is allowed", option->key);
        for (size_t j = 0; j < i; j++) {
            ck_assert(strcmp(option->group, options_table[j].group) || strcmp(option->key, options_table[j].key));
            ck_assert(!option->name || g_strcmp0(option->name, options_table[j].name));
        }
    }
}
END_TEST

START_TEST(test_sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},           {"4096", 4096},   {"64K", 65536},          {"1.5G", 1610612736}, {"20 GiB", 20 * GiB},
        {"1T", 1024 * GiB}, {"2MB", 2 * MiB}, {"8191P", 8191ull << 50}};
    static const char *const bad[] = {"",     "G",       "-1",       "1e3",   "0x10",  "inf",
                                      "nan",  "1.0001K", "9999999P", "1 G G", "8192P", "99999999999999999999",
                                      "1..5", " 1G"};
    uint64_t bytes;
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        ck_assert_msg(option_parse_size(good[i].text, &bytes), "%s", good[i].text);
        ck_assert_uint_eq(bytes, good[i].bytes);
        g_autofree char *text = option_format_size(bytes);
        ck_assert(option_parse_size(text, &bytes) && bytes == good[i].bytes);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ck_assert_msg(!option_parse_size(bad[i], &bytes), "%s", bad[i]);
}
END_TEST

START_TEST(test_wrong_values_are_named)
{
    static const struct {
        const char *text, *group, *key, *allowed;
    } rows[] = {
        {"[Machine]\nversion=1\n[Memory]\nsize=lots\n", "[Memory]", "\"size\"", "1M"},
        {"[Machine]\nversion=1\n[Processors]\ncount=17\n", "[Processors]", "\"count\"", "1 to 16"},
        {"[Machine]\nversion=1\n[Processors]\nengine=warp\n", "[Processors]", "\"engine\"", "interpret"},
        {"[Machine]\nversion=1\n[Drive hd]\nkind=tape\n", "[Drive hd]", "\"kind\"", "cdrom"},
        {"[Machine]\nversion=1\n[Network n]\nmac=01:00:00:00:00:00\n", "[Network n]", "\"mac\"", "unicast"},
        {"[Machine]\nversion=1\n[Network n]\nforwards=tcp:127.0.0.1:99999-22\n", "[Network n]", "\"forwards\"",
         "GUESTPORT"},
        {"[Machine]\nversion=1\nname=../x\n", "[Machine]", "\"name\"", "slash"},
        {"[Machine]\nversion=1\nname=\n", "[Machine]", "\"name\"", "characters"},
        {"[Machine]\nversion=1\n[Firmware]\nboot-order=cc\n", "[Firmware]", "\"boot-order\"", "at most once"},
        {"[Machine]\nversion=1\ntemplate=perhaps\n", "[Machine]", "\"template\"", "true or false"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        ck_assert(!parse(rows[i].text, &error));
        ck_assert_ptr_nonnull(strstr(error->message, "test.conf"));
        ck_assert_ptr_nonnull(strstr(error->message, rows[i].group));
        ck_assert_ptr_nonnull(strstr(error->message, rows[i].key));
        ck_assert_msg(strstr(error->message, rows[i].allowed) != NULL, "%s", error->message);
    }
}
END_TEST

START_TEST(test_comments_order_and_unknown_keys_survive)
{
    const char *text =
        "# my machine\n\n[Later]\nnew=1\n\n[Memory]\n# plenty\nsize=1G\nspeed=3200\n\n[Machine]\nversion=1\nname=a\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(config_t) config = parse(text, &error);
    ck_assert_ptr_nonnull(config);
    const char *const *warnings = config_warnings(config);
    ck_assert(warnings[0] && strstr(warnings[0], "[Later]") && warnings[1] && strstr(warnings[1], "\"speed\"") &&
              !warnings[2]);
    ck_assert(!config_changed(config));
    ck_assert(config_set(config, "Memory", "size", "1024M", &error)); // the same value
    ck_assert(!config_changed(config));
    ck_assert(config_set(config, "Memory", "size", "2G", &error));
    g_autofree char *written = config_text(config);
    ck_assert_str_eq(
        written,
        "# my machine\n\n[Later]\nnew=1\n\n[Memory]\n# plenty\nsize=2G\nspeed=3200\n\n[Machine]\nversion=1\nname=a\n");
}
END_TEST

START_TEST(test_save_only_when_changed)
{
    g_autofree char *folder = make_folder(), *path = g_build_filename(folder, "machine.conf", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(config_t) config = config_new();
    ck_assert(config_set(config, "Machine", "name", "a", &error) && config_save(config, path, &error));
    struct stat before, after;
    ck_assert_int_eq(stat(path, &before), 0);
    ck_assert_uint_eq(before.st_mode & 0777, 0600);
    ck_assert(config_save(config, path, &error));
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_uint_eq(before.st_ino, after.st_ino);
    ck_assert(config_set(config, "Machine", "name", "b", &error) && config_save(config, path, &error));
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_uint_ne(before.st_ino, after.st_ino);
    g_autoptr(config_t) again = config_load(path, &error);
    g_autofree char *name = config_get(again, "Machine", "name");
    ck_assert_str_eq(name, "b");
    ck_assert(host_folder_remove(folder, &error));
    ck_assert(!config_save(again, "/nonexistent/machine.conf", &error) || !config_changed(again));
}
END_TEST

START_TEST(test_migration)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(config_t) config = parse("[Machine]\nname=old\nmemory=512M\ncpus=2\n", &error);
    ck_assert_ptr_nonnull(config);
    ck_assert(config_changed(config));
    ck_assert_uint_eq(config_get_number(config, "Memory", "size"), 512 * MiB);
    ck_assert_uint_eq(config_get_number(config, "Processors", "count"), 2);
    ck_assert_uint_eq(config_get_number(config, "Machine", "version"), OPTION_VERSION);
    ck_assert(!config_warnings(config)[0]);
    ck_assert(!parse("[Machine]\nversion=99\n", &error));
    ck_assert(strstr(error->message, "newer Cloche"));
    // A later table: what a version 2 would do with a file of version 1.
    static const struct config_rename later[] = {
        {1, "Machine", "cpus", "Processors", "count"}, {2, "Memory", "size", "Memory", "amount"}, {0}};
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_set_string(file, "Machine", "version", "1");
    g_key_file_set_string(file, "Machine", "cpus", "4");
    g_key_file_set_string(file, "Memory", "size", "3G");
    bool changed = false;
    ck_assert(config_migrate(file, later, 2, &changed, NULL) && changed);
    ck_assert(g_key_file_has_key(file, "Machine", "cpus", NULL));
    ck_assert(g_key_file_has_key(file, "Memory", "amount", NULL) && !g_key_file_has_key(file, "Memory", "size", NULL));
}
END_TEST

START_TEST(test_hostile_definitions)
{
    static const char *const texts[] = {"",
                                        "\n\n",
                                        "[",
                                        "[Machine",
                                        "key=1",
                                        "[Machine]\nversion=-1\n",
                                        "[Machine]\nversion=99999999999999999999\n",
                                        "[Machine]\nname=\\q\n",
                                        "[Machine]\n=\n",
                                        "[Drive ]\nfile=x\n",
                                        "[Machine]\nname=\xff\xfe\n"};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        struct config *config = parse(texts[i], &error);
        ck_assert((config == NULL) == (error != NULL));
        config_free(config);
    }
    g_autoptr(GRand) random = g_rand_new_with_seed(1);
    for (unsigned round = 0; round < 3000; round++) {
        char text[] = "[Machine]\nversion=1\nname=a b\n[Drive d0]\nkind=disk\nfile=x.img\n# c\n[Memory]\nsize=1G\n";
        for (unsigned n = 0; n < 4; n++)
            text[g_rand_int_range(random, 0, sizeof(text) - 1)] = g_rand_int_range(random, 1, 256);
        g_autoptr(GError) error = NULL;
        struct config *config = parse(text, &error);
        ck_assert((config == NULL) == (error != NULL));
        config_free(config);
    }
    g_autofree char *big = g_strnfill(2 * MiB, 'x');
    ck_assert(!config_parse(big, 2 * MiB, "big", NULL));
}
END_TEST

START_TEST(test_conversion)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(config_t) config = parse(
        "[Machine]\nversion=1\nname=demo\nuuid=0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b\n[Processors]\ncount=3\nengine="
        "interpret\n"
        "[Memory]\nsize=96M\n[Direct Boot]\nkernel=vmlinuz\nappend=console=ttyS0\n[Clock]\nlocal-time=yes\n"
        "[Drive disk0]\nfile=disk0.qcow2\nformat=qcow2\ninterface=virtio\n[Drive cd0]\nkind=cdrom\nfile=/iso/x.iso\n"
        "[Network net0]\ncard=e1000\nforwards=tcp:127.0.0.1:2222-22;udp:127.0.0.1:53-53\n[Serial "
        "com1]\ntarget=file:log.txt\n"
        "[Device d]\ndevice=isa-debug-exit\n",
        &error);
    ck_assert_ptr_nonnull(config);
    struct machine_options *options = machine_options_new();
    ck_assert(config_to_options(config, "/m/demo", options, &error));
    ck_assert_str_eq(options->name, "demo");
    ck_assert_uint_eq(options->memory, 96 * MiB);
    ck_assert_uint_eq(options->cpus, 3);
    ck_assert_str_eq(options->engine, "interpret");
    ck_assert_str_eq(options->kernel, "/m/demo/vmlinuz");
    ck_assert_str_eq(options->append, "console=ttyS0");
    ck_assert(options->rtc_local && !options->no_reboot && !options->vnc);
    ck_assert_uint_eq(options->drives->len, 2);
    const struct drive_options *disk = options->drives->pdata[0], *cd = options->drives->pdata[1];
    ck_assert_int_eq(disk->kind, DRIVE_DISK);
    ck_assert_str_eq(disk->file, "/m/demo/disk0.qcow2");
    ck_assert_str_eq(disk->interface, "virtio");
    ck_assert_str_eq(disk->id, "disk0");
    ck_assert_int_eq(cd->kind, DRIVE_CDROM);
    ck_assert_str_eq(cd->file, "/iso/x.iso");
    ck_assert_ptr_null(cd->format);
    const struct nic_options *nic = options->nics->pdata[0];
    ck_assert_str_eq(nic->card, "e1000");
    ck_assert_str_eq(nic->backend, "user");
    ck_assert_uint_eq(g_strv_length(nic->forwards), 2);
    ck_assert(g_str_has_prefix(nic->mac, "52:54:00:"));
    ck_assert_str_eq(((struct serial_options *)options->serials->pdata[0])->target, "file:/m/demo/log.txt");
    ck_assert_str_eq(options->devices->pdata[0], "isa-debug-exit");
    ck_assert(config_set(config, "Machine", "template", "true", &error));
    ck_assert(!config_to_options(config, "/m/demo", options, &error));
    ck_assert(strstr(error->message, "linked clone"));
    machine_options_free(options);
}
END_TEST

static void write_machine(const char *library, const char *leaf, const char *name, const char *uuid)
{
    g_autofree char *folder = g_build_filename(library, leaf, NULL),
                    *path = g_build_filename(folder, CONFIG_FILE, NULL);
    g_autofree char *text = g_strdup_printf("[Machine]\nversion=1\nname=%s\nuuid=%s\n", name, uuid);
    g_mkdir_with_parents(folder, 0700);
    ck_assert(host_file_write(path, text, strlen(text), 0600, NULL));
}

START_TEST(test_library)
{
    g_autofree char *top = make_folder(), *more = make_folder();
    g_setenv("CLOCHE_LIBRARY", top, TRUE);
    write_machine(top, "b", "beta", "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b");
    write_machine(top, "a", "alpha", "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3c");
    write_machine(top, "copy", "alpha copy", "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3c");
    write_machine(top, "broken", "broken", "not-a-uuid");
    g_autoptr(GError) error = NULL;
    g_autoptr(library_t) library = library_open(&error);
    ck_assert_ptr_nonnull(library);
    ck_assert_uint_eq(library_entries(library)->len, 4);
    ck_assert_str_eq(library_find(library, "beta", &error)->uuid, "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b");
    const struct machine_entry *broken = library_find(library, "broken", &error);
    ck_assert(broken && broken->damage && strstr(broken->damage, "[Machine]") && !broken->config);
    const struct machine_entry *copy = library_find(library, "alpha copy", &error);
    ck_assert(copy && copy->damage && strstr(copy->damage, "same UUID"));
    ck_assert(!library_find(library, "gamma", &error) && g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND));
    g_clear_error(&error);

    // Moved by hand to a further folder: found again under its UUID.
    g_autofree char *from = g_build_filename(top, "b", NULL), *to = g_build_filename(more, "elsewhere", NULL);
    ck_assert_int_eq(rename(from, to), 0);
    ck_assert(library_scan(library));
    ck_assert(!library_find_uuid(library, "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b"));
    ck_assert(library_add_folder(library, more, &error));
    ck_assert_str_eq(library_find_uuid(library, "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b")->folder, to);
    ck_assert(!library_scan(library));

    g_autofree char *made = library_create_folder(library, "gamma ray", &error);
    ck_assert_ptr_nonnull(made);
    ck_assert(!library_create_folder(library, "beta", &error) &&
              g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS));
    g_clear_error(&error);
    ck_assert(!library_create_folder(library, "../up", &error) &&
              g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID));
    g_clear_error(&error);
    ck_assert(library_rename(library, library_find(library, "beta", NULL), "delta", &error));
    ck_assert_str_eq(library_find(library, "delta", &error)->folder, to);
    ck_assert(!library_rename(library, library_find(library, "delta", NULL), "alpha", &error));
    g_clear_error(&error);
    ck_assert(library_remove_folder(library, more, &error) && g_file_test(to, G_FILE_TEST_IS_DIR));
    ck_assert(host_folder_remove(top, &error) && host_folder_remove(more, &error));
}
END_TEST

START_TEST(test_locks)
{
    g_autofree char *folder = make_folder();
    g_autoptr(GError) error = NULL;
    int first = machine_folder_lock(folder, &error);
    ck_assert_int_ge(first, 0);
    ck_assert_int_lt(machine_folder_lock(folder, &error), 0);
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY));
    close(first);
    int second = machine_folder_lock(folder, NULL);
    ck_assert_int_ge(second, 0);
    close(second);
    ck_assert(host_folder_remove(folder, NULL));
}
END_TEST

static void note_change(void *opaque, struct library *library)
{
    g_main_loop_quit(opaque);
}

static gboolean give_up(gpointer data)
{
    ck_abort_msg("the file monitor did not report the change");
    return FALSE;
}

START_TEST(test_monitor)
{
    g_autofree char *top = make_folder();
    g_setenv("CLOCHE_LIBRARY", top, TRUE);
    g_autoptr(library_t) library = library_open(NULL);
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    library_watch(library, note_change, loop);
    write_machine(top, "x", "x-ray", "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b");
    unsigned guard = g_timeout_add_seconds(10, give_up, NULL);
    while (!library_find(library, "x-ray", NULL))
        g_main_loop_run(loop);
    // A change inside the machine's folder is seen too.
    write_machine(top, "x", "zulu", "0a2b1f4e-5c77-4b38-9d3e-6a4c0f1e2d3b");
    while (!library_find(library, "zulu", NULL))
        g_main_loop_run(loop);
    g_source_remove(guard);
    ck_assert(host_folder_remove(top, NULL));
}
END_TEST

START_TEST(test_runtime_folder)
{
    g_autofree char *top = make_folder();
    g_setenv("XDG_RUNTIME_DIR", top, TRUE);
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = machine_runtime_folder("id", true, &error);
    struct stat st;
    ck_assert(folder && stat(folder, &st) == 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    chmod(folder, 0777); // others could plant a socket: refused
    ck_assert(!machine_runtime_folder("id", true, &error));
    ck_assert(host_folder_remove(top, NULL));
}
END_TEST

START_TEST(test_host_probes)
{
    g_autoptr(GPtrArray) findings = host_probe("/tmp");
    ck_assert_uint_ge(findings->len, 8);
    for (unsigned i = 0; i < findings->len; i++) {
        const struct host_finding *finding = findings->pdata[i];
        ck_assert(finding->text && finding->text[0] && host_verdict_name(finding->verdict));
    }
    struct host_defaults defaults = host_defaults();
    ck_assert(defaults.memory > 0 && defaults.cpus >= 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("config");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, test_table_is_sound);
    tcase_add_test(tests, test_sizes);
    tcase_add_test(tests, test_wrong_values_are_named);
    tcase_add_test(tests, test_comments_order_and_unknown_keys_survive);
    tcase_add_test(tests, test_save_only_when_changed);
    tcase_add_test(tests, test_migration);
    tcase_add_test(tests, test_hostile_definitions);
    tcase_add_test(tests, test_conversion);
    tcase_add_test(tests, test_library);
    tcase_add_test(tests, test_locks);
    tcase_add_test(tests, test_monitor);
    tcase_add_test(tests, test_runtime_folder);
    tcase_add_test(tests, test_host_probes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

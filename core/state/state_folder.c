// SPDX-License-Identifier: GPL-2.0-or-later
// State and RAM of a standing machine in a folder: suspend to disk, and the machine half of a snapshot.
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/state/machine_state.h"
#include "core/state/ram_image.h"
#include "core/state/working_set.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define RECORD_AFTER_MS 2000

static int open_file(const char *folder, const char *name, int flags, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot open %s: %s", path, g_strerror(errno));
    return fd;
}

bool machine_state_write_folder(struct machine *machine, const char *folder, struct progress *progress, GError **error)
{
    g_autoptr(GByteArray) state = g_byte_array_new();
    machine_lock(machine);
    machine_state_quiesce(machine);
    bool good = machine_state_save(machine, state, error);
    machine_unlock(machine);
    int fd = good ? open_file(folder, "ram", O_RDWR | O_CREAT | O_TRUNC, error) : -1;
    if (fd < 0 || !ram_image_write(machine->ram, fd, progress, error)) // takes over the descriptor
        return false;
    g_autofree char *path = g_build_filename(folder, "state", NULL);
    return host_file_write(path, state->data, state->len, 0600, error);
}

bool machine_state_read_folder(struct machine *machine, const char *folder, bool fresh, GError **error)
{
    g_autofree char *path = g_build_filename(folder, "state", NULL), *data = NULL;
    size_t length;
    if (!host_file_read(path, STATE_MAX_FILE, &data, &length, error))
        return false;
    int fd = open_file(folder, "ram", O_RDONLY, error);
    if (fd < 0)
        return false;
    working_set_prefetch(folder, fd);
    machine_lock(machine);
    bool good = ram_image_load(machine->ram, fd, fresh, error) && machine_state_load(machine, data, length, error);
    machine_unlock(machine);
    close(fd);
    return good;
}

// ---- What it needed first ----

struct recording {
    struct machine *machine;
    char *folder;
};

static void recording_free(gpointer data)
{
    struct recording *recording = data;
    g_free(recording->folder);
    g_free(recording);
}

static gboolean record_now(gpointer data)
{
    struct recording *recording = data;
    struct ram *ram = recording->machine->ram;
    g_autofree uint64_t *set = working_set_of(ram);
    if (set && g_file_test(recording->folder, G_FILE_TEST_IS_DIR))
        working_set_write(recording->folder, set, ram->used >> PAGE_SHIFT, NULL); // only a hint
    return G_SOURCE_REMOVE;
}

void machine_state_record_needs(struct machine *machine, const char *folder)
{
    struct recording *recording = g_new0(struct recording, 1);
    *recording = (struct recording){machine, g_strdup(folder)};
    GSource *source = g_timeout_source_new(RECORD_AFTER_MS);
    g_source_set_callback(source, record_now, recording, recording_free);
    g_source_attach(source, machine->context);
    g_source_unref(source);
}

// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/machine/options.h"

static void drive_free(gpointer data)
{
    struct drive_options *drive = data;
    g_free(drive->id);
    g_free(drive->file);
    g_free(drive->format);
    g_free(drive->interface);
    g_free(drive->on_error);
    g_free(drive);
}

static void nic_free(gpointer data)
{
    struct nic_options *nic = data;
    g_free(nic->id);
    g_free(nic->card);
    g_free(nic->backend);
    g_free(nic->mac);
    g_strfreev(nic->forwards);
    g_free(nic->settings);
    g_free(nic);
}

static void serial_free(gpointer data)
{
    struct serial_options *serial = data;
    g_free(serial->target);
    g_free(serial);
}

struct machine_options *machine_options_new(void)
{
    struct machine_options *options = g_new0(struct machine_options, 1);
    options->memory = 1 * GiB;
    options->cpus = 1;
    options->cpu_model = g_strdup("x86-64-v3");
    options->engine = g_strdup("auto");
    options->display_adapter = g_strdup("vga");
    options->drives = g_ptr_array_new_with_free_func(drive_free);
    options->nics = g_ptr_array_new_with_free_func(nic_free);
    options->serials = g_ptr_array_new_with_free_func(serial_free);
    options->devices = g_ptr_array_new_with_free_func(g_free);
    return options;
}

void machine_options_free(struct machine_options *options)
{
    if (!options)
        return;
    char **const strings[] = {
        &options->name,
        &options->uuid,
        &options->folder,
        &options->cpu_model,
        &options->engine,
        &options->bios,
        &options->kernel,
        &options->initrd,
        &options->append,
        &options->boot_order,
        &options->display_adapter,
        &options->vnc,
        &options->vnc_password_file,
        &options->control_socket,
        &options->debug_output,
        &options->screenshot,
        &options->load_state,
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(*strings[i]);
    g_ptr_array_unref(options->drives);
    g_ptr_array_unref(options->nics);
    g_ptr_array_unref(options->serials);
    g_ptr_array_unref(options->devices);
    g_free(options);
}

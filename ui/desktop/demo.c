// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/demo.h"
#include "core/config/host.h"
#include "ui/desktop/machine-create.h"

#include <glib/gi18n.h>

#define DEMO_PACKAGE "debian-installer-12-netboot-amd64"
#define DEMO_IMAGES  "/usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64"
#define DEMO_NAME    "Debian Installer Demo"

static ClocheMachine *find(ClocheApp *app)
{
    GListModel *machines = cloche_app_get_machines(app);
    for (guint i = 0; i < g_list_model_get_n_items(machines); i++) {
        g_autoptr(ClocheMachine) machine = g_list_model_get_item(machines, i);
        if (g_strcmp0(cloche_machine_get_name(machine), DEMO_NAME) == 0)
            return machine; // the list holds it
    }
    return NULL;
}

ClocheMachine *demo_machine(ClocheApp *app, GError **error)
{
    ClocheMachine *known = find(app);
    if (known)
        return known;
    if (!g_file_test(DEMO_IMAGES "/linux", G_FILE_TEST_EXISTS)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    _("The demo needs Debian's package %s: sudo apt-get install %s"), DEMO_PACKAGE, DEMO_PACKAGE);
        return NULL;
    }
    g_autofree char *folder = library_create_folder(cloche_app_get_library(app), DEMO_NAME, error);
    struct machine_plan plan = {
        .name = (char *)DEMO_NAME,
        .os_id = (char *)"http://debian.org/debian/12",
        .kernel = (char *)DEMO_IMAGES "/linux",
        .initrd = (char *)DEMO_IMAGES "/initrd.gz",
        .append = (char *)"vga=788 --- quiet",
        .memory = MIN(1 * GiB, host_defaults().memory),
        .disk = 8 * GiB,
        .cpus = 1,
        .network = (char *)"user",
    };
    if (!folder || !machine_create(folder, &plan, NULL, error))
        return NULL;
    cloche_app_rescan(app);
    return cloche_app_find(app, folder);
}

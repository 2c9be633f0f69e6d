// SPDX-License-Identifier: GPL-2.0-or-later
// cloche: the desktop app.
#include "ui/desktop/app.h"
#include "ui/desktop/watchdog.h"

#include <glib/gi18n.h>
#include <locale.h>

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    const char *locales = g_getenv("CLOCHE_LOCALEDIR"); // translations that are not installed
    bindtextdomain("cloche", locales ? locales : CLOCHE_LOCALEDIR);
    watchdog_start();
    bind_textdomain_codeset("cloche", "UTF-8");
    textdomain("cloche");
    g_set_application_name("Cloche");
    g_set_prgname("org.cloche.Cloche");
    g_autoptr(ClocheApp) app = cloche_app_new();
    return g_application_run(G_APPLICATION(app), argc, argv);
}

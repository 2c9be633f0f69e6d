// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/window-state.h"

#define LEAST_WIDTH  400 // a smaller size is not taken over
#define LEAST_HEIGHT 300

// Only a size that the user can have chosen counts: neither that of a screen nor of a part of it.
static void note_size(GtkWidget *widget, GdkRectangle *allocation, const char *group)
{
    const GdkWindowState filled = GDK_WINDOW_STATE_MAXIMIZED | GDK_WINDOW_STATE_FULLSCREEN | GDK_WINDOW_STATE_TILED;
    GdkWindow *gdk = gtk_widget_get_window(widget);
    if (!gdk || gdk_window_get_state(gdk) & filled)
        return;
    GKeyFile *preferences = g_object_get_data(G_OBJECT(widget), "preferences");
    int width, height;
    gtk_window_get_size(GTK_WINDOW(widget), &width, &height);
    g_key_file_set_integer(preferences, group, "width", width);
    g_key_file_set_integer(preferences, group, "height", height);
}

static void note_maximized(GtkWindow *window, GParamSpec *property, const char *group)
{
    if (gtk_widget_get_mapped(GTK_WIDGET(window)))
        g_key_file_set_boolean(g_object_get_data(G_OBJECT(window), "preferences"), group, "maximized",
                               gtk_window_is_maximized(window));
}

static void free_group(gpointer group, GClosure *closure)
{
    g_free(group);
}

gboolean window_state_follow(GtkWindow *window, ClocheApp *app, const char *group)
{
    GKeyFile *preferences = cloche_app_get_preferences(app);
    int width = g_key_file_get_integer(preferences, group, "width", NULL);
    int height = g_key_file_get_integer(preferences, group, "height", NULL);
    gboolean known = width >= LEAST_WIDTH && height >= LEAST_HEIGHT;
    if (known)
        gtk_window_set_default_size(window, width, height);
    if (g_key_file_get_boolean(preferences, group, "maximized", NULL))
        gtk_window_maximize(window);
    g_object_set_data_full(G_OBJECT(window), "preferences", g_key_file_ref(preferences),
                           (GDestroyNotify)g_key_file_unref);
    g_signal_connect_data(window, "size-allocate", G_CALLBACK(note_size), g_strdup(group), free_group, 0);
    g_signal_connect_data(window, "notify::is-maximized", G_CALLBACK(note_maximized), g_strdup(group), free_group, 0);
    return known;
}

void window_state_follow_dialog(GtkWindow *dialog, ClocheApp *app, const char *group)
{
    window_state_follow(dialog, app, group);
    g_signal_connect_object(dialog, "destroy", G_CALLBACK(cloche_app_save_preferences), app, G_CONNECT_SWAPPED);
}

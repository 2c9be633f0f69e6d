// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/preferences.h"
#include "ui/desktop/close-dialog.h"
#include "ui/desktop/display.h"

#include <glib/gi18n.h>

static const char *const close_labels[] = {N_("Ask"), N_("Keep it running"), N_("Save the state and stop"),
                                           N_("Shut down the guest system"), N_("Power off")};
static const char *const scales[] = {"pixel", "integer", "fit", NULL};
static const char *const scale_labels[] = {N_("Pixel by pixel"), N_("Whole-number zoom"), N_("Fit to window")};

// Combinations that few guests use; they need no translation.
static const char *const release_keys[] = {CLOCHE_RELEASE_KEY, "<Primary><Alt>m", "<Shift>F12", "Control_R",
                                           "Scroll_Lock",      "Pause",           NULL};

static void changed(GtkComboBox *combo, ClocheApp *app)
{
    const char *key = g_object_get_data(G_OBJECT(combo), "key");
    g_key_file_set_string(cloche_app_get_preferences(app), "Console", key, gtk_combo_box_get_active_id(combo));
    cloche_app_save_preferences(app);
}

static void add_choice(ClocheApp *app, GtkGrid *grid, int row, const char *key, const char *title,
                       const char *const *ids, const char *const *labels)
{
    g_autofree char *now = g_key_file_get_string(cloche_app_get_preferences(app), "Console", key, NULL);
    GtkWidget *label = gtk_label_new_with_mnemonic(title), *combo = gtk_combo_box_text_new();
    for (guint i = 0; ids[i]; i++)
        gtk_combo_box_text_append(GTK_COMBO_BOX_TEXT(combo), ids[i], gettext(labels[i]));
    if (!now || !gtk_combo_box_set_active_id(GTK_COMBO_BOX(combo), now))
        gtk_combo_box_set_active(GTK_COMBO_BOX(combo), 0);
    gtk_label_set_xalign(GTK_LABEL(label), 1);
    gtk_label_set_mnemonic_widget(GTK_LABEL(label), combo);
    g_object_set_data(G_OBJECT(combo), "key", (gpointer)key);
    g_signal_connect(combo, "changed", G_CALLBACK(changed), app);
    gtk_grid_attach(grid, label, 0, row, 1, 1);
    gtk_grid_attach(grid, combo, 1, row, 1, 1);
}

static void add_release_key(ClocheApp *app, GtkGrid *grid, int row)
{
    char *labels[G_N_ELEMENTS(release_keys)] = {NULL};
    for (guint i = 0; release_keys[i]; i++) {
        guint key;
        GdkModifierType modifiers;
        gtk_accelerator_parse(release_keys[i], &key, &modifiers);
        labels[i] = gtk_accelerator_get_label(key, modifiers);
    }
    add_choice(app, grid, row, "release-key", _("_Key that releases the pointer"), release_keys,
               (const char *const *)labels);
    for (guint i = 0; labels[i]; i++)
        g_free(labels[i]);
}

void preferences_show(ClocheApp *app, GtkWindow *parent)
{
    GtkWidget *dialog = gtk_dialog_new_with_buttons(
        _("Preferences"), parent, GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR, NULL,
        NULL);
    GtkWidget *grid = gtk_grid_new();
    g_object_set(grid, "margin", 18, "row-spacing", 12, "column-spacing", 12, NULL);
    add_choice(app, GTK_GRID(grid), 0, "on-close", _("When a _console is closed"), close_choice_names, close_labels);
    add_choice(app, GTK_GRID(grid), 1, "scale", _("_Screen size of new consoles"), scales, scale_labels);
    add_release_key(app, GTK_GRID(grid), 2);
    gtk_container_add(GTK_CONTAINER(gtk_dialog_get_content_area(GTK_DIALOG(dialog))), grid);
    g_signal_connect(dialog, "response", G_CALLBACK(gtk_widget_destroy), NULL);
    gtk_widget_show_all(dialog);
}

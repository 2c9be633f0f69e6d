// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/menu-tips.h"

struct walk {
    GList *children; // of the shell, from the next one on
    menu_tip_fn *tip;
    gpointer data;
};

static GtkWidget *next_item(struct walk *walk)
{
    while (walk->children && GTK_IS_SEPARATOR_MENU_ITEM(walk->children->data))
        walk->children = walk->children->next;
    GtkWidget *item = walk->children ? walk->children->data : NULL;
    walk->children = item ? walk->children->next : NULL;
    return item;
}

// Each change is told to screen readers: only what differs is changed.
static void set_text(GtkWidget *widget, const char *tip)
{
    g_autofree char *present = gtk_widget_get_tooltip_text(widget);
    if (g_strcmp0(present, tip) == 0)
        return;
    gtk_widget_set_tooltip_text(widget, tip);
    atk_object_set_description(gtk_widget_get_accessible(widget), tip ? tip : "");
}

static void set_tip(struct walk *walk, GMenuModel *model, int index, GtkWidget *item)
{
    g_autofree char *action = NULL;
    if (!g_menu_model_get_item_attribute(model, index, G_MENU_ATTRIBUTE_ACTION, "s", &action))
        return;
    set_text(item, walk->tip(action, walk->data));
}

// GTK makes one widget for each item, in order, with separators between sections.
static void walk_model(struct walk *walk, GMenuModel *model)
{
    for (int i = 0; i < g_menu_model_get_n_items(model); i++) {
        g_autoptr(GMenuModel) section = g_menu_model_get_item_link(model, i, G_MENU_LINK_SECTION);
        g_autoptr(GMenuModel) submenu = g_menu_model_get_item_link(model, i, G_MENU_LINK_SUBMENU);
        if (section) {
            walk_model(walk, section);
            continue;
        }
        GtkWidget *item = next_item(walk);
        if (!item)
            return;
        GtkWidget *below = submenu ? gtk_menu_item_get_submenu(GTK_MENU_ITEM(item)) : NULL;
        if (below)
            menu_tips_set(GTK_MENU_SHELL(below), submenu, walk->tip, walk->data);
        else
            set_tip(walk, model, i, item);
    }
}

void menu_tips_set(GtkMenuShell *shell, GMenuModel *model, menu_tip_fn *tip, gpointer data)
{
    GList *children = gtk_container_get_children(GTK_CONTAINER(shell));
    struct walk walk = {children, tip, data};
    walk_model(&walk, model);
    g_list_free(children);
}

static void set_button(GtkWidget *widget, gpointer opaque)
{
    const struct walk *walk = opaque;
    const char *action = GTK_IS_ACTIONABLE(widget) ? gtk_actionable_get_action_name(GTK_ACTIONABLE(widget)) : NULL;
    if (action)
        set_text(widget, walk->tip(action, walk->data));
    else if (GTK_IS_CONTAINER(widget))
        gtk_container_forall(GTK_CONTAINER(widget), set_button, opaque);
}

void menu_tips_set_buttons(GtkWidget *container, menu_tip_fn *tip, gpointer data)
{
    struct walk walk = {NULL, tip, data};
    set_button(container, &walk);
}

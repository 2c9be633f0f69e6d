// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/vnc/session.h"

#include <string.h>
#include <sys/stat.h>

// ---- Passwords ----
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t length)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < length; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

static bool answers(rfbClientPtr cl, const char *response, const char *password)
{
    if (!*password)
        return false;
    uint8_t expected[CHALLENGESIZE];
    char copy[PASSWORD_MAX + 1];
    g_strlcpy(copy, password, sizeof(copy));
    memcpy(expected, cl->authChallenge, CHALLENGESIZE);
    rfbEncryptBytes(expected, copy);
    return same_bytes(expected, (const uint8_t *)response, CHALLENGESIZE);
}

rfbBool vnc_check_password(rfbClientPtr cl, const char *response, int length)
{
    struct session *session = cl->clientData;
    if (length != CHALLENGESIZE)
        return FALSE;
    g_mutex_lock(&session->server->lock);
    struct passwords passwords = session->server->passwords;
    g_mutex_unlock(&session->server->lock);
    bool full = answers(cl, response, passwords.full), view = !full && answers(cl, response, passwords.view);
    if (view) {
        cl->viewOnly = TRUE;
        session->client->view_only = true;
    }
    if (!full && !view)
        log_warning("vnc", "client %u (%s) gave a wrong password", session->client->id, session->client->peer);
    return full || view;
}

bool vnc_server_has_password(struct vnc_server *server)
{
    g_mutex_lock(&server->lock);
    bool has = server->passwords.full[0] || server->passwords.view[0];
    g_mutex_unlock(&server->lock);
    return has;
}

static bool refuse_password(GError **error, const char *text)
{
    g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, text);
    return false;
}

bool vnc_server_set_passwords(struct vnc_server *server, const char *password, const char *view_password,
                              GError **error)
{
    password = password ? password : "";
    view_password = view_password ? view_password : "";
    if (strlen(password) > PASSWORD_MAX || strlen(view_password) > PASSWORD_MAX)
        return refuse_password(error, "A VNC password has 8 characters at most: choose a shorter one");
    if (*password && strcmp(password, view_password) == 0)
        return refuse_password(error, "The VNC password and the view-only password are the same: choose another");
    if (!*password && !*view_password && !vnc_net_local(server->net))
        return refuse_password(error, "VNC on an address that other hosts reach needs a password: give one, or listen "
                                      "on 127.0.0.1");
    g_mutex_lock(&server->lock);
    g_strlcpy(server->passwords.full, password, sizeof(server->passwords.full));
    g_strlcpy(server->passwords.view, view_password, sizeof(server->passwords.view));
    server->passwords_changed = true;
    g_mutex_unlock(&server->lock);
    vnc_server_wake(server);
    return true;
}

bool vnc_server_set_password(struct vnc_server *server, const char *password, GError **error)
{
    g_mutex_lock(&server->lock);
    struct passwords passwords = server->passwords;
    g_mutex_unlock(&server->lock);
    return vnc_server_set_passwords(server, password, passwords.view, error);
}

bool vnc_server_load_passwords(struct vnc_server *server, const char *file, GError **error)
{
    struct stat status;
    g_autofree char *text = NULL;
    gsize length;
    if (stat(file, &status) == 0 && status.st_mode & (S_IRWXG | S_IRWXO)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Others may read the VNC password file %s: run chmod 600 on it", file);
        return false;
    }
    if (!g_file_get_contents(file, &text, &length, error)) {
        g_prefix_error(error, "Cannot read the VNC password file: ");
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", 3);
    bool good = vnc_server_set_passwords(server, lines[0], lines[0] ? lines[1] : NULL, error);
    if (good && !vnc_server_has_password(server)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The VNC password file %s is empty: write the password into its first line", file);
        good = false;
    }
    memset(text, 0, length);
    return good;
}

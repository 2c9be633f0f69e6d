// SPDX-License-Identifier: GPL-2.0-or-later
// Arguments against the command table, and values.
#include "core/control/qmp.h"

#include <inttypes.h>
#include <string.h>

JsonNode *qmp_node_object(JsonObject *object)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    return node;
}

JsonNode *qmp_node_array(JsonArray *array)
{
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, array);
    return node;
}

JsonNode *qmp_node_string(const char *text)
{
    JsonNode *node = json_node_new(JSON_NODE_VALUE);
    json_node_set_string(node, text);
    return node;
}

const char *qmp_string(struct qmp_call *call, const char *name)
{
    return json_object_has_member(call->arguments, name) ? json_object_get_string_member(call->arguments, name) : NULL;
}

int64_t qmp_int(struct qmp_call *call, const char *name, int64_t missing)
{
    return json_object_has_member(call->arguments, name) ? json_object_get_int_member(call->arguments, name) : missing;
}

bool qmp_bool(struct qmp_call *call, const char *name, bool missing)
{
    return json_object_has_member(call->arguments, name) ? json_object_get_boolean_member(call->arguments, name)
                                                         : missing;
}

static const char *const type_names[] = {"string", "integer", "boolean", "number", "object", "array"};

static bool has_type(JsonNode *node, enum qmp_type type)
{
    if (type == QMP_OBJECT)
        return JSON_NODE_HOLDS_OBJECT(node);
    if (type == QMP_ARRAY)
        return JSON_NODE_HOLDS_ARRAY(node);
    if (!JSON_NODE_HOLDS_VALUE(node))
        return false;
    GType value = json_node_get_value_type(node);
    switch (type) {
    case QMP_STRING:
        return value == G_TYPE_STRING;
    case QMP_INT:
        return value == G_TYPE_INT64;
    case QMP_BOOL:
        return value == G_TYPE_BOOLEAN;
    default:
        return value == G_TYPE_INT64 || value == G_TYPE_DOUBLE;
    }
}

static bool check_one(const struct qmp_argument *argument, JsonNode *node, const char *what, GError **error)
{
    if (!has_type(node, argument->type)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Invalid parameter type for '%s' of %s, expected: %s",
                    argument->name, what, type_names[argument->type]);
        return false;
    }
    if (argument->type == QMP_INT && argument->max) {
        int64_t value = json_node_get_int(node);
        if (value < argument->min || value > argument->max) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                        "Parameter '%s' of %s must be from %" PRId64 " to %" PRId64, argument->name, what,
                        argument->min, argument->max);
            return false;
        }
    }
    if (argument->choices && !g_strv_contains(argument->choices, json_node_get_string(node))) {
        g_autofree char *list = g_strjoinv(", ", (char **)argument->choices);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Parameter '%s' of %s does not accept '%.100s'; it is one of %s", argument->name, what,
                    json_node_get_string(node), list);
        return false;
    }
    return true;
}

static const struct qmp_argument *find_argument(const struct qmp_argument *arguments, const char *name)
{
    for (; arguments && arguments->name; arguments++)
        if (strcmp(arguments->name, name) == 0)
            return arguments;
    return NULL;
}

bool qmp_check_arguments(const struct qmp_argument *arguments, JsonObject *object, const char *what, GError **error)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;
    json_object_iter_init(&iter, object);
    while (json_object_iter_next(&iter, &name, &node)) {
        const struct qmp_argument *argument = find_argument(arguments, name);
        if (!argument) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Parameter '%.100s' is unexpected for %s", name,
                        what);
            return false;
        }
        if (!check_one(argument, node, what, error))
            return false;
    }
    for (; arguments && arguments->name; arguments++)
        if (!arguments->optional && !json_object_has_member(object, arguments->name)) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Parameter '%s' is missing for %s", arguments->name,
                        what);
            return false;
        }
    return true;
}

const char *qmp_error_class(const GError *error)
{
    return g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND) ? "DeviceNotFound" : "GenericError";
}

static const char *const code_names[] = {
    [CLOCHE_ERROR_FAILED] = "failed",       [CLOCHE_ERROR_INVALID] = "invalid",
    [CLOCHE_ERROR_NOT_FOUND] = "not-found", [CLOCHE_ERROR_EXISTS] = "exists",
    [CLOCHE_ERROR_BUSY] = "busy",           [CLOCHE_ERROR_UNSUPPORTED] = "unsupported",
    [CLOCHE_ERROR_CORRUPT] = "corrupt",     [CLOCHE_ERROR_CANCELLED] = "cancelled",
    [CLOCHE_ERROR_NO_SPACE] = "no-space",
};

const char *qmp_error_code_name(const GError *error)
{
    bool ours = error->domain == CLOCHE_ERROR && error->code >= 0 && error->code < (int)G_N_ELEMENTS(code_names);
    return ours ? code_names[error->code] : NULL;
}

enum cloche_error qmp_error_code(const char *name, enum cloche_error missing)
{
    for (unsigned i = 0; name && i < G_N_ELEMENTS(code_names); i++)
        if (strcmp(code_names[i], name) == 0)
            return i;
    return missing;
}

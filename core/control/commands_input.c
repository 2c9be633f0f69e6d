// SPDX-License-Identifier: GPL-2.0-or-later
// Keys and pointer: send-key, input-send-event, typing.
#include "core/control/server.h"
#include "core/screen/input.h"
#include "core/screen/surface.h"

#include <linux/input-event-codes.h>
#include <string.h>

#define STROKE_MAX_KEYS  16
#define STROKE_MAX_QUEUE 256
#define EVENTS_MAX       256

// ---- Strokes of send-key: pressed together, held, released, one after the other ----

struct key_stroke {
    unsigned codes[STROKE_MAX_KEYS], count;
    unsigned hold_ms;
};

// Main loop thread.
struct stroke_queue {
    struct machine *machine;
    GQueue strokes; // struct key_stroke *; the head is pressed
    GSource *timer;
};

static void press_head(struct stroke_queue *queue);

static gboolean release_head(gpointer data)
{
    struct stroke_queue *queue = data;
    g_autofree struct key_stroke *stroke = g_queue_pop_head(&queue->strokes);
    for (unsigned i = stroke->count; i-- > 0;)
        input_key(queue->machine->input, stroke->codes[i], false);
    input_sync(queue->machine->input);
    g_clear_pointer(&queue->timer, g_source_unref);
    if (!g_queue_is_empty(&queue->strokes))
        press_head(queue);
    return G_SOURCE_REMOVE;
}

static void press_head(struct stroke_queue *queue)
{
    const struct key_stroke *stroke = g_queue_peek_head(&queue->strokes);
    for (unsigned i = 0; i < stroke->count; i++)
        input_key(queue->machine->input, stroke->codes[i], true);
    input_sync(queue->machine->input);
    queue->timer = g_timeout_source_new(stroke->hold_ms);
    g_source_set_callback(queue->timer, release_head, queue, NULL);
    g_source_attach(queue->timer, queue->machine->context);
}

struct stroke_queue *stroke_queue_new(struct machine *machine)
{
    struct stroke_queue *queue = g_new0(struct stroke_queue, 1);
    queue->machine = machine;
    g_queue_init(&queue->strokes);
    return queue;
}

void stroke_queue_free(struct stroke_queue *queue)
{
    if (queue->timer) {
        g_source_destroy(queue->timer);
        g_source_unref(queue->timer);
    }
    g_queue_clear_full(&queue->strokes, g_free);
    g_free(queue);
}

// ---- Keys by name ----

static const struct qmp_argument key_value[] = {QMP_NEED("type", QMP_STRING), QMP_END};
static const struct qmp_argument key_qcode[] = {QMP_NEED("type", QMP_STRING), QMP_NEED("data", QMP_STRING), QMP_END};
static const struct qmp_argument key_number[] = {QMP_NEED("type", QMP_STRING),
                                                 QMP_NEED("data", QMP_INT, .min = 1, .max = KEY_CNT - 1), QMP_END};

// A KeyValue of the schema: {"type": "qcode", "data": "a"}, {"type": "number", "data": 30} (set 1; 0x80 for 0xE0), and
// our
// {"type": "x-cloche-evdev", "data": 30}. Returns the evdev code or 0.
static unsigned parse_key(JsonNode *node, GError **error)
{
    JsonObject *object = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    const char *type = object ? json_object_get_string_member_with_default(object, "type", NULL) : NULL;
    if (!type) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "A key is an object with 'type' and 'data'");
        return 0;
    }
    bool qcode = strcmp(type, "qcode") == 0, number = strcmp(type, "number") == 0;
    const struct qmp_argument *schema = qcode                                           ? key_qcode
                                        : number || strcmp(type, "x-cloche-evdev") == 0 ? key_number
                                                                                        : key_value;
    if (schema == key_value) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "A key's type is 'qcode', 'number' or 'x-cloche-evdev', not '%.50s'", type);
        return 0;
    }
    if (!qmp_check_arguments(schema, object, "a key", error))
        return 0;
    if (schema == key_number && !number)
        return json_object_get_int_member(object, "data");
    const struct key *key = qcode ? key_by_qcode(json_object_get_string_member(object, "data"))
                                  : key_by_set1(json_object_get_int_member(object, "data"));
    if (!key) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no such key: %.50s",
                    qcode ? json_object_get_string_member(object, "data") : "unknown scan code");
        return 0;
    }
    return key->evdev;
}

static bool have_input(struct qmp_call *call, GError **error)
{
    if (!call_machine(call)->input)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "The machine has no keyboard or pointer");
    return call_machine(call)->input != NULL;
}

static JsonNode *send_key(struct qmp_call *call, GError **error)
{
    struct stroke_queue *queue = call_server(call)->strokes;
    JsonArray *list = json_object_get_array_member(call->arguments, "keys");
    unsigned count = json_array_get_length(list);
    if (!have_input(call, error))
        return NULL;
    if (count < 1 || count > STROKE_MAX_KEYS || queue->strokes.length >= STROKE_MAX_QUEUE) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "send-key takes 1 to %d keys, and %d strokes may wait",
                    STROKE_MAX_KEYS, STROKE_MAX_QUEUE);
        return NULL;
    }
    g_autofree struct key_stroke *stroke = g_new0(struct key_stroke, 1);
    stroke->hold_ms = qmp_int(call, "hold-time", 100);
    for (unsigned i = 0; i < count; i++) {
        unsigned code = parse_key(json_array_get_element(list, i), error);
        if (!code)
            return NULL;
        stroke->codes[stroke->count++] = code;
    }
    g_queue_push_tail(&queue->strokes, g_steal_pointer(&stroke));
    if (!queue->timer)
        press_head(queue);
    return NULL;
}

// ---- input-send-event ----

static const char *const event_types[] = {"key", "btn", "rel", "abs", NULL};
static const char *const buttons[] = {"left",  "middle",     "right",       "wheel-up", "wheel-down", "side",
                                      "extra", "wheel-left", "wheel-right", NULL}; // order of enum input_button
static const char *const axes[] = {"x", "y", NULL};
static const struct qmp_argument event_schema[] = {QMP_NEED("type", QMP_STRING, .choices = event_types),
                                                   QMP_NEED("data", QMP_OBJECT), QMP_END};
static const struct qmp_argument key_schema[] = {QMP_NEED("down", QMP_BOOL), QMP_NEED("key", QMP_OBJECT), QMP_END};
static const struct qmp_argument button_schema[] = {QMP_NEED("down", QMP_BOOL),
                                                    QMP_NEED("button", QMP_STRING, .choices = buttons), QMP_END};
static const struct qmp_argument move_schema[] = {QMP_NEED("axis", QMP_STRING, .choices = axes),
                                                  QMP_NEED("value", QMP_INT, .min = -32768, .max = 32767), QMP_END};
static const struct qmp_argument position_schema[] = {QMP_NEED("axis", QMP_STRING, .choices = axes),
                                                      QMP_NEED("value", QMP_INT, .min = 0, .max = 32767), QMP_END};
static const struct qmp_argument *const event_schemas[] = {key_schema, button_schema, move_schema, position_schema};

struct parsed_event {
    unsigned type; // index of event_types
    bool down;
    unsigned code; // key, button, or axis
    int value;
};

static unsigned index_of(const char *const *list, const char *text)
{
    unsigned i = 0;
    while (list[i] && strcmp(list[i], text) != 0)
        i++;
    return i;
}

static bool parse_event(JsonNode *node, struct parsed_event *event, GError **error)
{
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "An input event is an object with 'type' and 'data'");
        return false;
    }
    JsonObject *object = json_node_get_object(node);
    if (!qmp_check_arguments(event_schema, object, "an input event", error))
        return false;
    event->type = index_of(event_types, json_object_get_string_member(object, "type"));
    JsonObject *data = json_object_get_object_member(object, "data");
    if (!qmp_check_arguments(event_schemas[event->type], data, "an input event", error))
        return false;
    if (event->type < 2)
        event->down = json_object_get_boolean_member(data, "down");
    else
        event->value = json_object_get_int_member(data, "value");
    if (event->type == 0)
        event->code = parse_key(json_object_get_member(data, "key"), error);
    else if (event->type == 1)
        event->code = index_of(buttons, json_object_get_string_member(data, "button"));
    else
        event->code = index_of(axes, json_object_get_string_member(data, "axis"));
    return event->type != 0 || event->code != 0;
}

static void play_events(struct control_server *server, const struct parsed_event *events, unsigned count)
{
    struct input *input = server->machine->input;
    int dx = 0, dy = 0;
    bool moved = false;
    for (unsigned i = 0; i < count; i++) {
        const struct parsed_event *event = &events[i];
        if (event->type == 0)
            input_key(input, event->code, event->down);
        else if (event->type == 1)
            input_button(input, event->code, event->down);
        else if (event->type == 2)
            *(event->code ? &dy : &dx) += event->value;
        else {
            *(event->code ? &server->pointer_y : &server->pointer_x) = event->value;
            moved = true;
        }
    }
    if (dx || dy)
        input_pointer_relative(input, dx, dy);
    if (moved)
        input_pointer_absolute(input, server->pointer_x, server->pointer_y, 32768, 32768);
    input_sync(input);
    if (server->machine->screen)
        screen_expect_change(server->machine->screen);
}

static JsonNode *send_event(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_object_get_array_member(call->arguments, "events");
    unsigned count = json_array_get_length(list);
    if (!have_input(call, error))
        return NULL;
    if (count > EVENTS_MAX) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "At most %d events at once", EVENTS_MAX);
        return NULL;
    }
    g_autofree struct parsed_event *events = g_new0(struct parsed_event, count);
    for (unsigned i = 0; i < count; i++)
        if (!parse_event(json_array_get_element(list, i), &events[i], error))
            return NULL; // nothing was sent yet
    play_events(call_server(call), events, count);
    return NULL;
}

// ---- Pointer, typing, layout ----

static JsonNode *send_pointer(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    if (!have_input(call, error))
        return NULL;
    input_pointer_absolute(machine->input, qmp_int(call, "x", 0), qmp_int(call, "y", 0), qmp_int(call, "width", 1),
                           qmp_int(call, "height", 1));
    input_sync(machine->input);
    return NULL;
}

static JsonNode *type_text(struct qmp_call *call, GError **error)
{
    if (have_input(call, error))
        input_type_text(call_machine(call)->input, qmp_string(call, "text"), error);
    return NULL;
}

static JsonNode *set_layout(struct qmp_call *call, GError **error)
{
    if (have_input(call, error))
        input_set_layout(call_machine(call)->input, qmp_string(call, "layout"), error);
    return NULL;
}

static JsonNode *release_keys(struct qmp_call *call, GError **error)
{
    if (have_input(call, error))
        input_release_all(call_machine(call)->input);
    return NULL;
}

static JsonNode *query_input(struct qmp_call *call, GError **error)
{
    struct input *input = call_machine(call)->input;
    JsonObject *info = json_object_new();
    json_object_set_boolean_member(info, "absolute", input && input_absolute(input));
    json_object_set_boolean_member(info, "typing", input && input_typing(input));
    json_object_set_int_member(info, "leds", input ? input_leds(input) : 0);
    return qmp_node_object(info);
}

struct mouse_list {
    JsonArray *list;
    bool current_taken;
};

static void add_mouse(void *opaque, const struct input_handler *handler)
{
    struct mouse_list *mice = opaque;
    if (!handler->relative && !handler->absolute)
        return;
    JsonObject *entry = json_object_new();
    json_object_set_string_member(entry, "name", handler->name);
    json_object_set_int_member(entry, "index", json_array_get_length(mice->list));
    json_object_set_boolean_member(entry, "current", !mice->current_taken);
    json_object_set_boolean_member(entry, "absolute", handler->absolute);
    json_array_add_object_element(mice->list, entry);
    mice->current_taken = true; // the one in use comes first
}

static JsonNode *query_mice(struct qmp_call *call, GError **error)
{
    struct mouse_list mice = {json_array_new(), false};
    if (call_machine(call)->input)
        input_foreach_handler(call_machine(call)->input, add_mouse, &mice);
    return qmp_node_array(mice.list);
}

static const struct qmp_argument send_key_arguments[] = {
    QMP_NEED("keys", QMP_ARRAY), QMP_MAY("hold-time", QMP_INT, .min = 0, .max = 10000), QMP_END};
static const struct qmp_argument send_event_arguments[] = {QMP_NEED("events", QMP_ARRAY), QMP_MAY("device", QMP_STRING),
                                                           QMP_MAY("head", QMP_INT), QMP_END};
#define EXTENT .min = 1, .max = SURFACE_MAX_WIDTH
#define PLACE  .min = 0, .max = SURFACE_MAX_WIDTH
static const struct qmp_argument pointer_arguments[] = {QMP_NEED("x", QMP_INT, PLACE), QMP_NEED("y", QMP_INT, PLACE),
                                                        QMP_NEED("width", QMP_INT, EXTENT),
                                                        QMP_NEED("height", QMP_INT, EXTENT), QMP_END};
static const struct qmp_argument text_arguments[] = {QMP_NEED("text", QMP_STRING), QMP_END};
static const struct qmp_argument layout_arguments[] = {QMP_NEED("layout", QMP_STRING), QMP_END};

const struct qmp_command control_input_commands[] = {
    QMP_REQUEST("send-key", send_key, send_key_arguments, QMP_ANY_STATE, "Presses keys together, then releases them."),
    QMP_REQUEST("input-send-event", send_event, send_event_arguments, QMP_ANY_STATE, "Keys, buttons and motion."),
    QMP_REQUEST("x-cloche-pointer", send_pointer, pointer_arguments, QMP_ANY_STATE, "Pointer to a pixel of a picture."),
    QMP_REQUEST("x-cloche-type-text", type_text, text_arguments, QMP_ANY_STATE, "Types a text on the guest's layout."),
    QMP_REQUEST("x-cloche-set-layout", set_layout, layout_arguments, QMP_ANY_STATE, "The guest's keyboard layout."),
    QMP_REQUEST("x-cloche-release-keys", release_keys, NULL, QMP_ANY_STATE, "Releases every key and button."),
    QMP_COMMAND("x-cloche-query-input", query_input, NULL, "Pointer mode, keyboard lights, typing."),
    QMP_COMMAND("query-mice", query_mice, NULL, "Pointer devices; the one in use is current."),
    QMP_END,
};

// SPDX-License-Identifier: GPL-2.0-or-later
// The one key table: evdev (Linux input-event-codes.h), QKeyCode (QMP), X11 keysym (US layout), AT scan code sets 1 and
// 2 and PS/2 set 3 (IBM PS/2 Hardware Interface Technical Reference; Microsoft Keyboard Scan Code Specification), USB
// HID usage (HID Usage Tables, page 7). The Pause key's codes here are those with Ctrl; its plain sequence, like Print
// Screen's, is made by the PS/2 keyboard.
#include "core/screen/input.h"

#include <linux/input-event-codes.h>
#include <string.h>
#include <xkbcommon/xkbcommon-keysyms.h>

// clang-format off
const struct key keys[] = {
//   evdev                 qcode                keysym, with Shift                            set 1   set 2   set 3 HID
    {KEY_ESC,               "esc",               XKB_KEY_Escape,                0,                     0x01,   0x76,   0x08, 0x29},
    {KEY_1,                 "1",                 XKB_KEY_1,                     XKB_KEY_exclam,        0x02,   0x16,   0x16, 0x1e},
    {KEY_2,                 "2",                 XKB_KEY_2,                     XKB_KEY_at,            0x03,   0x1e,   0x1e, 0x1f},
    {KEY_3,                 "3",                 XKB_KEY_3,                     XKB_KEY_numbersign,    0x04,   0x26,   0x26, 0x20},
    {KEY_4,                 "4",                 XKB_KEY_4,                     XKB_KEY_dollar,        0x05,   0x25,   0x25, 0x21},
    {KEY_5,                 "5",                 XKB_KEY_5,                     XKB_KEY_percent,       0x06,   0x2e,   0x2e, 0x22},
    {KEY_6,                 "6",                 XKB_KEY_6,                     XKB_KEY_asciicircum,   0x07,   0x36,   0x36, 0x23},
    {KEY_7,                 "7",                 XKB_KEY_7,                     XKB_KEY_ampersand,     0x08,   0x3d,   0x3d, 0x24},
    {KEY_8,                 "8",                 XKB_KEY_8,                     XKB_KEY_asterisk,      0x09,   0x3e,   0x3e, 0x25},
    {KEY_9,                 "9",                 XKB_KEY_9,                     XKB_KEY_parenleft,     0x0a,   0x46,   0x46, 0x26},
    {KEY_0,                 "0",                 XKB_KEY_0,                     XKB_KEY_parenright,    0x0b,   0x45,   0x45, 0x27},
    {KEY_MINUS,             "minus",             XKB_KEY_minus,                 XKB_KEY_underscore,    0x0c,   0x4e,   0x4e, 0x2d},
    {KEY_EQUAL,             "equal",             XKB_KEY_equal,                 XKB_KEY_plus,          0x0d,   0x55,   0x55, 0x2e},
    {KEY_BACKSPACE,         "backspace",         XKB_KEY_BackSpace,             0,                     0x0e,   0x66,   0x66, 0x2a},
    {KEY_TAB,               "tab",               XKB_KEY_Tab,                   XKB_KEY_ISO_Left_Tab,  0x0f,   0x0d,   0x0d, 0x2b},
    {KEY_Q,                 "q",                 XKB_KEY_q,                     XKB_KEY_Q,             0x10,   0x15,   0x15, 0x14},
    {KEY_W,                 "w",                 XKB_KEY_w,                     XKB_KEY_W,             0x11,   0x1d,   0x1d, 0x1a},
    {KEY_E,                 "e",                 XKB_KEY_e,                     XKB_KEY_E,             0x12,   0x24,   0x24, 0x08},
    {KEY_R,                 "r",                 XKB_KEY_r,                     XKB_KEY_R,             0x13,   0x2d,   0x2d, 0x15},
    {KEY_T,                 "t",                 XKB_KEY_t,                     XKB_KEY_T,             0x14,   0x2c,   0x2c, 0x17},
    {KEY_Y,                 "y",                 XKB_KEY_y,                     XKB_KEY_Y,             0x15,   0x35,   0x35, 0x1c},
    {KEY_U,                 "u",                 XKB_KEY_u,                     XKB_KEY_U,             0x16,   0x3c,   0x3c, 0x18},
    {KEY_I,                 "i",                 XKB_KEY_i,                     XKB_KEY_I,             0x17,   0x43,   0x43, 0x0c},
    {KEY_O,                 "o",                 XKB_KEY_o,                     XKB_KEY_O,             0x18,   0x44,   0x44, 0x12},
    {KEY_P,                 "p",                 XKB_KEY_p,                     XKB_KEY_P,             0x19,   0x4d,   0x4d, 0x13},
    {KEY_LEFTBRACE,         "bracket_left",      XKB_KEY_bracketleft,           XKB_KEY_braceleft,     0x1a,   0x54,   0x54, 0x2f},
    {KEY_RIGHTBRACE,        "bracket_right",     XKB_KEY_bracketright,          XKB_KEY_braceright,    0x1b,   0x5b,   0x5b, 0x30},
    {KEY_ENTER,             "ret",               XKB_KEY_Return,                0,                     0x1c,   0x5a,   0x5a, 0x28},
    {KEY_LEFTCTRL,          "ctrl",              XKB_KEY_Control_L,             0,                     0x1d,   0x14,   0x11, 0xe0},
    {KEY_A,                 "a",                 XKB_KEY_a,                     XKB_KEY_A,             0x1e,   0x1c,   0x1c, 0x04},
    {KEY_S,                 "s",                 XKB_KEY_s,                     XKB_KEY_S,             0x1f,   0x1b,   0x1b, 0x16},
    {KEY_D,                 "d",                 XKB_KEY_d,                     XKB_KEY_D,             0x20,   0x23,   0x23, 0x07},
    {KEY_F,                 "f",                 XKB_KEY_f,                     XKB_KEY_F,             0x21,   0x2b,   0x2b, 0x09},
    {KEY_G,                 "g",                 XKB_KEY_g,                     XKB_KEY_G,             0x22,   0x34,   0x34, 0x0a},
    {KEY_H,                 "h",                 XKB_KEY_h,                     XKB_KEY_H,             0x23,   0x33,   0x33, 0x0b},
    {KEY_J,                 "j",                 XKB_KEY_j,                     XKB_KEY_J,             0x24,   0x3b,   0x3b, 0x0d},
    {KEY_K,                 "k",                 XKB_KEY_k,                     XKB_KEY_K,             0x25,   0x42,   0x42, 0x0e},
    {KEY_L,                 "l",                 XKB_KEY_l,                     XKB_KEY_L,             0x26,   0x4b,   0x4b, 0x0f},
    {KEY_SEMICOLON,         "semicolon",         XKB_KEY_semicolon,             XKB_KEY_colon,         0x27,   0x4c,   0x4c, 0x33},
    {KEY_APOSTROPHE,        "apostrophe",        XKB_KEY_apostrophe,            XKB_KEY_quotedbl,      0x28,   0x52,   0x52, 0x34},
    {KEY_GRAVE,             "grave_accent",      XKB_KEY_grave,                 XKB_KEY_asciitilde,    0x29,   0x0e,   0x0e, 0x35},
    {KEY_LEFTSHIFT,         "shift",             XKB_KEY_Shift_L,               0,                     0x2a,   0x12,   0x12, 0xe1},
    {KEY_BACKSLASH,         "backslash",         XKB_KEY_backslash,             XKB_KEY_bar,           0x2b,   0x5d,   0x5c, 0x31},
    {KEY_Z,                 "z",                 XKB_KEY_z,                     XKB_KEY_Z,             0x2c,   0x1a,   0x1a, 0x1d},
    {KEY_X,                 "x",                 XKB_KEY_x,                     XKB_KEY_X,             0x2d,   0x22,   0x22, 0x1b},
    {KEY_C,                 "c",                 XKB_KEY_c,                     XKB_KEY_C,             0x2e,   0x21,   0x21, 0x06},
    {KEY_V,                 "v",                 XKB_KEY_v,                     XKB_KEY_V,             0x2f,   0x2a,   0x2a, 0x19},
    {KEY_B,                 "b",                 XKB_KEY_b,                     XKB_KEY_B,             0x30,   0x32,   0x32, 0x05},
    {KEY_N,                 "n",                 XKB_KEY_n,                     XKB_KEY_N,             0x31,   0x31,   0x31, 0x11},
    {KEY_M,                 "m",                 XKB_KEY_m,                     XKB_KEY_M,             0x32,   0x3a,   0x3a, 0x10},
    {KEY_COMMA,             "comma",             XKB_KEY_comma,                 XKB_KEY_less,          0x33,   0x41,   0x41, 0x36},
    {KEY_DOT,               "dot",               XKB_KEY_period,                XKB_KEY_greater,       0x34,   0x49,   0x49, 0x37},
    {KEY_SLASH,             "slash",             XKB_KEY_slash,                 XKB_KEY_question,      0x35,   0x4a,   0x4a, 0x38},
    {KEY_RIGHTSHIFT,        "shift_r",           XKB_KEY_Shift_R,               0,                     0x36,   0x59,   0x59, 0xe5},
    {KEY_KPASTERISK,        "kp_multiply",       XKB_KEY_KP_Multiply,           0,                     0x37,   0x7c,   0x7e, 0x55},
    {KEY_LEFTALT,           "alt",               XKB_KEY_Alt_L,                 XKB_KEY_Meta_L,        0x38,   0x11,   0x19, 0xe2},
    {KEY_SPACE,             "spc",               XKB_KEY_space,                 0,                     0x39,   0x29,   0x29, 0x2c},
    {KEY_CAPSLOCK,          "caps_lock",         XKB_KEY_Caps_Lock,             0,                     0x3a,   0x58,   0x14, 0x39},
    {KEY_F1,                "f1",                XKB_KEY_F1,                    0,                     0x3b,   0x05,   0x07, 0x3a},
    {KEY_F2,                "f2",                XKB_KEY_F2,                    0,                     0x3c,   0x06,   0x0f, 0x3b},
    {KEY_F3,                "f3",                XKB_KEY_F3,                    0,                     0x3d,   0x04,   0x17, 0x3c},
    {KEY_F4,                "f4",                XKB_KEY_F4,                    0,                     0x3e,   0x0c,   0x1f, 0x3d},
    {KEY_F5,                "f5",                XKB_KEY_F5,                    0,                     0x3f,   0x03,   0x27, 0x3e},
    {KEY_F6,                "f6",                XKB_KEY_F6,                    0,                     0x40,   0x0b,   0x2f, 0x3f},
    {KEY_F7,                "f7",                XKB_KEY_F7,                    0,                     0x41,   0x83,   0x37, 0x40},
    {KEY_F8,                "f8",                XKB_KEY_F8,                    0,                     0x42,   0x0a,   0x3f, 0x41},
    {KEY_F9,                "f9",                XKB_KEY_F9,                    0,                     0x43,   0x01,   0x47, 0x42},
    {KEY_F10,               "f10",               XKB_KEY_F10,                   0,                     0x44,   0x09,   0x4f, 0x43},
    {KEY_NUMLOCK,           "num_lock",          XKB_KEY_Num_Lock,              0,                     0x45,   0x77,   0x76, 0x53},
    {KEY_SCROLLLOCK,        "scroll_lock",       XKB_KEY_Scroll_Lock,           0,                     0x46,   0x7e,   0x5f, 0x47},
    {KEY_KP7,               "kp_7",              XKB_KEY_KP_Home,               XKB_KEY_KP_7,          0x47,   0x6c,   0x6c, 0x5f},
    {KEY_KP8,               "kp_8",              XKB_KEY_KP_Up,                 XKB_KEY_KP_8,          0x48,   0x75,   0x75, 0x60},
    {KEY_KP9,               "kp_9",              XKB_KEY_KP_Prior,              XKB_KEY_KP_9,          0x49,   0x7d,   0x7d, 0x61},
    {KEY_KPMINUS,           "kp_subtract",       XKB_KEY_KP_Subtract,           0,                     0x4a,   0x7b,   0x84, 0x56},
    {KEY_KP4,               "kp_4",              XKB_KEY_KP_Left,               XKB_KEY_KP_4,          0x4b,   0x6b,   0x6b, 0x5c},
    {KEY_KP5,               "kp_5",              XKB_KEY_KP_Begin,              XKB_KEY_KP_5,          0x4c,   0x73,   0x73, 0x5d},
    {KEY_KP6,               "kp_6",              XKB_KEY_KP_Right,              XKB_KEY_KP_6,          0x4d,   0x74,   0x74, 0x5e},
    {KEY_KPPLUS,            "kp_add",            XKB_KEY_KP_Add,                0,                     0x4e,   0x79,   0x7c, 0x57},
    {KEY_KP1,               "kp_1",              XKB_KEY_KP_End,                XKB_KEY_KP_1,          0x4f,   0x69,   0x69, 0x59},
    {KEY_KP2,               "kp_2",              XKB_KEY_KP_Down,               XKB_KEY_KP_2,          0x50,   0x72,   0x72, 0x5a},
    {KEY_KP3,               "kp_3",              XKB_KEY_KP_Next,               XKB_KEY_KP_3,          0x51,   0x7a,   0x7a, 0x5b},
    {KEY_KP0,               "kp_0",              XKB_KEY_KP_Insert,             XKB_KEY_KP_0,          0x52,   0x70,   0x70, 0x62},
    {KEY_KPDOT,             "kp_decimal",        XKB_KEY_KP_Delete,             XKB_KEY_KP_Decimal,    0x53,   0x71,   0x71, 0x63},
    {KEY_102ND,             "less",              0,                             0,                     0x56,   0x61,   0x13, 0x64},
    {KEY_F11,               "f11",               XKB_KEY_F11,                   0,                     0x57,   0x78,   0x56, 0x44},
    {KEY_F12,               "f12",               XKB_KEY_F12,                   0,                     0x58,   0x07,   0x5e, 0x45},
    {KEY_RO,                "ro",                0,                             0,                     0x73,   0x51,   0x51, 0x87},
    {KEY_ZENKAKUHANKAKU,    NULL,                XKB_KEY_Zenkaku_Hankaku,       0,                     0x76,   0x5f,   0,    0x94},
    {KEY_KATAKANA,          NULL,                XKB_KEY_Katakana,              0,                     0x78,   0x63,   0,    0x92},
    {KEY_HIRAGANA,          "hiragana",          XKB_KEY_Hiragana,              0,                     0x77,   0x62,   0,    0x93},
    {KEY_HENKAN,            "henkan",            XKB_KEY_Henkan,                0,                     0x79,   0x64,   0x86, 0x8a},
    {KEY_KATAKANAHIRAGANA,  "katakanahiragana",  XKB_KEY_Hiragana_Katakana,     0,                     0x70,   0x13,   0x87, 0x88},
    {KEY_MUHENKAN,          "muhenkan",          XKB_KEY_Muhenkan,              0,                     0x7b,   0x67,   0x85, 0x8b},
    {KEY_KPJPCOMMA,         NULL,                0,                             0,                     0x5c,   0x27,   0,    0x8c},
    {KEY_KPENTER,           "kp_enter",          XKB_KEY_KP_Enter,              0,                     0xe01c, 0xe05a, 0x79, 0x58},
    {KEY_RIGHTCTRL,         "ctrl_r",            XKB_KEY_Control_R,             0,                     0xe01d, 0xe014, 0x58, 0xe4},
    {KEY_KPSLASH,           "kp_divide",         XKB_KEY_KP_Divide,             0,                     0xe035, 0xe04a, 0x77, 0x54},
    {KEY_SYSRQ,             "print",             XKB_KEY_Print,                 XKB_KEY_Sys_Req,       0xe037, 0xe07c, 0x57, 0x46},
    {KEY_RIGHTALT,          "alt_r",             XKB_KEY_Alt_R,                 XKB_KEY_ISO_Level3_Shift, 0xe038, 0xe011, 0x39, 0xe6},
    {KEY_HOME,              "home",              XKB_KEY_Home,                  0,                     0xe047, 0xe06c, 0x6e, 0x4a},
    {KEY_UP,                "up",                XKB_KEY_Up,                    0,                     0xe048, 0xe075, 0x63, 0x52},
    {KEY_PAGEUP,            "pgup",              XKB_KEY_Prior,                 0,                     0xe049, 0xe07d, 0x6f, 0x4b},
    {KEY_LEFT,              "left",              XKB_KEY_Left,                  0,                     0xe04b, 0xe06b, 0x61, 0x50},
    {KEY_RIGHT,             "right",             XKB_KEY_Right,                 0,                     0xe04d, 0xe074, 0x6a, 0x4f},
    {KEY_END,               "end",               XKB_KEY_End,                   0,                     0xe04f, 0xe069, 0x65, 0x4d},
    {KEY_DOWN,              "down",              XKB_KEY_Down,                  0,                     0xe050, 0xe072, 0x60, 0x51},
    {KEY_PAGEDOWN,          "pgdn",              XKB_KEY_Next,                  0,                     0xe051, 0xe07a, 0x6d, 0x4e},
    {KEY_INSERT,            "insert",            XKB_KEY_Insert,                0,                     0xe052, 0xe070, 0x67, 0x49},
    {KEY_DELETE,            "delete",            XKB_KEY_Delete,                0,                     0xe053, 0xe071, 0x64, 0x4c},
    {KEY_MUTE,              "audiomute",         XKB_KEY_XF86AudioMute,         0,                     0xe020, 0xe023, 0x9c, 0x7f},
    {KEY_VOLUMEDOWN,        "volumedown",        XKB_KEY_XF86AudioLowerVolume,  0,                     0xe02e, 0xe021, 0x9d, 0x81},
    {KEY_VOLUMEUP,          "volumeup",          XKB_KEY_XF86AudioRaiseVolume,  0,                     0xe030, 0xe032, 0x95, 0x80},
    {KEY_POWER,             "power",             XKB_KEY_XF86PowerOff,          0,                     0xe05e, 0xe037, 0,    0x66},
    {KEY_KPEQUAL,           "kp_equals",         XKB_KEY_KP_Equal,              0,                     0x59,   0x0f,   0,    0x67},
    {KEY_PAUSE,             "pause",             XKB_KEY_Pause,                 XKB_KEY_Break,         0xe046, 0xe07e, 0x62, 0x48},
    {KEY_KPCOMMA,           "kp_comma",          XKB_KEY_KP_Separator,          0,                     0x7e,   0x6d,   0,    0x85},
    {KEY_HANGEUL,           "lang1",             XKB_KEY_Hangul,                0,                     0x72,   0xf2,   0,    0x90},
    {KEY_HANJA,             "lang2",             XKB_KEY_Hangul_Hanja,          0,                     0x71,   0xf1,   0,    0x91},
    {KEY_YEN,               "yen",               XKB_KEY_yen,                   0,                     0x7d,   0x6a,   0x5d, 0x89},
    {KEY_LEFTMETA,          "meta_l",            XKB_KEY_Super_L,               0,                     0xe05b, 0xe01f, 0x8b, 0xe3},
    {KEY_RIGHTMETA,         "meta_r",            XKB_KEY_Super_R,               0,                     0xe05c, 0xe027, 0x8c, 0xe7},
    {KEY_COMPOSE,           "menu",              XKB_KEY_Menu,                  0,                     0xe05d, 0xe02f, 0x8d, 0x65},
    {KEY_STOP,              "stop",              XKB_KEY_SunStop,               0,                     0xe068, 0xe028, 0x0a, 0x78},
    {KEY_AGAIN,             "again",             XKB_KEY_SunAgain,              0,                     0xe005, 0,      0x0b, 0x79},
    {KEY_PROPS,             "props",             XKB_KEY_SunProps,              0,                     0xe006, 0,      0x0c, 0x76},
    {KEY_UNDO,              "undo",              XKB_KEY_Undo,                  0,                     0xe007, 0,      0x10, 0x7a},
    {KEY_FRONT,             "front",             XKB_KEY_SunFront,              0,                     0xe00c, 0,      0,    0x77},
    {KEY_COPY,              "copy",              XKB_KEY_SunCopy,               0,                     0xe078, 0,      0x18, 0x7c},
    {KEY_OPEN,              "open",              XKB_KEY_SunOpen,               0,                     0x64,   0x08,      0x20, 0x74},
    {KEY_PASTE,             "paste",             XKB_KEY_SunPaste,              0,                     0x65,   0x10,      0x28, 0x7d},
    {KEY_FIND,              "find",              XKB_KEY_Find,                  0,                     0xe041, 0,      0x30, 0x7e},
    {KEY_CUT,               "cut",               XKB_KEY_SunCut,                0,                     0xe03c, 0,      0x38, 0x7b},
    {KEY_HELP,              "help",              XKB_KEY_Help,                  0,                     0xe075, 0,      0x09, 0x75},
    {KEY_CALC,              "calculator",        XKB_KEY_XF86Calculator,        0,                     0xe021, 0xe02b, 0xa3, 0},
    {KEY_SLEEP,             "sleep",             XKB_KEY_XF86Sleep,             0,                     0xe05f, 0xe03f, 0,    0},
    {KEY_WAKEUP,            "wake",              XKB_KEY_XF86WakeUp,            0,                     0xe063, 0xe05e, 0,    0},
    {KEY_MAIL,              "mail",              XKB_KEY_XF86Mail,              0,                     0xe06c, 0xe048, 0,    0},
    {KEY_BOOKMARKS,         "ac_bookmarks",      XKB_KEY_XF86Favorites,         0,                     0xe066, 0xe018, 0,    0},
    {KEY_COMPUTER,          "computer",          XKB_KEY_XF86MyComputer,        0,                     0xe06b, 0xe040, 0xa2, 0},
    {KEY_BACK,              "ac_back",           XKB_KEY_XF86Back,              0,                     0xe06a, 0xe038, 0,    0},
    {KEY_FORWARD,           "ac_forward",        XKB_KEY_XF86Forward,           0,                     0xe069, 0xe030, 0,    0},
    {KEY_NEXTSONG,          "audionext",         XKB_KEY_XF86AudioNext,         0,                     0xe019, 0xe04d, 0x93, 0},
    {KEY_PLAYPAUSE,         "audioplay",         XKB_KEY_XF86AudioPlay,         0,                     0xe022, 0xe034, 0,    0},
    {KEY_PREVIOUSSONG,      "audioprev",         XKB_KEY_XF86AudioPrev,         0,                     0xe010, 0xe015, 0x94, 0},
    {KEY_STOPCD,            "audiostop",         XKB_KEY_XF86AudioStop,         0,                     0xe024, 0xe03b, 0x98, 0},
    {KEY_HOMEPAGE,          "ac_home",           XKB_KEY_XF86HomePage,          0,                     0xe032, 0xe03a, 0x97, 0},
    {KEY_REFRESH,           "ac_refresh",        XKB_KEY_XF86Refresh,           0,                     0xe067, 0xe020, 0,    0},
    {KEY_SEARCH,            NULL,                XKB_KEY_XF86Search,            0,                     0xe065, 0xe010, 0x99, 0},
    {KEY_MEDIA,             "mediaselect",       XKB_KEY_XF86AudioMedia,        0,                     0xe06d, 0xe050, 0,    0},
    {KEY_F13,               "f13",               XKB_KEY_F13,                   0,                     0x5d,   0x2f,   0,    0x68},
    {KEY_F14,               "f14",               XKB_KEY_F14,                   0,                     0x5e,   0x37,   0,    0x69},
    {KEY_F15,               "f15",               XKB_KEY_F15,                   0,                     0x5f,   0x3f,   0,    0x6a},
    {KEY_F16,               "f16",               XKB_KEY_F16,                   0,                     0x55,   0x60,   0,    0x6b},
    {KEY_F17,               "f17",               XKB_KEY_F17,                   0,                     0xe003, 0,      0,    0x6c},
    {KEY_F18,               "f18",               XKB_KEY_F18,                   0,                     0xe077, 0,      0,    0x6d},
    {KEY_F19,               "f19",               XKB_KEY_F19,                   0,                     0xe004, 0,      0,    0x6e},
    {KEY_F20,               "f20",               XKB_KEY_F20,                   0,                     0x5a,   0x17,      0,    0x6f},
    {KEY_F21,               "f21",               XKB_KEY_F21,                   0,                     0x74,   0x53,   0,    0x70},
    {KEY_F22,               "f22",               XKB_KEY_F22,                   0,                     0xe079, 0,      0,    0x71},
    {KEY_F23,               "f23",               XKB_KEY_F23,                   0,                     0x6d,   0x50,      0,    0x72},
    {KEY_F24,               "f24",               XKB_KEY_F24,                   0,                     0x6f,   0x6f,      0,    0x73},
};
// clang-format on
const size_t keys_count = G_N_ELEMENTS(keys);

const struct key *key_by_evdev(unsigned code)
{
    for (size_t i = 0; i < keys_count; i++)
        if (keys[i].evdev == code)
            return &keys[i];
    return NULL;
}

const struct key *key_by_qcode(const char *name)
{
    for (size_t i = 0; i < keys_count; i++)
        if (keys[i].qcode && strcmp(keys[i].qcode, name) == 0)
            return &keys[i];
    return NULL;
}

const struct key *key_by_keysym(uint32_t keysym)
{
    for (size_t i = 0; i < keys_count; i++)
        if (keysym && (keys[i].keysym == keysym || keys[i].keysym_shift == keysym))
            return &keys[i];
    return NULL;
}

const struct key *key_by_set1(unsigned code)
{
    if (code >= 0x80 && code <= 0xff)
        code = 0xe000 | (code & 0x7f);
    for (size_t i = 0; i < keys_count; i++)
        if (code && keys[i].set1 == code)
            return &keys[i];
    return NULL;
}

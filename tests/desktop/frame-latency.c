// SPDX-License-Identifier: GPL-2.0-or-later
// For the bench: lets the stand-in monitor change one pixel block and waits until the X server shows it in the window
// of that title; prints the times. usage: frame-latency CONTROL-SOCKET TITLE COUNT
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static Window find(Display *display, Window window, const char *title)
{
    Window root, parent, *children, found = 0;
    unsigned count;
    char *name = NULL;
    XTextProperty text;
    if (XGetTextProperty(display, window, &text, XInternAtom(display, "_NET_WM_NAME", False)) && text.value)
        name = (char *)text.value;
    if (name && strcmp(name, title) == 0)
        return window;
    if (!XQueryTree(display, window, &root, &parent, &children, &count))
        return 0;
    for (unsigned i = 0; i < count && !found; i++)
        found = find(display, children[i], title);
    if (children)
        XFree(children);
    return found;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? fd : -1;
}

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        exit(1);
}

static int by_size(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

// The middle of the window is inside the guest's picture.
static unsigned long middle(Display *display, Window window, const XWindowAttributes *at)
{
    XImage *image = XGetImage(display, window, at->width / 2, at->height / 2, 1, 1, AllPlanes, ZPixmap);
    unsigned long pixel = image ? XGetPixel(image, 0, 0) & 0xffffff : 0;
    if (image)
        XDestroyImage(image);
    return pixel;
}

static double one(Display *display, Window window, const XWindowAttributes *at, int fd, int round)
{
    char command[128];
    unsigned color = 0x010000 * (1 + round % 200) + 0x40;
    snprintf(command, sizeof command, "{\"execute\":\"x-fake-paint\",\"arguments\":{\"color\":%u}}\n", color);
    double start = now_ms();
    say(fd, command);
    while (middle(display, window, at) != color && now_ms() - start < 2000)
        usleep(200); // a look without a pause would take the X server's processor from the app
    return now_ms() - start;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    Display *display = XOpenDisplay(NULL);
    int fd = connect_to(argv[1]), count = atoi(argv[3]);
    Window window = display ? find(display, DefaultRootWindow(display), argv[2]) : 0;
    XWindowAttributes at;
    char reply[65536];
    double *times = calloc(count, sizeof *times);
    if (fd < 0 || !window || !times || !XGetWindowAttributes(display, window, &at)) {
        fprintf(stderr, "no window \"%s\" or no monitor at %s\n", argv[2], argv[1]);
        return 1;
    }
    say(fd, "{\"execute\":\"qmp_capabilities\"}\n");
    for (int i = 0; i < count; i++) {
        usleep(30000 + i % 7 * 3000); // at every phase of the refresh
        times[i] = one(display, window, &at, fd, i);
        if (recv(fd, reply, sizeof reply, MSG_DONTWAIT) == 0)
            return 1;
    }
    qsort(times, count, sizeof *times, by_size);
    printf("from the guest's memory to the screen, %d changes: median %.1f ms, 90 %% within %.1f ms (one refresh: 16.7 "
           "ms)\n",
           count, times[count / 2], times[count * 9 / 10]);
    return 0;
}

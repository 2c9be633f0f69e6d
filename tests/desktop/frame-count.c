// SPDX-License-Identifier: GPL-2.0-or-later
// Counts the frames that a window shows of a guest whose every frame has a colour of its own: the pixel in its middle
// is looked at four times in each sixtieth of a second. usage: frame-count WINDOW-ID SECONDS
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOK_US 4000

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    Display *display = XOpenDisplay(NULL);
    XWindowAttributes at;
    if (argc != 3 || !display)
        return 2;
    Window window = strtoul(argv[1], NULL, 0);
    double seconds = atof(argv[2]), start = now();
    unsigned long shown = 0;
    unsigned frames = 0;
    if (!XGetWindowAttributes(display, window, &at))
        return 1;
    while (now() - start < seconds) {
        XImage *image = XGetImage(display, window, at.width / 2, at.height / 2, 1, 1, AllPlanes, ZPixmap);
        if (!image)
            return 1;
        frames += XGetPixel(image, 0, 0) != shown;
        shown = XGetPixel(image, 0, 0);
        XDestroyImage(image);
        usleep(LOOK_US);
    }
    printf("%.1f\n", frames / (now() - start));
    return 0;
}

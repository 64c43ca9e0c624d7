/*
 * Named points between the steps of the engine, at which a test lets a process be killed or stopped. Only the library
 * of that test has them (tests/c/meson.build defines WP_CRASH_POINTS): in any other build they are nothing.
 *
 * What a worker passes through also the parent may call (waking), so wp_crash_at() asks who it is. A point's name says
 * where it stands: "after_X" between X and the step behind it.
 */
#ifndef WP_CRASH_H
#define WP_CRASH_H

#ifdef WP_CRASH_POINTS
/* The test's. Returns, or never. */
void wp_crash_at(const char *point);
#define WP_CRASH(point) wp_crash_at(point)
#else
#define WP_CRASH(point) ((void)0)
#endif

#endif

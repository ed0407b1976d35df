/* Adds an offset to what clock_gettime says, read anew at each call, so that a test can set a node's clock while
 * it runs. SKEWED_CLOCK names a file with two numbers: seconds for the wall clock, seconds for the steady one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  const char *path = getenv("SKEWED_CLOCK");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return result;
  long wall = 0, steady = 0;
  if (fscanf(file, "%ld %ld", &wall, &steady) != 2) wall = steady = 0;
  fclose(file);
  if (clock == CLOCK_REALTIME) time->tv_sec += wall;
  if (clock == CLOCK_MONOTONIC) time->tv_sec += steady;
  return result;
}

/* Preloaded into a server: its time of day is the machine's plus what a mapped file says, in ns.
 *
 * Only the time of day is moved; clocks that count from the start of the machine are left alone, as they are
 * when an operator or a time server sets a clock. No memory is taken and no symbol looked up: an allocator asks
 * for the time before anything else is ready.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND 1000000000LL

static const int64_t no_offset;
static const volatile int64_t *offset_ns = &no_offset;

__attribute__((constructor)) static void map_offset(void) {
  const char *path = getenv("SET_CLOCK_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) _exit(127);
  void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) _exit(127);
  offset_ns = mapped;
}

static int read_clock(clockid_t clock, struct timespec *told) {
  int failed = (int)syscall(SYS_clock_gettime, clock, told);
  if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
  int64_t now_ns = told->tv_sec * NS_PER_SECOND + told->tv_nsec + *offset_ns;
  told->tv_sec = now_ns / NS_PER_SECOND;
  told->tv_nsec = now_ns % NS_PER_SECOND;
  return 0;
}

int clock_gettime(clockid_t clock, struct timespec *told) { return read_clock(clock, told); }

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
  struct timespec now;
  (void)zone;
  read_clock(CLOCK_REALTIME, &now);
  told->tv_sec = now.tv_sec;
  told->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *told) {
  struct timespec now;
  read_clock(CLOCK_REALTIME, &now);
  if (told) *told = now.tv_sec;
  return now.tv_sec;
}

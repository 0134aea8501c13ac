/* Preloaded into a program of a lab host: its wall clock is wrong by what stands in /etc/lab-clock (signed 64-bit
   nanoseconds), from the moment at which that file changes. All other clocks are true. No header and no constructor
   is needed, so any small compiler will do. */

struct timespec { long tv_sec; long tv_nsec; };
struct timeval { long tv_sec; long tv_usec; };

extern long syscall(long number, ...);
extern void *mmap(void *at, unsigned long length, int protection, int flags, int fd, long offset);
extern int open(const char *path, int flags, ...);
extern int close(int fd);

#if defined(__x86_64__)
#define SYS_CLOCK_GETTIME 228
#elif defined(__aarch64__)
#define SYS_CLOCK_GETTIME 113
#else
#error "the lab's clock is written for x86_64 and aarch64"
#endif
#define REALTIME 0
#define REALTIME_COARSE 5
#define SECOND 1000000000L

static volatile long *wrong;

static long offset(void) {
  if (!wrong) {
    int fd = open("/etc/lab-clock", 02000000); /* read only, close on exec */
    if (fd < 0) return 0;
    void *at = mmap(0, 8, 1, 1, fd, 0); /* readable, shared */
    close(fd);
    if (at == (void *)-1) return 0;
    wrong = at;
  }
  return *wrong;
}

int clock_gettime(int clock, struct timespec *out) {
  long code = syscall(SYS_CLOCK_GETTIME, (long)clock, out);
  if (code == 0 && (clock == REALTIME || clock == REALTIME_COARSE)) {
    long at = out->tv_sec * SECOND + out->tv_nsec + offset();
    out->tv_sec = at / SECOND;
    out->tv_nsec = at % SECOND;
  }
  return (int)code;
}

int gettimeofday(struct timeval *out, void *zone) {
  struct timespec at;
  if (clock_gettime(REALTIME, &at)) return -1;
  out->tv_sec = at.tv_sec;
  out->tv_usec = at.tv_nsec / 1000;
  return 0;
}

long time(long *out) {
  struct timespec at;
  if (clock_gettime(REALTIME, &at)) return -1;
  if (out) *out = at.tv_sec;
  return at.tv_sec;
}

// Preloaded into a process under test: appends to the file named by RECORD_WRITES one line per write to, and two per
// sync of, a *.log file: "written TID PATH" before the write reaches the kernel, "syncing TID PATH" and "synced TID PATH"
// around the sync. A line is one write(2) to an O_APPEND file, so that lines of several threads keep their order.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int record_fd = -1;

__attribute__((constructor)) static void start(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  const char *path = getenv("RECORD_WRITES");
  if (path != NULL) record_fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
}

static void record(const char *kind, int fd) {
  char link[64], path[400], line[500];
  if (record_fd < 0) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 4 || memcmp(path + length - 4, ".log", 4) != 0) return;
  path[length] = 0;
  int bytes = snprintf(line, sizeof line, "%s %d %s\n", kind, (int)gettid(), path);
  if (real_write(record_fd, line, (size_t)bytes) != bytes) abort();
}

ssize_t write(int fd, const void *data, size_t bytes) {
  record("written", fd);
  return real_write(fd, data, bytes);
}

int fdatasync(int fd) {
  record("syncing", fd);
  int result = real_fdatasync(fd);
  if (result == 0) record("synced", fd);
  return result;
}

int fsync(int fd) {
  record("syncing", fd);
  int result = real_fsync(fd);
  if (result == 0) record("synced", fd);
  return result;
}

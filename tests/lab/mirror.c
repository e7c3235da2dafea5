/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves memory between the host and test_hmm's device, and says what the driver itself counted: a line for each deed
 * that has an answer. A deed is done by this process, or by whom process=NAME or thread=NAME before it names: a child
 * or another thread, that works on this process's memory, since a mirror is of the memory of who opened the device.
 *
 *	name=NAME     what this process is called
 *	cgroup=FOLDER in which cgroup the processes work that it has from here on
 *	warm=PAGES    a new buffer, from a huge page's boundary on, each page written
 *	cold=PAGES    the same, never touched
 *	mixed=PAGES   a new buffer, of device 0's own file: migrate_vma_setup refuses it
 *	pin=PAGES     keeps references to that many pages of it, so that they cannot migrate
 *	fail          lets the driver's next allocation fail (7.x)
 *	migrate       to device 0; answers with the pages that the driver can read on it, or with the error
 *	migrate-1     to device 1, the same
 *	back          to the host; answers with the entries that moved
 *	touch=PAGES   a CPU reads that many
 *	peek=PAGES    reads that many in /proc/PID/mem, for another process's memory
 *	read          device 0 reads it: hmm_range_fault
 *	resident      answers with the pages that device 0 finds on itself
 *	storm=THREADS,ROUNDS
 *	              so many threads at once, each with its part of the buffer, migrate and touch it so many times, and
 *	              a last time one after another; answers with the calls, the pages moved, and the faults they took
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* lib/test_hmm_uapi.h, 6.1 to 7.3 */
struct command {
	uint64_t address, mirror, pages, copied, faults;
};

enum { READ, WRITE, MIGRATE_TO_DEV, MIGRATE_TO_SYS, SNAPSHOT, EXCLUSIVE, CHECK_EXCLUSIVE, RELEASE, FLAGS };
#define FAIL_ALLOC 1
#define KIND_OF_MEMORY 0x70
#define DEVICE_PRIVATE_LOCAL 0x20

#define PAGE 4096UL
#define HUGE (512 * PAGE)

static int device[2], pipe_of_pins[2];
static unsigned char *buffer, *mirror;
static size_t pages;
static pid_t owner;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The driver's count, or the error, negative. Of the buffer's pages from `first` on. */
static long long ask_of(size_t first, int unit, unsigned int number, size_t count)
{
	struct command command = { (uintptr_t)(buffer + first * PAGE), (uintptr_t)(mirror + first * PAGE), count, 0, 0 };

	if (ioctl(device[unit], _IOWR('H', number, struct command), &command))
		return -errno;
	return command.copied;
}

static long long ask(int unit, unsigned int number, size_t count)
{
	return ask_of(0, unit, number, count);
}

static void answer(const char *deed, long long count)
{
	printf("%s %lld\n", deed, count);
	fflush(stdout);
}

static void map_buffer(size_t count, int written)
{
	size_t bytes = count * PAGE;
	unsigned char *area = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mirror = malloc(bytes);
	if (area == MAP_FAILED || !mirror)
		die("mmap");
	/* No child has it: whose memory it is, is not to be a question. */
	if (madvise(area, bytes + HUGE, MADV_DONTFORK))
		die("madvise");
	buffer = (void *)(((uintptr_t)area + HUGE - 1) / HUGE * HUGE);
	pages = count;
	for (size_t i = 0; written && i < pages; i++)
		buffer[i * PAGE] = i | 1; /* a page of zeros may become the zero page when its huge page is split */
}

static void map_device(size_t count)
{
	buffer = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, device[0], 0);
	if (buffer == MAP_FAILED)
		die("mmap");
	pages = count;
}

static void pin(size_t count)
{
	struct iovec part = { buffer, count * PAGE };

	if (pipe(pipe_of_pins) || vmsplice(pipe_of_pins[1], &part, 1, 0) != (ssize_t)part.iov_len)
		die("vmsplice");
}

static void touch(size_t first, size_t count)
{
	for (size_t i = first; i < first + count; i++)
		(void)*(volatile unsigned char *)(buffer + i * PAGE);
}

static void peek(size_t count)
{
	char path[32];
	int memory;

	snprintf(path, sizeof(path), "/proc/%d/mem", owner);
	memory = open(path, O_RDONLY);
	if (memory < 0 || pread(memory, mirror, count * PAGE, (uintptr_t)buffer) != (ssize_t)(count * PAGE))
		die(path);
}

static long long resident(size_t first, size_t count)
{
	long long found = 0, error = ask_of(first, 0, SNAPSHOT, count);

	if (error < 0)
		return error;
	for (size_t i = 0; i < count; i++)
		found += (mirror[first * PAGE + i] & KIND_OF_MEMORY) == DEVICE_PRIVATE_LOCAL;
	return found;
}

static struct {
	size_t threads, rounds;
	pthread_barrier_t together;
	pthread_mutex_t alone;
} storm;

/* What a thread of the storm has done. */
struct done {
	size_t number;
	long long calls, moved, faults;
};

static void storm_round(struct done *done)
{
	size_t count = pages / storm.threads, first = done->number * count;
	struct rusage before, after;

	/* Where a page stayed behind, the driver answers with an error: who has moved is to be found out. */
	ask_of(first, 0, MIGRATE_TO_DEV, count);
	done->calls++;
	done->moved += resident(first, count);
	getrusage(RUSAGE_THREAD, &before);
	touch(first, count);
	getrusage(RUSAGE_THREAD, &after);
	done->faults += after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
}

static void *storm_thread(void *mine)
{
	pthread_barrier_wait(&storm.together);
	for (size_t i = 0; i < storm.rounds; i++)
		storm_round(mine);
	/* Whoever watches threads and lost the end of the last call, finds it over in the next one. */
	pthread_barrier_wait(&storm.together);
	pthread_mutex_lock(&storm.alone);
	storm_round(mine);
	pthread_mutex_unlock(&storm.alone);
	return NULL;
}

static void run_storm(size_t threads, size_t rounds)
{
	pthread_t thread[threads];
	struct done done[threads], sum = {};

	storm.threads = threads;
	storm.rounds = rounds;
	pthread_barrier_init(&storm.together, NULL, threads);
	pthread_mutex_init(&storm.alone, NULL);
	for (size_t i = 0; i < threads; i++) {
		done[i] = (struct done){ .number = i };
		if (pthread_create(&thread[i], NULL, storm_thread, &done[i]))
			die("pthread_create");
	}
	for (size_t i = 0; i < threads; i++) {
		if (pthread_join(thread[i], NULL))
			die("pthread_join");
		sum.calls += done[i].calls;
		sum.moved += done[i].moved;
		sum.faults += done[i].faults;
	}
	answer("calls", sum.calls);
	answer("moved", sum.moved);
	answer("faults", sum.faults);
}

static void *perform(void *text)
{
	char *deed = text, *value = strchr(deed, '=');
	size_t count = value ? strtoul(value + 1, NULL, 10) : 0;
	size_t length = value ? (size_t)(value - deed) : strlen(deed);

#define IS(word) (length == strlen(word) && !strncmp(deed, word, length))
	if (IS("name"))
		prctl(PR_SET_NAME, value + 1);
	else if (IS("warm") || IS("cold"))
		map_buffer(count, IS("warm"));
	else if (IS("mixed"))
		map_device(count);
	else if (IS("pin"))
		pin(count);
	else if (IS("fail"))
		answer(deed, ask(0, FLAGS, FAIL_ALLOC));
	else if (IS("migrate"))
		answer(deed, ask(0, MIGRATE_TO_DEV, pages));
	else if (IS("migrate-1"))
		answer(deed, ask(1, MIGRATE_TO_DEV, pages));
	else if (IS("back"))
		answer(deed, ask(0, MIGRATE_TO_SYS, pages));
	else if (IS("touch"))
		touch(0, count);
	else if (IS("peek"))
		peek(count);
	else if (IS("read"))
		answer(deed, ask(0, READ, pages));
	else if (IS("resident"))
		answer(deed, resident(0, pages));
	else if (IS("storm"))
		run_storm(count, strtoul(strchr(value, ',') + 1, NULL, 10));
	else
		fprintf(stderr, "%s: no such deed\n", deed), exit(2);
	return NULL;
}

/* What the worker does, and under which name; in which cgroup, if it shall be in another. */
static char *worker[2], *cgroup;

static void *work(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, worker[0]);
	return perform(worker[1]);
}

static void join(const char *path)
{
	char procs[4096];
	int fd;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	fd = open(procs, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		die(procs);
	close(fd);
}

static void in_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL))
		die("pthread_create");
}

static void in_process(void)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (!child) {
		if (cgroup)
			join(cgroup);
		work(NULL);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status)
		die("the child failed");
}

int main(int argc, char **argv)
{
	owner = getpid();
	for (int i = 0; i < 2; i++) {
		char path[] = "/dev/hmm_dmirror0";

		path[sizeof(path) - 2] += i;
		device[i] = open(path, O_RDWR);
		if (device[i] < 0)
			die(path);
	}
	for (int i = 1; i < argc; i++) {
		int process = !strncmp(argv[i], "process=", 8), thread = !strncmp(argv[i], "thread=", 7);

		if (!strncmp(argv[i], "cgroup=", 7)) {
			cgroup = argv[i] + 7;
		} else if ((process || thread) && i + 1 < argc) {
			worker[0] = strchr(argv[i], '=') + 1;
			worker[1] = argv[++i];
			process ? in_process() : in_thread();
		} else {
			perform(argv[i]);
		}
	}
	return 0;
}

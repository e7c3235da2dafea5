/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves memory between the host and test_hmm's device, and says what the driver itself counted: a line for each deed
 * that has an answer. A deed is done by this process, or by whom process=NAME or thread=NAME before it names: a child
 * or another thread, that works on this process's memory, since a mirror is of the memory of who opened the device.
 *
 *	name=NAME     what this process is called
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

/* The driver's count, or the error, negative. */
static long long ask(int unit, unsigned int number, size_t count)
{
	struct command command = { (uintptr_t)buffer, (uintptr_t)mirror, count, 0, 0 };

	if (ioctl(device[unit], _IOWR('H', number, struct command), &command))
		return -errno;
	return command.copied;
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

static void touch(size_t count)
{
	for (size_t i = 0; i < count; i++)
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

static long long resident(void)
{
	long long found = 0, error = ask(0, SNAPSHOT, pages);

	if (error < 0)
		return error;
	for (size_t i = 0; i < pages; i++)
		found += (mirror[i] & KIND_OF_MEMORY) == DEVICE_PRIVATE_LOCAL;
	return found;
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
		touch(count);
	else if (IS("peek"))
		peek(count);
	else if (IS("read"))
		answer(deed, ask(0, READ, pages));
	else if (IS("resident"))
		answer(deed, resident());
	else
		fprintf(stderr, "%s: no such deed\n", deed), exit(2);
	return NULL;
}

/* What the thread does, and under which name. */
static char *worker[2];

static void *work(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, worker[0]);
	return perform(worker[1]);
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

		if ((process || thread) && i + 1 < argc) {
			worker[0] = strchr(argv[i], '=') + 1;
			worker[1] = argv[++i];
			process ? in_process() : in_thread();
		} else {
			perform(argv[i]);
		}
	}
	return 0;
}

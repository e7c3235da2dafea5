/* SPDX-License-Identifier: Apache-2.0 */
/* Run mode: threads that play scenarios at a steady rate until they are told to stop. */
#include "run.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "ledger.h"

#define NSEC 1e9
/* A thread that is so far behind lets no time pass; farther behind, it forgives itself the rest. */
#define LATE_NS (50 * 1000000L)
#define HOPELESS_NS (1000 * 1000000L)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool now;
} stop = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct run_thread {
	pthread_t thread;
	unsigned int number;
	u64 started;
	const struct run_options *options;
	unsigned long steps, issued[NR_KINDS];
};

/* Returns false when it is time to stop. */
static bool wait_until(u64 due)
{
	struct timespec when = { due / 1000000000, due % 1000000000 };
	bool go_on;

	pthread_mutex_lock(&stop.lock);
	while (!stop.now && now_ns() < due)
		pthread_cond_timedwait(&stop.changed, &stop.lock, &when);
	go_on = !stop.now;
	pthread_mutex_unlock(&stop.lock);
	return go_on;
}

static const struct scenario *choose_scenario(const struct run_options *options, struct dice *dice, double seconds)
{
	const unsigned char *weights = weights_at(seconds);
	unsigned int weight[NR_SCENARIOS], total = 0;
	unsigned int drawn, i = 0;

	for (i = 0; i < NR_SCENARIOS; i++)
		total += weight[i] = options->any_chosen ? options->chosen[i] : weights[i];
	drawn = dice_pick(dice, total);
	for (i = 0; drawn >= weight[i]; i++)
		drawn -= weight[i];
	return &scenarios[i];
}

static void *run_main(void *data)
{
	struct run_thread *self = data;
	const struct run_options *options = self->options;
	struct actor *actor = calloc(1, sizeof(*actor));
	double between = NSEC * options->threads / options->rate;
	u64 due = self->started;

	prctl(PR_SET_TIMERSLACK, 1); /* a sleep of 100 us is to last 100 us, not 150 */
	allocate_arrays();
	actor->world = world_create(self->number);
	actor->pace.dice = dice_for(options->seed, NR_KINDS, self->number);
	pace = &actor->pace;
	for (;;) {
		due += -log(dice_uniform(&actor->pace.dice)) * between;
		if (!wait_until(due))
			break;
		actor->pace.late = now_ns() > due + LATE_NS;
		if (now_ns() > due + HOPELESS_NS)
			due = now_ns();
		choose_scenario(options, &actor->pace.dice, (now_ns() - self->started) / NSEC)->step(actor);
		self->steps++;
	}
	for (int i = 0; i < NR_KINDS; i++)
		self->issued[i] = issued[i];
	free_arrays();
	free(actor->world);
	free(actor);
	return NULL;
}

static void wait_for_signal(const sigset_t *signals, double seconds)
{
	struct timespec timeout = { seconds, fmod(seconds, 1) * NSEC };

	while (sigtimedwait(signals, NULL, seconds ? &timeout : NULL) < 0 && errno == EINTR)
		;
}

static void stop_threads(void)
{
	pthread_mutex_lock(&stop.lock);
	stop.now = true;
	pthread_cond_broadcast(&stop.changed);
	pthread_mutex_unlock(&stop.lock);
}

static void sum_up(const struct run_thread *threads, unsigned int number, double seconds)
{
	unsigned long steps = 0, total[NR_KINDS] = {};

	for (unsigned int i = 0; i < number; i++) {
		steps += threads[i].steps;
		for (int kind = 0; kind < NR_KINDS; kind++)
			total[kind] += threads[i].issued[kind];
	}
	printf("%.1f s, %lu events (%.1f/s), %lu migrations (%.1f/s), %lu range faults, %lu exclusive pages, "
	       "%lu device ranges, %lu notifier inserts, %lu DMA maps\n",
	       seconds, steps, steps / seconds, total[MIGRATION], total[MIGRATION] / seconds, total[RANGE_FAULT],
	       total[EXCLUSIVE], total[DEVICE_RANGE], total[NOTIFIER_INSERT], total[DMA_MAP]);
}

static void run(const struct run_options *options)
{
	struct run_thread *threads = calloc(options->threads, sizeof(*threads));
	pthread_condattr_t monotonic;
	u64 started = now_ns();
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&stop.changed, &monotonic);
	for (unsigned int i = 0; i < options->threads; i++) {
		threads[i] = (struct run_thread){ .number = i, .started = started, .options = options };
		pthread_create(&threads[i].thread, NULL, run_main, &threads[i]);
	}
	wait_for_signal(&signals, options->seconds);
	stop_threads();
	for (unsigned int i = 0; i < options->threads; i++)
		pthread_join(threads[i].thread, NULL);
	sum_up(threads, options->threads, (now_ns() - started) / NSEC);
	free(threads);
}

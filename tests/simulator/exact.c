/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact mode: a known number of events of every kind. The work is cut into units; what a unit
 * issues depends on its number and the seed alone, so the sum is the same for any number of
 * threads and any order of running.
 */
#include "exact.h"

#include <pthread.h>
#include <stdlib.h>

#include "plan.h"

/*
 * `share` of UNIT: UNIT itself is one event of that kind for each event asked for. Migrations come
 * first: they bring range faults, exclusive pages and huge faults along, which count towards those
 * shares. Invalidations and PTEs count here only where they come from outside an HMM call.
 */
static const struct {
	enum event_kind kind;
	unsigned int share;
	void (*issue)(struct stage *stage);
} plans[] = {
	{ MIGRATION, UNIT, plan_migration },
	{ RANGE_FAULT, UNIT, plan_range_fault },
	{ EXCLUSIVE, UNIT, plan_exclusive },
	{ RESTORE, UNIT, plan_restore },
	{ NOTIFIER_INSERT, UNIT, plan_notifier_insert },
	{ NOTIFIER_REMOVE, UNIT, plan_notifier_remove },
	{ HUGE_FAULT, UNIT / 4, plan_huge_fault },
	{ DEVICE_RANGE, UNIT / 4, plan_device_range },
	{ DMA_MAP, UNIT, plan_dma_map },
	{ DMA_UNMAP, UNIT, plan_dma_unmap },
	{ INVALIDATION, UNIT, plan_invalidation },
	{ MIGRATION_PTE, UNIT, plan_migration_pte },
	{ MIGRATION_PMD, UNIT / 4, plan_migration_pmd },
};

/* What is issued, in parts that do not depend on each other. */
struct script {
	const struct exact_options *options;
	unsigned long units;
	void (*issue)(struct stage *stage, const struct script *script, unsigned long unit);
};

struct exact_thread {
	pthread_t thread;
	pthread_barrier_t *start;
	const struct script *script;
	unsigned int number;
	struct world *world;
	struct ledger *ledger;
};

/* Events of a kind among the first `events`: whole ones, so that the units add up. */
static unsigned long share_of(unsigned long events, unsigned int share)
{
	return events / UNIT * share + events % UNIT * share / UNIT;
}

static void issue_unit(struct stage *stage, const struct script *script, unsigned long unit)
{
	const struct exact_options *options = script->options;
	unsigned long begin = unit * UNIT;
	unsigned long end = begin + UNIT < options->events ? begin + UNIT : options->events;
	unsigned long already[NR_KINDS];

	for (unsigned int i = 0; i < NR_KINDS; i++)
		already[i] = issued[i];
	for (unsigned int i = 0; i < ARRAY_SIZE(plans); i++) {
		enum event_kind kind = plans[i].kind;
		unsigned long until = already[kind] + share_of(end, plans[i].share) - share_of(begin, plans[i].share);

		for (unsigned int n = 0; issued[kind] < until; n++) {
			stage->dice = dice_for(options->seed, kind, begin + n);
			stage->index = begin + n;
			stage->left = until - issued[kind];
			plans[i].issue(stage);
		}
	}
}

static void *exact_main(void *data)
{
	struct exact_thread *self = data;
	const struct script *script = self->script;
	struct stage *stage = calloc(1, sizeof(*stage));

	ledger = self->ledger;
	allocate_arrays();
	stage->world = self->world;
	pthread_barrier_wait(self->start);
	for (unsigned long unit = self->number; unit < script->units; unit += script->options->threads)
		script->issue(stage, script, unit);
	free_arrays();
	free(stage);
	return NULL;
}

static void wait_for_stdin(void)
{
	int c;

	puts("ready");
	fflush(stdout);
	do
		c = getchar();
	while (c != '\n' && c != EOF);
}

static void print_books(const struct exact_options *options, struct ledger *all, u64 elapsed)
{
	printf("{\n\"format\":\"hmm-simulator exact 1\",\n\"seed\":%lu,\n\"events\":%lu,\n", options->seed,
	       options->events);
	ledger_print(stdout, all);
	printf(",\"timing\":{\n\"threads\":%u,\n\"elapsed_ns\":%lu,\n", options->threads, elapsed);
	ledger_print_times(stdout, all);
	puts("}\n}");
}

static void act_out(const struct script *script)
{
	const struct exact_options *options = script->options;
	struct exact_thread *threads = calloc(options->threads, sizeof(*threads));
	struct ledger *all = ledger_open();
	pthread_barrier_t start;
	u64 started;

	pthread_barrier_init(&start, NULL, options->threads + 1);
	for (unsigned int i = 0; i < options->threads; i++) {
		threads[i] = (struct exact_thread){ .start = &start, .script = script, .number = i,
						    .world = world_create(i), .ledger = ledger_open() };
		pthread_create(&threads[i].thread, NULL, exact_main, &threads[i]);
	}
	if (options->wait_for_stdin)
		wait_for_stdin();
	started = now_ns();
	pthread_barrier_wait(&start);
	for (unsigned int i = 0; i < options->threads; i++) {
		pthread_join(threads[i].thread, NULL);
		ledger_merge(all, threads[i].ledger);
	}
	print_books(options, all, now_ns() - started);
	for (unsigned int i = 0; i < options->threads; i++)
		free(threads[i].world);
	ledger_close(all);
	free(threads);
}

static void exact(const struct exact_options *options)
{
	act_out(&(struct script){ options, (options->events + UNIT - 1) / UNIT, issue_unit });
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact mode with processes that come and go: each has a name and a cgroup that no other has, does
 * a few things, and is gone. What it does depends on its place in the run and on the seed, not on
 * its name.
 */
#include "exact.h"

#include <stdio.h>
#include <string.h>

#include "cgroups.h"
#include "plan.h"

/* The kinds without which there is no process in the books of the exporter. */
static const struct {
	enum event_kind kind;
	void (*issue)(struct stage *stage);
} habits[] = {
	{ MIGRATION, plan_migration },
	{ RANGE_FAULT, plan_range_fault },
	{ NOTIFIER_INSERT, plan_notifier_insert },
	{ NOTIFIER_REMOVE, plan_notifier_remove },
	{ RESTORE, plan_restore },
};

/* Of cgroups that are gone when somebody looks for them: no directory has such a number. */
#define FIRST_GONE (1UL << 40)

/* Names would be rows of their own in the books; these are one. */
#define IN_THE_BOOKS "short-lived"

static void live(struct stage *stage, const struct script *script, unsigned long unit)
{
	struct task_struct *task = &stage->world->process[0].task;
	unsigned long number = script->options->first + unit;
	struct kernfs_node node = { .id = FIRST_GONE + number };
	struct cgroup cgroup = { .kn = &node };
	struct css_set set = { .dfl_cgrp = &cgroup };

	stage->alone = true;
	snprintf(task->comm, sizeof(task->comm), "job-%07lu", number);
	task->cgroups = is_placed(task->comm) ? cgroups_of(task->comm, 0) : &set;
	for (unsigned int i = 0; i < ARRAY_SIZE(habits); i++) {
		stage->dice = dice_for(script->options->seed, habits[i].kind, unit);
		stage->index = unit;
		stage->left = 1;
		habits[i].issue(stage);
	}
	strcpy(task->comm, IN_THE_BOOKS);
	task->cgroups = cgroups_of(task->comm, 0);
}

static void churn_processes(const struct exact_options *options)
{
	act_out(&(struct script){ options, options->processes, live });
}

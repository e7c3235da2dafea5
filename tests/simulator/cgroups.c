/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_CGROUPS 1024

struct membership {
	char comm[16];
	struct css_set set;
	struct cgroup cgroup;
	struct kernfs_node node;
};

static struct membership memberships[MOST_CGROUPS];
static unsigned int nr_memberships;

static struct kernfs_node root_node = { .id = 1 };
static struct cgroup root_cgroup = { .kn = &root_node };
static struct css_set root_set = { .dfl_cgrp = &root_cgroup };

static bool read_line(char *line)
{
	const char *comm = strtok(line, " \n"), *word;

	if (!comm)
		return true;
	while ((word = strtok(NULL, " \n"))) {
		struct membership *membership = &memberships[nr_memberships];
		char *end;
		u64 id = strtoull(word, &end, 10);

		if (*end || !id || strlen(comm) >= sizeof(membership->comm) || nr_memberships == MOST_CGROUPS)
			return false;
		nr_memberships++;
		strcpy(membership->comm, comm);
		membership->node.id = id;
		membership->cgroup.kn = &membership->node;
		membership->set.dfl_cgrp = &membership->cgroup;
	}
	return true;
}

static bool read_cgroups(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[1024];
	bool good = file;

	while (good && fgets(line, sizeof(line), file))
		good = read_line(line);
	if (file)
		fclose(file);
	return good;
}

static bool is_placed(const char *comm)
{
	for (unsigned int i = 0; i < nr_memberships; i++)
		if (!strcmp(memberships[i].comm, comm))
			return true;
	return false;
}

static struct css_set *cgroups_of(const char *comm, unsigned int thread)
{
	struct css_set *its[MOST_CGROUPS];
	unsigned int nr = 0;

	for (unsigned int i = 0; i < nr_memberships; i++)
		if (!strcmp(memberships[i].comm, comm))
			its[nr++] = &memberships[i].set;
	return nr ? its[thread % nr] : &root_set;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* In which cgroups the processes are: in the root, or where a file says. */
#ifndef SIMULATOR_CGROUPS_H
#define SIMULATOR_CGROUPS_H

#include "kernel.h"

/*
 * Lines of a comm and the numbers of cgroups: the process of that comm in the simulator's first
 * thread is in the first one, in the second thread in the second one, and round again. False if
 * the file cannot be read or says something else.
 */
static bool read_cgroups(const char *path);
/* Whether the file says where it is. */
static bool is_placed(const char *comm);
static struct css_set *cgroups_of(const char *comm, unsigned int thread);

#endif

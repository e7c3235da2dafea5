/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of the program in one compile unit: gcc writes a .BTF section for each unit, and a linker
 * puts them one behind another, which no reader understands. Rooms come in the order in which
 * they build on each other.
 */
#define _GNU_SOURCE

#include "timing.c"
#include "ledger.c"
#include "iomem.c"
/* the kernel */
#include "mmu_notifier.c"
#include "memory.c"
#include "hmm.c"
#include "residency.c"
#include "migrate_device.c"
/* its drivers */
#include "drivers.c"
#include "mirrors.c"
/* who acts, and how */
#include "cgroups.c"
#include "world.c"
#include "plan.c"
#include "plan_migration.c"
#include "exact.c"
#include "churn.c"
#include "deeds.c"
#include "scenarios.c"
#include "run.c"
#include "main.c"

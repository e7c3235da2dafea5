/* SPDX-License-Identifier: GPL-2.0-only */
/* Included by bcc's helpers; nothing of it is used here. */

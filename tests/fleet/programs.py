# SPDX-License-Identifier: Apache-2.0
"""What the BPF programs do with an event, over maps in memory: admit, first come; what finds no room goes to `other`.

As hmm_exporter/bpf/source.py writes it in C (`..._admit`). That the programs count right is tests/bpf's to prove.
"""

from __future__ import annotations

from errno import E2BIG

from hmm_exporter.bpf.maps import KeyValues
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.tables import Table
from tests.unit.bpf.in_memory import Bpf

_OTHER: dict[str, int | bytes] = {
    "u64": values.OTHER_POINTER,
    "comm": values.OTHER_COMM,
    "u32": values.OTHER_STACK,
    "u16": values.OTHER_ERRNO,
    "u8": values.OTHER_DEVICE,
}
_ADMISSIONS = {table.name: table for table in (tables.OWNER, tables.DRIVER, tables.PROCESS)}


class Programs:
    def __init__(self, bpf: Bpf) -> None:
        self._bpf = bpf
        self.overflow = 0
        """Events booked to `other`."""

    def count(self, table: Table, key: KeyValues, **amounts: int | list[int]) -> KeyValues:
        """The key that it was booked to, which the program goes on with."""
        admitted = tuple(
            value
            if not field.admitted_by or self._admits(_ADMISSIONS[field.admitted_by], value)
            else _OTHER[field.c_type]
            for field, value in zip(table.keys, key)
        )
        if not self._book(table, admitted, **amounts):
            admitted = tuple(value if each.values else _OTHER[each.c_type] for each, value in zip(table.keys, key))
            assert self._book(table, admitted, **amounts), "there is always room in the overflow row"
        self.overflow += admitted != key
        return admitted

    def _admits(self, admission: Table, value: int | bytes) -> bool:
        return self._book(admission, (value,))

    def _book(self, table: Table, key: KeyValues, **amounts: int | list[int]) -> bool:
        """False where there is neither such a row nor room for it."""
        try:
            self._bpf.book(table, key, 0, **amounts)
        except OSError as error:
            if error.errno != E2BIG:
                raise
            return False
        return True

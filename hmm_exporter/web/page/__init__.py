# SPDX-License-Identifier: Apache-2.0
"""The status page at ``/``, for a person: how the node is, and how the exporter is. One file, no script.

``page`` puts it together; ``figures`` what was counted, and since when; ``summary`` the few figures that come first;
``histograms`` and ``histogram_svg`` distributions, drawn; ``tables`` who: processes, drivers, callers; ``health`` the
exporter itself; ``probes`` what is attached and why not; ``markup`` text that is HTML, and text that is not; ``style``
how all of it looks. It reads what a scrape exposes and nothing else, so that it needs no right and says nothing new.
"""

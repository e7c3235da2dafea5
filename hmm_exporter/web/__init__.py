# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoint: from a listening socket to the bytes of a response.

Sockets: ``address`` what to listen on; ``server`` which connections there are; ``connection`` bytes within
limits; ``handler`` HTTP. Who may ask: ``web_config`` the file, ``protection`` what of it counts now, ``tls``,
``basic_auth``, ``gate``. What is answered: ``routes`` by path; ``telemetry`` a scrape; ``negotiation`` Accept and
Accept-Encoding; ``page`` the status page at ``/``; ``status`` what the daemon tells this package.

What is measured does not belong here.
"""

# SPDX-License-Identifier: Apache-2.0
"""``python -m hmm_exporter``, and the command ``hmm-exporter``. Nothing but the way in belongs here."""

import signal
import sys

# Before the imports, which take a quarter of a second: a Ctrl-C meanwhile ends the process and is
# no error with a traceback. The daemon has a handler of its own.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from hmm_exporter.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

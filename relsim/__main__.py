"""`python -m relsim` is the command `relsim`."""

import sys

from relsim.cli import main

sys.exit(main())

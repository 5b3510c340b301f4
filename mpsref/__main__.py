"""``python -m mpsref`` is the command line."""

import sys

from mpsref.cli import main

sys.exit(main())

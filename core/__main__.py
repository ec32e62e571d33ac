"""`python -P -m core`: the daemon."""

import sys

from core.daemon import main

sys.exit(main())

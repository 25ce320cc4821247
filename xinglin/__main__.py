"""python -m xinglin: the same as the command xinglin."""

import sys

from xinglin.cli import main

sys.exit(main())

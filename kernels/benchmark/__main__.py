"""``python -m kernels.benchmark``."""

import sys

from kernels.benchmark.command_line import main

sys.exit(main())

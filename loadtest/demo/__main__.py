"""`python -m loadtest.demo`."""

import sys

from loadtest.demo.run import main

sys.exit(main())

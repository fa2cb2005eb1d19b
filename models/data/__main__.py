"""``python -m models.data fetch imagenette [--to DIR]``."""

import sys

from models.data.fetch import main

sys.exit(main(sys.argv[1:]))

"""Lets `python -m dicomfs.cli` stand for `dicomfs`."""

import sys

from dicomfs.cli import main

sys.exit(main())

import sys

from alignzoo.cli.main import main

sys.exit(main())

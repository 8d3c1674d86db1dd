"""The catalogue of methods as JSON: `python -m worker.muka.methods > app/domain/methods.json`."""

import json
import sys

from worker.muka.methods import catalogue

if __name__ == "__main__":
    sys.stdout.write(json.dumps(catalogue(), indent=2) + "\n")

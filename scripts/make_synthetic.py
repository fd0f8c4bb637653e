"""Write the synthetic data set that `make demo` trains on: `python scripts/make_synthetic.py OUT [--seed 0] ...`."""

import argparse
import sys
from pathlib import Path

from uniad_lightning.data.synthetic.dataset import write_synthetic
from uniad_lightning.errors import InputError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the synthetic data set in the layout of MVTec AD.")
    parser.add_argument("root", metavar="OUT", type=Path, help="folder to write; a complete one is reused")
    parser.add_argument("--seed", type=int, default=0, help="seed of the whole data set")
    parser.add_argument("--size", type=int, default=128, help="image side in pixels")
    parser.add_argument("--train-images", type=int, default=60, help="good images per category to train on")
    parser.add_argument("--test-good", type=int, default=20, help="good images per category in the test set")
    parser.add_argument("--test-per-defect", type=int, default=8, help="images per category and kind of defect")
    try:
        print(write_synthetic(**vars(parser.parse_args())))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)

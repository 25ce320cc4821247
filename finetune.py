"""Tune a base model: python finetune.py --base_model DIR --data_path FILE --output_dir DIR …"""

import sys

from xinglin.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))

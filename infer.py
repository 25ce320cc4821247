"""Ask a base or tuned model: python infer.py --base_model DIR --use_lora True --lora_weights DIR …"""

import sys

from xinglin.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))

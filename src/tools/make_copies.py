# SPDX-License-Identifier: Apache-2.0
"""Distorted copies of your own pictures, to test how well a trained model finds their originals.

python -m src.tools.make_copies PICTURES COPIES [--seed 0] [--limit 500] [--kinds crop jpeg]
python eval.py --checkpoint_path runs/RUN/checkpoints/last.ckpt --task retrieval --protocol copydays \\
    --data_path COPIES

Writes COPIES/original and a folder for each kind of copy, in the layout of Copydays. PICTURES is searched to
any depth, and left as it is. The kinds: crop, rotation, blur, brightness, jpeg, strong (three of them at
once); src/retrieval/copies.py says how strong each is. eval.py gives each kind a score.
"""

import sys

from ..common.cli import parser, run


def main(arguments):
    from ..retrieval.copies import KINDS

    flags = parser(__doc__)
    flags.add_argument("pictures", metavar="PICTURES", help="a folder with image files")
    flags.add_argument("copies", metavar="COPIES", help="the folder to make")
    flags.add_argument("--seed", type=int, default=0, help="seed of the random changes (0)")
    flags.add_argument("--limit", type=int, help="number of pictures, chosen by the seed (all)")
    flags.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of copies (all)")
    own = flags.parse_args(arguments)

    import numpy as np

    from ..common.errors import UserError
    from ..data.folders import find_images, number_of
    from ..retrieval.copies import write_copies

    if own.seed < 0:
        raise UserError(f"seed: {own.seed} given, allowed: a whole number >= 0")
    if own.limit is not None and own.limit < 1:
        raise UserError(f"limit: {own.limit} given, allowed: a whole number >= 1")
    found = find_images([own.pictures])
    files = found.files
    print(*found.in_words(), sep="\n")
    chosen = np.sort(np.random.default_rng(own.seed).permutation(len(files))[: own.limit])
    left_out = write_copies([files[index] for index in chosen], own.copies, seed=own.seed, kinds=own.kinds)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(
        f"{own.copies}: {len(chosen) - len(left_out)} originals and {len(own.kinds)} copies of each, "
        f"{number_of(len(left_out), 'unreadable picture')} left out"
    )
    found.left_out.refuse_unreadable()


if __name__ == "__main__":
    run(main)

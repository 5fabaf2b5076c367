"""Search in your own pictures: an index of folders by a trained network's embeddings, and questions to it.

python -m src.tools.search build photos/ --checkpoint runs/RUN/checkpoints/best.ckpt --index photos.index
python -m src.tools.search search photos.index query.jpg more/ --top 10 --sheet found.png

build embeds new and changed pictures only, and drops those that are gone; one that was broken off goes on
where it was. Pictures of other folders stay in the index, unless --only. A damaged picture is named and
passed over until it changes. The last line is one JSON object. Every other --key value of build overrides
the checkpoint's config. search prints the most similar files with their cosine similarity; a query that
cannot be read is named and makes the exit code 2. For millions of pictures there are cells, of which a query
looks into some (src/retrieval/vectors.py).
"""

from ..common.cli import parser, run
from ..key_help import key_help

ELSEWHERE = {"device_target", "data_path"}  # keys that may differ from build to build


def main(arguments):
    flags = parser(__doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build", help="bring an index up to date with folders", allow_abbrev=False)
    one.keys = key_help
    one.add_argument("folders", nargs="+", metavar="FOLDER")
    one.add_argument("--checkpoint", required=True, help="a .ckpt, or others' weights with --config_path")
    one.add_argument("--index", required=True, help="folder of the index; made if need be")
    one.add_argument("--config_path", help="a YAML file whose keys override the config of a .ckpt")
    one.add_argument("--raw_weights", action="store_true", help="the weights, not their average (EMA)")
    one.add_argument("--image_size", type=int, help="longer side of a picture (that of the evaluation)")
    one.add_argument("--cells", type=int, help="cells of the inverted file (by the number of pictures)")
    one.add_argument("--only", action="store_true", help="drop pictures that are not under these folders")
    one.add_argument("--rebuild", action="store_true", help="start anew, whatever the index holds")
    two = commands.add_parser("search", help="find the pictures most like others", allow_abbrev=False)
    two.add_argument("index", metavar="INDEX")
    two.add_argument("queries", nargs="+", metavar="QUERY", help="pictures, or folders of pictures")
    two.add_argument("--top", type=int, default=10, help="pictures a query (10)")
    two.add_argument("--sheet", help="a .png to draw the queries and what was found on")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    two.add_argument("--checkpoint", help="where the checkpoint of the index is now (where it was)")
    two.add_argument("--probes", type=int, help="cells that a query looks into (what the build measured)")
    two.add_argument("--device_target", default="auto", help="auto, Ascend, GPU or CPU (auto)")
    own, rest = flags.parse_known_args(arguments)
    if own.command == "search" and rest:
        flags.error(f"unrecognized arguments: {' '.join(rest)}")
    (build if own.command == "build" else search)(own, rest)


def build(own, rest):
    import os
    import sys
    import time

    from ..common.errors import UserError
    from ..common.files import checksum, to_json
    from ..common.table import table
    from ..model_utils.config import parse_overrides, read_yaml
    from ..retrieval.embedding import Embedder
    from ..retrieval.index import update
    from ..trained import open_trained

    for folder in own.folders:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: no such folder; name existing folders of pictures")
    for name in ("image_size", "cells"):
        if (value := getattr(own, name)) is not None and value < 1:
            raise UserError(f"{name}: {value} given, allowed: a whole number >= 1")
    began = time.perf_counter()
    keys = parse_overrides(rest)
    if own.image_size is not None:
        keys["eval_image_size"] = own.image_size
    how = {
        "config_path": own.config_path and os.path.abspath(own.config_path),
        "raw_weights": own.raw_weights,
    }
    trained = open_trained(own.checkpoint, keys, headless=True, **how)
    given = (read_yaml(own.config_path) if own.config_path else {}).keys() | keys.keys()
    settings = trained.recipe.config.model_dump(mode="json", include=given - ELSEWHERE)
    facts = update(
        own.index,
        own.folders,
        embed=Embedder.from_trained(trained).embed,
        identity={
            "image_size": trained.card.image_size,
            "checkpoint_sha256": checksum(trained.checkpoint.path),
            "settings": settings,
            "raw_weights": own.raw_weights,
        },
        reopen={"checkpoint": os.path.abspath(trained.checkpoint.path), "overrides": settings, **how},
        only=own.only,
        cells=own.cells,
        rebuild=own.rebuild,
        damaged=lambda error: print(f"skipped {error}", file=sys.stderr),
    )
    facts = {**facts, "seconds": round(time.perf_counter() - began, 1)}
    print(table(facts.items()))
    print(to_json(facts))


def search(own, rest):
    from functools import partial

    import numpy as np

    from ..common.errors import UserError
    from ..data.decode import decode
    from ..data.folders import find_images
    from ..retrieval.index import PictureIndex
    from ..retrieval.sheets import check_sheet_name

    for name in ("top", "probes"):
        if (value := getattr(own, name)) is not None and value < 1:
            raise UserError(f"{name}: {value} given, allowed: a whole number >= 1")
    if own.sheet is not None:
        check_sheet_name(own.sheet)
    index = PictureIndex.open(own.index)
    queries = find_images(own.queries).files
    skipped = {}
    embedded = _embedder(own, index).embed(
        ((query, partial(decode, query)) for query in queries),
        skip=lambda query, error: skipped.update({query: error.reason}),
    )
    embedded = dict(embedded)
    found = index.search(np.array(list(embedded.values())), own.top, probes=own.probes) if embedded else []
    results = dict(zip(embedded, found))
    _show(own, results, skipped)
    if own.sheet and results:
        _draw(own, results)
    problems = [f"{query}: {reason}; choose another picture" for query, reason in skipped.items()]
    problems += [f"{q}: no picture found; give more --probes" for q, there in results.items() if not there]
    if problems:
        raise UserError(problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))


def _embedder(own, index):
    """The embedder that the index was built with. Its checkpoint may have moved, but not changed."""
    import os

    from ..common.errors import UserError
    from ..common.files import checksum
    from ..retrieval.embedding import Embedder
    from ..trained import open_trained

    try:
        checkpoint = own.checkpoint or index.reopen["checkpoint"]
        built_by = index.identity["checkpoint_sha256"]
        how = {key: index.reopen[key] for key in ("config_path", "raw_weights")}
        keys = {**index.reopen["overrides"], "device_target": own.device_target}
    except (KeyError, TypeError) as error:
        raise UserError(f"{own.index} does not say by what it was built; build it with --rebuild") from error
    if not os.path.isfile(checkpoint):
        raise UserError(f"checkpoint {checkpoint} is not there; say where it is now by --checkpoint")
    if checksum(checkpoint) != built_by:
        raise UserError(
            f"checkpoint {checkpoint} is not the one that {own.index} was built with; "
            "give that one as --checkpoint, or build the index with --rebuild"
        )
    return Embedder.from_trained(open_trained(checkpoint, keys, headless=True, **how))


def _show(own, results, skipped):
    import json

    if own.json:
        answers = [{"query": q, "found": [n._asdict() for n in found]} for q, found in results.items()]
        failed = [{"query": query, "reason": reason} for query, reason in skipped.items()]
        print(json.dumps({"results": answers, "skipped": failed}))
        return
    for query, found in results.items():
        lines = [query, *(f"  {n.similarity:7.4f}  {n.file}{'  (missing)' * n.missing}" for n in found)]
        # A file name need not be valid UTF-8; a terminal's must be.
        print("\n".join(lines).encode("utf-8", "replace").decode("utf-8"))


def _draw(own, results):
    import os

    import numpy as np

    from ..data.decode import UnreadableImage, decode
    from ..retrieval.sheets import Shown, draw_sheet

    def shown(file, similarity=None):
        try:
            return Shown(decode(file), file, similarity)
        except UnreadableImage:  # gone or damaged since the build
            return Shown(np.full((64, 64, 3), 200, np.uint8), f"missing {os.path.basename(file)}", similarity)

    rows = ((shown(q), [shown(n.file, n.similarity) for n in found]) for q, found in results.items())
    draw_sheet(own.sheet, rows, columns=own.top)


if __name__ == "__main__":
    run(main)

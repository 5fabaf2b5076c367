# SPDX-License-Identifier: Apache-2.0
"""Search in your own pictures: an index of folders by a trained network's embeddings, and questions to it.

python -m src.tools.search build photos/ --checkpoint_path runs/RUN --index photos.index
python -m src.tools.search build photos/ --checkpoint_path model.onnx --index photos.index
python -m src.tools.search search photos.index query.jpg more/ --top 10 --sheet found.png

build looks at new and changed pictures only, and drops those that are gone. After an interruption the same
call goes on. Pictures of other folders stay in the index, unless --only is given. A folder that is empty, or
lost more than half of its pictures, is refused, unless --prune is given: its drive may be missing. A damaged
picture is named, and left out until it changes. The last line is one JSON object. Every other --key value of
build replaces one of the checkpoint's config; eval_image_size is the longer side of a picture. An .onnx takes
squares of one size: its card says whether they are cut from the centre, or the picture is squeezed into one.
made_square counts the pictures that were not square.

search prints the most similar files of each query, with their cosine similarity. A query that cannot be read
is named, and the exit code is 2.
"""

from ..common.cli import parser, run
from ..key_help import key_help

ELSEWHERE = {"device_target", "data_path", "workers"}  # keys that may differ from build to build


def main(arguments):
    flags = parser(__doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    of_build = commands.add_parser("build", help="bring an index up to date", allow_abbrev=False)
    of_build.keys = key_help
    of_build.add_argument("folders", nargs="+", metavar="FOLDER", help="folders of pictures, to any depth")
    of_build.add_argument(
        "--checkpoint_path",
        required=True,
        help="a run's folder (its best), a .ckpt, published weights with --config_path, or an .onnx",
    )
    of_build.add_argument("--index", required=True, help="folder of the index; made if it is not there")
    of_build.add_argument("--config_path", help="a YAML file: its keys replace those of a .ckpt")
    for name, about in {
        "raw_weights": "use the weights themselves, not their moving average (EMA)",
        "only": "drop pictures that are not under these folders",
        "prune": "drop pictures that are gone, even all of a folder",
        "rebuild": "start anew; the old index stays until the new one is complete",
    }.items():
        of_build.add_argument(f"--{name}", action="store_true", help=about)
    of_search = commands.add_parser(
        "search", help="find the pictures most similar to others", allow_abbrev=False
    )
    of_search.add_argument("index", metavar="INDEX", help="the folder that build has made")
    of_search.add_argument("queries", nargs="+", metavar="QUERY", help="pictures, or folders of pictures")
    of_search.add_argument("--top", type=int, default=10, help="pictures to show for each query (10)")
    of_search.add_argument("--sheet", help="a .png file to write: the queries, and what was found")
    of_search.add_argument("--json", action="store_true", help="print one JSON object")
    of_search.add_argument("--checkpoint_path", help="where the checkpoint of the index is now")
    of_search.add_argument("--device_target", default="auto", help="auto, Ascend, GPU or CPU (auto)")
    own, rest = flags.parse_known_args(arguments)
    if own.command == "search" and rest:
        flags.error(f"unrecognized arguments: {' '.join(rest)}")
    (build if own.command == "build" else search)(own, rest)


def build(own, rest):
    import os
    import sys
    import time

    from ..common.files import to_json
    from ..common.table import table
    from ..data.folders import find_in
    from ..embedders import open_embedder
    from ..model_utils.config import parse_overrides, read_yaml
    from ..retrieval.index import update

    began = time.perf_counter()
    found = {folder: find_in(folder) for folder in own.folders if os.path.isdir(folder)}
    keys = parse_overrides(rest)
    how = {
        "config_path": own.config_path and os.path.abspath(own.config_path),
        "raw_weights": own.raw_weights,
    }
    opened = open_embedder(own.checkpoint_path, keys, flags=vars(own), **how)
    given = (read_yaml(own.config_path) if own.config_path else {}).keys() | keys.keys()
    given = opened.config.model_dump(mode="json", include=given - ELSEWHERE)
    facts = update(
        own.index,
        {folder: found[folder].files if folder in found else [] for folder in own.folders},
        embed=opened.embedder.embed,
        identity=opened.identity,
        reopen={"checkpoint": os.path.abspath(opened.path), "overrides": given, **how},
        only=own.only,
        prune=own.prune,
        rebuild=own.rebuild,
        damaged=lambda error: print(f"skipped {error}", file=sys.stderr),
    )
    facts = {**facts, **opened.embedder.facts, "seconds": round(time.perf_counter() - began, 1)}
    for folder in own.folders:
        lines = found[folder].in_words() if folder in found else [f"{folder} is no folder any more"]
        print(*lines, sep="\n")
    print(table(facts.items()))
    print(to_json(facts))
    for one in found.values():
        one.left_out.refuse_unreadable()


def search(own, rest):
    import sys
    from functools import partial

    import numpy as np

    from ..common.errors import UserError
    from ..data.decode import decode_resized
    from ..data.folders import find_images
    from ..retrieval.index import PictureIndex
    from ..retrieval.sheets import check_sheet_name

    if own.top < 1:
        raise UserError(f"top: {own.top} given, allowed: a whole number >= 1")
    if own.sheet is not None:
        check_sheet_name(own.sheet)
    index = PictureIndex.open(own.index)
    queries = find_images(own.queries)
    skipped = {}
    embedded = _embedder(own, index).embed(
        ((query, partial(decode_resized, query)) for query in queries.files),
        skip=lambda query, error: skipped.update({query: error.reason}),
    )
    embedded = dict(embedded)
    found = index.search(np.array([*embedded.values()]), own.top) if embedded else []
    results = dict(zip(embedded, found))
    _show(own, results, skipped)
    if index.missing:
        some = f"{len(index.missing)} pictures of the index, such as {min(index.missing)}"
        print(f"passed over, since they are not there: {some}", file=sys.stderr)
    if own.sheet and results:
        _draw(own, results)
    if skipped:
        query, reason = next(iter(skipped.items()))
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise UserError(f"{query}: {reason}; choose another picture{more}")
    queries.left_out.refuse_unreadable()


def _embedder(own, index):
    """The embedder that the index was built with. Its checkpoint may have moved, but not changed."""
    import json
    import os

    from ..common.errors import UserError
    from ..embedders import open_embedder

    checkpoint = own.checkpoint_path or index.reopen["checkpoint"]
    if not os.path.exists(checkpoint):
        raise UserError(f"checkpoint {checkpoint} is not there; say where it is now by --checkpoint_path")
    how = {key: index.reopen[key] for key in ("config_path", "raw_weights")}
    keys = {**index.reopen["overrides"], "device_target": own.device_target}
    opened = open_embedder(checkpoint, keys, **how)
    identity = json.loads(json.dumps(opened.identity))
    for name, built in index.identity.items():
        if identity.get(name) != built:
            raise UserError(
                f"checkpoint {checkpoint} is not the one that {own.index} was built with, whose {name} is "
                f"{built}, not {identity.get(name)}; give that one, or build the index with --rebuild"
            )
    return opened.embedder


def _show(own, results, skipped):
    import json

    from ..common.table import as_text

    if own.json:
        names = ("file", "similarity")
        answers = [
            {"query": query, "found": [dict(zip(names, one)) for one in found]}
            for query, found in results.items()
        ]
        failed = [{"query": query, "reason": reason} for query, reason in skipped.items()]
        print(json.dumps({"results": answers, "skipped": failed}))
        return
    for query, found in results.items():
        print(as_text([query, *(f"  {similarity:7.4f}  {file}" for file, similarity in found)]))


def _draw(own, results):
    import numpy as np

    from ..data.decode import UnreadableImage, decode
    from ..retrieval.sheets import Shown, draw_sheet

    def shown(file, similarity=None):
        try:
            return Shown(decode(file), file, similarity)
        except UnreadableImage:  # damaged since the build
            return Shown(np.full((64, 64, 3), 200, np.uint8), f"damaged {file}", similarity)

    rows = ((shown(query), [shown(*one) for one in found]) for query, found in results.items())
    draw_sheet(own.sheet, rows, columns=own.top)


if __name__ == "__main__":
    run(main)

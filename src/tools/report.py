# SPDX-License-Identifier: Apache-2.0
"""What a run was and what came out, as a page of HTML that opens offline; or several runs compared.

python -m src.tools.report runs/RUN                       writes runs/RUN/report.html anew
python -m src.tools.report runs/A runs/B --output ab.html

Training writes the page of a run when it ends. Of a run that has not ended, the page shows what there is.
Several runs: in which keys they differ, their curves over each other, and their figures; runs that differ in
their seed alone are one line with its spread. The last line is one JSON object.
"""

from ..common.cli import parser, run


def main(arguments):
    flags = parser(__doc__)
    flags.usage = "python -m src.tools.report RUN [RUN ...] [--output FILE]"
    flags.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    flags.add_argument(
        "--output", metavar="FILE", help="the page (RUN/report.html; of several runs comparison.html)"
    )
    own = flags.parse_args(arguments)

    from pathlib import Path

    from ..common.errors import UserError
    from ..common.files import to_json
    from ..experiments.comparison import read_run, write_comparison
    from ..reports.run import NAME, write_run_page
    from ..zoo import config_class_of

    paths = [*{path.resolve(): path for path in map(Path, reversed(own.runs))}.values()][::-1]
    output = Path(own.output or (paths[0] / NAME if len(paths) == 1 else "comparison.html"))
    if output.suffix not in (".html", ".htm"):
        raise UserError(f"output: {output} given, allowed: a name that ends in .html")
    runs = [read_run(path, config_class_of) for path in paths]
    facts = {"report": str(output)}
    if len(runs) == 1:
        write_run_page(runs[0], output)
    else:
        facts["rows"] = write_comparison(runs, output)
    print(to_json(facts))


if __name__ == "__main__":
    run(main)

"""Keep a gallery of features on disk, and search it exactly.

Examples:
    tools/index.py build people features.npz
    tools/index.py add people more.npz
    tools/index.py search people queries.npz --count 20 --output found.json
    tools/index.py search people query.jpg --model model.pth --camera gate --since 2026-11-27T08:00
    tools/index.py search people --id 17 --other-cameras
    tools/index.py list people --where "coat=red"
    tools/index.py remove people 17 18
    tools/index.py check people

Exit status: 0 all is well, 1 an error or a gallery that check refuses, 3 done but images that cannot be read were left
out.
"""

import argparse

from mgre_cli.arguments import add_model_use, positive
from mgre_cli.start import start

_SOURCE = "a features file (.npz) of mgre extract; or, with --model, images and folders of images"


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, purpose in (("build", "make an index of features"), ("add", "add features to an index")):
        action = actions.add_parser(name, help=purpose, description=purpose)
        _add_index(action)
        _add_sources(action, nargs="+")
        action.add_argument(
            "--ids-from",
            choices=("file", "name", "path"),
            default="file",
            help="where ids come from: the features file, or numbers where it has none (default); the images' file "
            "names; or their whole paths",
        )
        action.add_argument("--camera", default="", metavar="NAME", help="of all these images, if the file names none")
        action.add_argument("--time", default="", help="of all these images, if the file names none")
    action = actions.add_parser("remove", help="remove entries, and erase their vectors from the disk")
    _add_index(action)
    action.add_argument("ids", nargs="+", metavar="ID")
    action = actions.add_parser("search", help="find the nearest entries of each query")
    _add_index(action)
    _add_sources(action, nargs="*")
    action.add_argument("--id", action="append", default=[], help="take an entry of the index as a query; repeatable")
    action.add_argument("--count", type=positive, default=10, help="entries to find a query (default: %(default)s)")
    action.add_argument("--other-cameras", action="store_true", help="leave out entries of the query's own camera")
    action.add_argument("--query-camera", default="", metavar="NAME", help="of all queries, if the file names none")
    _add_filter(action)
    action.add_argument("--rerank", action="store_true", help="re-rank the first ones (k-reciprocal encoding)")
    action.add_argument("--first", type=positive, default=100, help="how many to re-rank (default: %(default)s)")
    action.add_argument("--output", metavar="FILE", help="write the results to a .json or .csv file; replaces it")
    action.add_argument("--pictures", metavar="DIR", help="draw each query with what was found")
    action = actions.add_parser("list", help="list entries")
    _add_index(action)
    _add_filter(action)
    action.add_argument("--limit", type=positive, default=100, help="of entries (default: %(default)s)")
    action = actions.add_parser("check", help="read all of an index, and say what is not well")
    _add_index(action)
    return parser.parse_args(words)


def _add_index(action: argparse.ArgumentParser) -> None:
    action.add_argument("index", metavar="INDEX", help="folder of the index")


def _add_sources(action: argparse.ArgumentParser, nargs: str) -> None:
    action.add_argument("sources", nargs=nargs, metavar="SOURCE", help=_SOURCE)
    action.add_argument("--model", default="", metavar="FILE", help="the model that embeds the images")
    add_model_use(action)


def _add_filter(action: argparse.ArgumentParser) -> None:
    group = action.add_argument_group("only entries")
    group.add_argument("--camera", action="append", default=[], metavar="NAME", help="of this camera; repeatable")
    group.add_argument("--since", metavar="TIME", help="of this time or later")
    group.add_argument("--until", metavar="TIME", help="of this time or earlier")
    group.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="whose metadata have this value; repeatable, then all must agree",
    )


def main(words: list[str] | None = None) -> int:
    return start("index", parse_args(words))

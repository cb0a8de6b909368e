"""mgre: train, evaluate, and use a trained model. mgre COMMAND --help tells more.

Each command is also a file in tools/.
"""

import difflib
import importlib
import sys

# The commands by name: the module of mgre_cli, and what the command is for.
COMMANDS = {
    "train": ("train", "train a config, or evaluate it with --eval-only"),
    "rank": ("rank", "rank lists of an evaluation as pictures"),
    "report": ("report", "an evaluation as one HTML file to look at"),
    "quickstart": ("quickstart", "train, evaluate and re-rank on drawn pedestrians, in minutes, on a CPU"),
    "compare": ("compare", "are these images of one person, and which regions say so?"),
    "calibrate": ("calibrate", "measure what a model's scores mean, on labelled images"),
    "extract-keypoints": ("extract_keypoints", "find, import or check key points"),
    "select-weights": ("select_weights", "choose the weights of the final feature on a validation set"),
    "extract": ("extract", "compute the features of images with a trained model"),
    "convert": ("convert", "write a model's weights and record alone, such as .safetensors"),
    "card": ("card", "print a model card"),
    "export": ("export", "files for ONNX runtimes and trackers, checked against PyTorch"),
    "evaluate": ("evaluate", "metrics of a checkpoint or an exported file, as other runtimes feed it"),
    "index": ("index", "keep a gallery of features on disk, and search it exactly"),
    "reproduce": ("reproduce", "the paper's tables and figures"),
    "compare-results": ("compare_results", "a run's figures beside the expected ones"),
}


def main(words: list[str] | None = None) -> int:
    """Run ``mgre COMMAND ...``; the exit status."""
    words = sys.argv[1:] if words is None else words
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(f"usage: mgre COMMAND ...\n\n{__doc__.strip()}\n")
        print("\n".join(f"  {command:{width}}  {purpose}" for command, (_, purpose) in COMMANDS.items()))
        return 0
    if name == "--version":
        from mgre.version import VERSION

        print(f"mgre {VERSION}")
        return 0
    if name not in COMMANDS:
        similar = difflib.get_close_matches(name, COMMANDS, n=1)
        near = f" (nearest: {similar[0]})" if similar else ""
        print(f"error: '{name}' is no command of mgre{near}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv[0] = f"mgre {name}"  # argparse shows this name
    return importlib.import_module(f"mgre_cli.{COMMANDS[name][0]}").main(rest)

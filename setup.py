"""Install the package ``mgre`` from projects/MGRe."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# The toolbox reads CUHK03's MATLAB release with these.
CUHK03 = ["h5py>=3.9", "imageio>=2.31"]
# Figure 4's activation maps (captum 0.9 is the first for numpy 2), and the plots.
REPRODUCE = ["captum>=0.9", "matplotlib>=3.7"]
# torch's exporter on torch.export is written in onnxscript; torch does not install it.
EXPORT = ["onnx>=1.16", "onnxscript>=0.5"]

setup(
    name="mgre",
    version=re.search(r'VERSION = "(.+)"', Path("projects/MGRe/mgre/version.py").read_text())[1],
    description="MGRe (Neurocomputing 2021) for the person re-identification toolbox fast-reid",
    license="Apache-2.0",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    # The shipped configs are a part of the package where it is installed, and stand in configs/ here.
    package_dir={"": "projects/MGRe", "mgre.shipped_configs": "configs"},
    packages=[*find_packages("projects/MGRe"), "mgre.shipped_configs"],
    package_data={
        "mgre": ["py.typed"],
        "mgre.reporting": ["*.html"],
        "mgre.shipped_configs": ["MGRe/*.yml", "MGRe/ablations/*.yml", "MGRe/weights/*.yml"],
    },
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    entry_points={"console_scripts": ["mgre = mgre_cli.main:main"]},
    python_requires=">=3.10,<3.14",  # < 3.14: the toolbox's worker start-up needs fork or a re-imported main
    install_requires=[
        "torch>=2.9",  # the release torchvision 0.24 is built for
        "torchvision>=0.24",  # the first whose tv_tensors.KeyPoints may leave the image; 0.23 clamps them to its border
        "numpy>=1.24",
        "scipy>=1.11",
        "fvcore>=0.1.5",
        "yacs>=0.1.8",
        "termcolor>=2.2",
        "opencv-python-headless>=4.8",
        # What fastreid 1.4.0 imports; it is installed with --no-deps because of its torch==1.13.1 pin.
        "pyyaml>=6.0",
        "scikit-learn>=1.3",
        "tabulate>=0.9",
        "tensorboard>=2.12",
        "gdown>=5.0",
        "pillow>=10.1",  # the first with a font that can have a size
        "packaging>=22.0",  # the versions that plugins ask for
        # The report's template, which escapes what it is given, and the type of what is escaped. torch needs both too.
        "jinja2>=3.1",
        "markupsafe>=2.0",
        "timm>=1.0",
        "safetensors>=0.4",
        "tqdm>=4.65",
    ],
    extras_require={
        "cpu": ["faiss-cpu>=1.8"],
        "gpu": ["faiss-gpu>=1.15"],
        # For the pose models "rtmpose" and "onnx"; rtmlib itself is installed with --no-deps, because it would bring
        # opencv-python and opencv-contrib-python, whose files overwrite those of opencv-python-headless.
        "pose": ["onnxruntime>=1.18"],
        "pose-gpu": ["onnxruntime-gpu>=1.18"],
        "parquet": ["pyarrow>=16"],  # what mgre extract writes .parquet with; 16 is the first that is built for numpy 2
        "cuhk03": CUHK03,
        "reproduce": REPRODUCE,
        # mgre export writes a file with two packages, and checks it with onnxruntime, which alone is enough to use it.
        "onnx": [*EXPORT, "onnxruntime>=1.18"],
        # mgre export --format openvino, and the use of its files; nncf is for its int8 alone.
        "openvino": [*EXPORT, "openvino>=2024.6", "nncf>=2.14"],
        "dev": [
            *EXPORT,
            *("filelock>=3.12", "pyarrow>=16", "pytest>=8.0", "pytest-timeout>=2.3", "pytest-xdist>=3.5", "ruff>=0.6"),
            "setuptools>=70.1",  # the first that builds a wheel alone, as a test does
            "mypy>=2.4,<2.5",  # each minor version finds other faults
            # The site of docs/.
            *("mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"),
            *CUHK03,
            *REPRODUCE,
        ],
    },
)

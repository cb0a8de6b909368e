# make quickstart: train, evaluate and re-rank MGRe on drawn pedestrians, in minutes, on a CPU
# make test:       the tests
# make quick-test: those that take no seconds each, to run again and again
# make lint:       ruff's rules and format, and mypy
# make docs:       the documentation as a site, in build/site
# make reproduce-quick: the paper's experiments on drawn pedestrians, in an hour or two
# make torture:    a small training killed at 30 random moments and resumed, compared with an undisturbed one; and a
#                  gallery that is added to and removed from, killed 30 times
# make gpu-check:  on a machine with a GPU, in at most eight minutes: tests, speed, determinism, training, re-ranking
#                  PYTHON=python3 make gpu-check uses that Python as it is, and makes no .venv; OUTPUT is a folder, ARGS="--tiny --device cpu" a try
# Each, but for gpu-check with a PYTHON, makes .venv and installs what it needs when that is not there yet.

PYTHON ?= python3
# The NVIDIA driver brings nvidia-smi; faiss and onnxruntime come in one build with CUDA and one without.
EXTRA := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
POSE := $(if $(filter gpu,$(EXTRA)),pose-gpu,pose)
READY := .venv/.ready-$(EXTRA)
PIP := .venv/bin/python -m pip install --disable-pip-version-check
# $(call install,MODULE,EXTRA,OTHER,PACKAGE) installs EXTRA; where that cannot be had, or its MODULE cannot be loaded
# beside torch, OTHER instead of its PACKAGE.
define install
	$(PIP) --editable '.[$(2)]' && .venv/bin/python -c 'import torch, $(1)' || { \
		echo '$(4) cannot be used here: the build without CUDA takes its place'; \
		.venv/bin/python -m pip uninstall --yes $(4); $(PIP) --editable '.[$(3)]'; }
endef

# gpu-check takes a PYTHON that was named; else .venv's.
NAMED := $(filter command environment override,$(firstword $(origin PYTHON)))
CHECKED := $(if $(NAMED),$(PYTHON),.venv/bin/python)
OUTPUT ?= logs/gpu-check

.PHONY: quickstart test quick-test lint docs reproduce-quick torture gpu-check

quickstart: $(READY)
	.venv/bin/python tools/quickstart.py

test: $(READY)
	.venv/bin/python -m pytest -n 2 --dist worksteal

quick-test: $(READY)
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

reproduce-quick: $(READY)
	.venv/bin/python tools/reproduce.py table4 table5 table6 table7 figure4 figure5 figure6 \
		--config-file configs/MGRe/reproduce-quick.yml --output logs/reproduce-quick

torture: $(READY)
	.venv/bin/python benchmarks/kill_and_resume.py
	.venv/bin/python benchmarks/index_kills.py

gpu-check: $(if $(NAMED),,$(READY))
	PYTHONPATH=projects/MGRe$(if $(PYTHONPATH),:$(PYTHONPATH)) $(CHECKED) benchmarks/gpu_check.py --output $(OUTPUT) $(ARGS)

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

$(READY): setup.py
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info[:2] <= (3, 13) else \
		f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.x ...")'
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable '.[dev]'
	$(call install,faiss,$(EXTRA),cpu,faiss-gpu)
	$(call install,onnxruntime,$(POSE),pose,onnxruntime-gpu)
	# --no-deps: fastreid pins torch==1.13.1, which has no build for Python 3.12 and later (mgre adapts it to current
	# torch), and rtmlib would bring two more OpenCVs.
	$(PIP) --no-warn-conflicts --no-deps fastreid==1.4.0 'rtmlib>=0.0.16'
	touch $@

# Every target sets up what it needs: a virtual environment in .venv, with the package installed for editing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-avx2 check slow oldest lock faults crash fuzz audit bench looks blind many hosts video docs wheel docker clean

demo: .venv/.demo
	$(BIN)/sr-upscale examples/chelsea.png -o demo/ --force --verbose
	@echo "Look at it: demo/chelsea_x4_photo-x4.png, made from examples/chelsea.png"

# a process for each core, one thread each: two with two threads stand in each other's way
WORKERS ?= auto
test: export OMP_NUM_THREADS = 1
test: check
	$(BIN)/pytest -m "not slow" --numprocesses $(WORKERS) --maxprocesses 8 --cov --cov-fail-under=90

# what computes, as processors without AVX-512 do it: sums come in another order, and no test may depend on that
COMPUTING = tests/models tests/inference tests/pretrained tests/training
OF_PROCESSES = --ignore-glob='*/test_limited.py' --ignore-glob='*/training/test_faults.py' \
	--ignore-glob='*/test_restarts.py' --ignore-glob='*/test_preview.py'
test-avx2: export OMP_NUM_THREADS = 1
test-avx2: $(STAMP)
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
		$(BIN)/pytest -q -m "not slow" --numprocesses $(WORKERS) --maxprocesses 8 $(OF_PROCESSES) $(COMPUTING)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# proofs that take minutes: scores of the weights, seams on photographs, a wheel in an empty environment
slow: $(STAMP)
	$(BIN)/pytest -m slow

# proofs of docs/video.md: ten kills, two thousand frames, the network busy; then its figures, of PHOTOGRAPH
PHOTOGRAPH ?= examples/chelsea.png
video: $(STAMP)
	$(BIN)/pytest -m slow tests/video
	$(BIN)/python scripts/measure_video.py $(PHOTOGRAPH)

# the tests with the oldest releases that pyproject.toml allows; a second environment of about 6 GB
oldest: .venv-oldest/.installed
	.venv-oldest/bin/pytest -m "not slow"

# the exact releases that development uses, for those who want the same: `uv pip sync requirements-dev.lock`
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
		--custom-compile-command "make lock" --no-emit-index-url --output-file requirements-dev.lock

# hostile bytes for everything that reads, SECONDS or EXECUTIONS for each of six targets; finds go to finds/ and
# make it fail (Linux, Atheris)
SECONDS ?= 600
EXECUTIONS ?= -1
fuzz: $(STAMP)
	$(BIN)/python scripts/fuzz.py --seconds $(SECONDS) --executions $(EXECUTIONS)

# known flaws of what is installed, by pip-audit in an environment of its own; needs the network
audit: $(STAMP) .audit/bin/pip-audit
	$(BIN)/pip freeze --exclude-editable | sed 's/+.*//' > .audit/installed.txt
	.audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .audit/installed.txt

# every row of docs/faults.md, what it promises and whether its tests hold
faults: $(STAMP)
	$(BIN)/python scripts/faults.py

# runs killed at known places of every write path; minutes, Linux
crash: $(STAMP)
	$(BIN)/python scripts/crash.py

# every figure of docs/speed.md; takes half an hour, and wants the machine for itself
bench: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev,models]"
	$(BIN)/python scripts/bench.py --json docs/speed.json

# a sheet of crops that are known to be hard, beside other tools: INPUTS holds the pictures, RIVALS names or files
INPUTS ?= ../shared/data/inputs
RIVALS ?= realesr-general-x4v3 realesrgan-x4plus
MODELS ?= photo-x4
looks: $(STAMP)
	mkdir -p demo
	$(BIN)/python scripts/looks.py --inputs $(INPUTS) --out demo/looks.png $(RIVALS:%=--rival %) $(LOOKS) $(MODELS)

# pairs of crops by MODELS and RIVAL to choose from without knowing which is which; answers.txt beside them takes the choice
BLIND ?= demo/blind
RIVAL ?= realesr-general-x4v3
PHOTOGRAPHS ?= ../shared/data/train/photos-1 ../shared/data/train/photos-2 ../shared/data/train/bsds400
blind: $(STAMP) demo/held-out/text
	$(BIN)/python scripts/blind.py draw --inputs $(INPUTS) $(PHOTOGRAPHS:%=--held-out %) --rendered demo/held-out \
		--out $(BLIND) $(MODELS) $(RIVAL)

demo/held-out/text: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check resvg-py
	$(BIN)/python scripts/make_pictures.py demo/held-out --held-out

# five processes on one folder of 500 pictures, two killed and two stopped (docs/many-machines.md)
many: $(STAMP)
	SR_UPSCALE_PICTURES=500 $(BIN)/pytest tests/pipeline/test_many_processes.py -k row_68

# three hosts in network namespaces share a bucket while cables are pulled (Linux, root)
hosts: $(STAMP)
	$(BIN)/python scripts/many_hosts.py

# pages of the public names, from their docstrings: demo/docs/index.html
docs: $(STAMP)
	$(BIN)/python scripts/api_pages.py demo/docs

wheel: $(STAMP)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# an image with the CPU build of torch, named sr-upscale; needs Docker and the network
docker:
	docker build --tag sr-upscale .

clean:
	rm -rf .venv .venv-oldest .audit dist demo finds

.audit/bin/pip-audit:
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet --disable-pip-version-check "pip-audit>=2.9"

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	mkdir -p demo && touch $@

$(STAMP): .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	mkdir -p demo && touch .venv/.demo $@

.venv-oldest/.installed: $(STAMP)
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[dev]"
	touch $@

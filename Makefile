# make         set up .venv, then run the pipeline that params.yaml describes
# make report  compare all that was evaluated: metrics/report/index.html
# make test    all tests
# make lint    style and types
# make weights [NAME=flownet2]   list the published weights, or download one
# make clean   remove what can be made again and is kept for speed: resized frames, interrupted work

PYTHON ?= python3.11
VENV := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)


.PHONY: all report test lint weights clean

all: $(VENV)
	dvc repro

report: $(VENV)
	python -m stages.report

test: $(VENV)
	pytest

lint: $(VENV)
	ruff check .
	ruff format --check .
	pyright

weights: $(VENV)
	python -m stages.weights $(NAME)

clean:
	rm -rf data/scratch

$(VENV): requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

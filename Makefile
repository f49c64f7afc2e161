# make demo, make test: each sets up what it needs in .venv, once. The rest: lint, bench, examples, clean.
# make bench K=matrix runs the benchmarks whose name has that word.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
METADATA := setup.cfg pyproject.toml constraints.txt

# One thread per process: the test workers and the benchmarks share the cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench examples clean

demo: $(VENV)/run.stamp
	$(BIN)/relsim demo

test: lint
	$(TEST) -n 2 --dist loadgroup
	TRITON_INTERPRET=1 $(TEST) -n 2 tests/kernels/interpreted

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/dev.stamp
	$(TEST) tests/benchmarks --benchmark-enable -k "$(K)"

# Every example on what it brings along; each writes a folder of its own in .runs.
examples: $(VENV)/dev.stamp
	mkdir -p .runs
	MPLBACKEND=agg $(BIN)/python examples/quickstart.py --out .runs/quickstart.png
	MPLBACKEND=agg $(BIN)/python examples/kg_completion.py --out .runs/kg_completion
	MPLBACKEND=agg $(BIN)/python examples/node_embedding.py --out .runs/node_embedding
	MPLBACKEND=agg $(BIN)/python examples/node_embedding.py --task classify --out .runs/node_classification
	MPLBACKEND=agg $(BIN)/python examples/language_model.py --out .runs/language_model
	MPLBACKEND=agg $(BIN)/python examples/entity_typing.py --out .runs/entity_typing
	MPLBACKEND=agg $(BIN)/python examples/translation.py --out .runs/translation
	MPLBACKEND=agg $(BIN)/python examples/tree_probe.py --out .runs/tree_probe
	MPLBACKEND=agg $(BIN)/python examples/relation_similarity.py --resume --out .runs/relation_similarity
	MPLBACKEND=agg $(BIN)/python examples/split_relations.py --resume --out .runs/split_relations
	MPLBACKEND=agg $(BIN)/python examples/openie_redundancy.py --resume --out .runs/openie_redundancy
	MPLBACKEND=agg $(BIN)/python examples/relation_prediction.py --resume --out .runs/relation_prediction
	MPLBACKEND=agg $(BIN)/python examples/relation_extraction.py --resume --out .runs/relation_extraction

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .runs
	find lorentz relsim kernels examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed, this is %d.%d: make PYTHON=python3.12, say" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(METADATA) | $(BIN)/pip
	$(INSTALL) --editable .
	touch $@

$(VENV)/dev.stamp: $(METADATA) | $(BIN)/pip
	$(INSTALL) --editable ".[dev,examples,plot,rdf]"
	touch $@ $(VENV)/run.stamp

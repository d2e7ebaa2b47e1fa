# `make test` and `make lint` do everything in a virtual environment of their own, .venv; nothing else is touched.
#   make test PYTHON=python3.12          with another Python (after `make clean`)
#   make test TESTS=tests/cluinfer       some tests only; PYTEST_ARGS for anything else
#   make lint, make format, make clean
#   make sanitize                        the kernels' tests under AddressSanitizer and UBSan; a minute more than tests
#   make docs                            the documentation as pages, in build/site; warnings are errors
#   make demo                            from a trained checkpoint to pictures of its clusters, in an environment of its own

PYTHON ?= python3
JOBS ?= 2
TESTS ?=
PYTEST_ARGS ?=

VENV := .venv
EXTRAS := export,openvino,plot,ray,docs,dev
DEMO_VENV := .venv-demo
# The server that tests start and its client, without what they ask for: they want NumPy 1, protobuf 6 and an older
# ml_dtypes, of which only parts that the tests do not touch have a need. What the client does need is named.
TRITON := "nvidia-pytriton==0.7.0; sys_platform == 'linux' and platform_machine == 'x86_64'" tritonclient==2.73.0
TRITON_NEEDS := geventhttpclient grpcio python-rapidjson
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Everything that ends up in the wheel. The folders are listed too, so that a removed file counts as a change.
SOURCES := CMakeLists.txt LICENSE README.md $(shell find -L cluinfer -name __pycache__ -prune -o -print)

.PHONY: test lint format docs sanitize demo clean

# Two workers with one thread each are quicker than one worker whose libraries thread every small operation.
test: $(VENV)/installed.stamp
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) $(PYTEST_ARGS) $(TESTS)

lint: $(VENV)/packages.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/packages.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/packages.stamp
	$(BIN)/mkdocs build --strict --quiet

# A build of its own, beside that of the package. Python itself is not sanitized, so the runtimes come first; it
# leaks by design, so leaks are not looked for.
sanitize: $(VENV)/installed.stamp
	$(BIN)/cmake -S cluinfer/native -B build/sanitize -DCLUINFER_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize --parallel $(JOBS)
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) \
	  $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  CLUINFER_KERNELS=build/sanitize/libcluinfer_kernels.so \
	  $(BIN)/pytest -p no:cacheprovider -p no:xdist -s tests/cluinfer/native

# What a user needs and no more.
demo:
	$(MAKE) VENV=$(DEMO_VENV) EXTRAS=export,openvino $(DEMO_VENV)/installed.stamp
	PATH="$(abspath $(DEMO_VENV)/bin):$$PATH" sh examples/demo.sh

clean:
	rm -rf $(VENV) $(DEMO_VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Not editable: the tests run what users get, so a file missing from the wheel fails them, and the native library
# lies where it does for users. Every change of a source reinstalls, which takes seconds (build/ is kept).
$(VENV)/installed.stamp: $(VENV)/packages.stamp $(SOURCES)
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --quiet --no-build-isolation --no-deps --force-reinstall .
	@touch $@

# Every package, by the extras of pyproject.toml: pip reads those from the project alone, so the project comes along,
# without the native part. What builds it comes first, since the build is not isolated (isolation ignores the pins).
$(VENV)/packages.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt cmake ninja scikit-build-core
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation \
	  --config-settings=wheel.cmake=false '.[$(EXTRAS)]'
	$(PIP) install --quiet --constraint constraints.txt $(TRITON_NEEDS)
	$(PIP) install --quiet --no-deps $(TRITON)
	@touch $@

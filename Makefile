# `make` lists the targets. Everything is installed into .venv, nothing elsewhere.
PYTHON := python3.13
VENV := .venv
BIN := $(VENV)/bin
# Settings of the shell for other Pythons, and for where pip installs; where packages come from stays.
PACKAGE_SOURCES := PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CONFIG_FILE \
	PIP_CERT PIP_CLIENT_CERT PIP_PROXY PIP_CACHE_DIR PIP_DEFAULT_TIMEOUT PIP_RETRIES
unexport $(filter-out $(PACKAGE_SOURCES),$(filter PIP_% PYTHON%,$(.VARIABLES)))
export PATH := $(CURDIR)/$(BIN):$(PATH)
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast coverage lint format lock test-docker test-training test-aws image mutation clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed  ## set up the Python environment

$(VENV)/.installed: requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.13 is needed; install it, or say where it is: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@echo "Installing the tools into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

demo: setup  ## show the whole system at work on this machine, without AWS or Docker
	@$(BIN)/python -m demo

# One process per core, four at most. Options in PYTEST_ADDOPTS come last and win: make test PYTEST_ADDOPTS="-n0 -x"
PARALLEL := PYTEST_ADDOPTS="-n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $$PYTEST_ADDOPTS"

test: setup  ## run all tests that need neither AWS nor Docker
	@$(PARALLEL) $(BIN)/python -m pytest --ignore=tests/docker

test-fast: setup  ## run the tests that start no other service: unit and property
	@$(PARALLEL) $(BIN)/python -m pytest tests/unit tests/property

coverage: setup  ## run the tests of make test, and write to build/coverage which lines they reached
	@$(PARALLEL) $(BIN)/python -m pytest --ignore=tests/docker --cov --cov-report=html
	@echo "Lines reached: $$($(BIN)/coverage report --format=total)%"

test-aws: setup  ## deploy to your AWS account, send the sample events, and remove it all: make test-aws IMAGE=…
	@test -n "$(IMAGE)" || { echo "IMAGE must name the image that make image pushed: make test-aws IMAGE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/image-classifier:1" >&2; exit 1; }
	@TEST_AWS_IMAGE="$(IMAGE)" $(BIN)/python -m pytest --noconftest tests/aws

test-docker: setup  ## run the sample events with sam local invoke, where a Docker engine answers
	@$(BIN)/python -m pytest tests/docker

PYTHON_TRAINING := $(PYTHON)
test-training: .venv-training/.installed  ## run the tests that need torch
	@.venv-training/bin/python -m pytest --noconftest tests/unit/test_training_train.py

.venv-training/.installed: training/requirements.txt
	@echo "Installing torch and the rest of the training environment into .venv-training"
	@$(PYTHON_TRAINING) -m venv .venv-training
	@.venv-training/bin/python -m pip install --quiet --requirement training/requirements.txt pytest pytest-socket
	@touch $@

# SageMaker takes a single manifest of Docker's type only. Docker's own store pushes OCI manifests by default, and
# attestations make an index of an image; a builder in a container can be told otherwise
# (https://docs.docker.com/build/exporters/image-registry/).
BUILDER := image-classifier
image:  ## build the endpoint's image and push it: make image IMAGE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG
	@case "$(IMAGE)" in */*:*) ;; *) echo "IMAGE must name a repository and a tag: make image IMAGE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/image-classifier:1" >&2; exit 1;; esac
	@command -v docker >/dev/null || { echo "Docker is needed to build the image: https://docs.docker.com/engine/install" >&2; exit 1; }
	@docker buildx version >/dev/null 2>&1 || { echo "Docker's buildx plugin is needed to build the image: https://github.com/docker/buildx#installing" >&2; exit 1; }
	@docker buildx inspect $(BUILDER) >/dev/null 2>&1 || docker buildx create --name $(BUILDER) --driver docker-container
	@docker buildx build --builder $(BUILDER) --platform linux/amd64 --provenance=false --sbom=false \
		--output type=registry,oci-mediatypes=false --tag "$(IMAGE)" --file serving/Dockerfile .
	@docker buildx imagetools inspect "$(IMAGE)" --format 'pushed $(IMAGE): {{.Manifest.Digest}}, {{.Manifest.MediaType}}'

# Names of files in tests/mutation; two run at once.
MUTATE ?= filter classify serialize drift deploy
mutation: setup  ## change the code in small ways, and see which changes no test notices (hours)
	@printf '%s\n' $(MUTATE) | xargs -P 2 -n 1 tests/mutation/run

lint: setup  ## check style, types and templates
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src common serving training monitoring operations rehearsal demo tests benchmarks
	@$(BIN)/mypy --python-version 3.11 training monitoring  # they and what they import run there too
	@$(BIN)/cfn-lint template.yaml training/roles.yaml examples/http-api.yaml
	@$(BIN)/sam validate --lint

format: setup  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Versions stay as they are but for new dependencies; UPGRADE=--upgrade takes the newest. All lists have the versions of
# requirements.txt, so that the tests run on what ships, and what ships has hashes. Of training, only the direct
# dependencies are listed: what torch needs differs between its builds.
UPGRADE :=
COMPILE := $(BIN)/uv pip compile --quiet --custom-compile-command "make lock" --no-annotate --universal --no-python-downloads
lock: setup  ## write the lists of requirements from the groups of pyproject.toml
	@$(COMPILE) $(UPGRADE) --python-version 3.13 --group dev --group mutation --output-file requirements.txt
	@$(COMPILE) $(UPGRADE) --python-version 3.13 --constraint requirements.txt --group bench --output-file benchmarks/requirements.txt
	@for folder in src/filter src/classify src/serialize serving; do \
		$(COMPILE) --python-version 3.13 --generate-hashes --constraint requirements.txt \
			--group $${folder##*/} --output-file $$folder/requirements.txt || exit 1; done
	@$(COMPILE) $(UPGRADE) --python-version 3.11 --no-deps --constraint requirements.txt \
		--group training --output-file training/requirements.txt

clean:  ## end the rehearsal and a kept demo, and remove everything that was made here, but for the environment
	@$(PYTHON) -m rehearsal down
	@$(PYTHON) -m rehearsal --folder build/demo/rehearsal down
	@rm -rf .aws-sam build .hypothesis .mypy_cache .pytest_cache .ruff_cache

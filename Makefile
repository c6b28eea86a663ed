# Each target calls a script; `make book` and `make test` set everything up first.
PYTHON ?= python3
RUN := .venv/bin/python
export OMP_NUM_THREADS ?= 1
export PORT ?= 8000

.PHONY: help setup book test check preview pdf film script gpu clean
.DEFAULT_GOAL := help

help:
	@$(PYTHON) scripts/help.py

setup:
	@$(PYTHON) scripts/setup.py

book: setup
	@$(RUN) scripts/book.py

test: setup
	@$(RUN) scripts/check.py

check: setup
	@$(RUN) scripts/check.py --chapter "$(CHAPTER)" $(if $(COLAB),--colab)

preview: setup
	@$(RUN) scripts/book.py --serve

pdf:
	@echo "make pdf: not made yet; a page prints from the browser, with its answers unfolded"

film script:
	@echo "make $@: the film is not made yet; its clips are, by make book"

gpu: setup
	@$(RUN) scripts/gpu.py --part "$(PART)" $(if $(AGAIN),--again)

clean:
	rm -rf _build book/_static/clips book/_static/vendor .pytest_cache .ruff_cache .hypothesis
